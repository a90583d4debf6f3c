//! Completions for shells and man pages, made from the flags.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
pub use clap_complete::Shell;

use crate::cli::Cli;

/// The script that completes `potluck` in a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "potluck", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `potluck.1` and a page for each verb into a folder, made if missing.
///
/// # Errors
/// If it cannot be written.
pub fn write_man_pages(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}
