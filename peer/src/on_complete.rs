//! `--on-complete PROG`: a program that is run for each file that has come.
//!
//! It gets the path, the content id and the length as its three arguments, and once more in `POTLUCK_PATH`, `POTLUCK_CONTENT_ID` and
//! `POTLUCK_LEN`. No shell is involved: names come from strangers, and `$(rm -rf ~)` is a name. The path is absolute, so it cannot
//! be taken for an option. What the program prints goes to our standard error, since results are on our standard output.
//!
//! Invariant: [`MAX_AT_ONCE`] run at most, and a program that fails is reported, each time.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use potluck_common::ContentId;
use rustix::fs::{Access, access};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::verb::{Failed, FailureKind};

/// Programs that run at once.
pub const MAX_AT_ONCE: usize = 4;
/// Files that may wait for their program: more than any but a mass of tiny ones.
const MAX_WAITING: usize = 16_384;

/// A file that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// Where it lies.
    pub path: PathBuf,
    /// Its content.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
}

/// The program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnComplete {
    program: PathBuf,
}

/// Where files that have come are told; without a program, nowhere. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Completions(Option<mpsc::Sender<Completed>>);

impl Completions {
    /// Tells of a file. One for which there is no room any more is left out, and the log says so.
    pub fn note(&self, path: PathBuf, content_id: ContentId, len: u64) {
        let Some(sender) = &self.0 else { return };
        if let Err(error) = sender.try_send(Completed { path, content_id, len }) {
            let (mpsc::error::TrySendError::Full(left_out) | mpsc::error::TrySendError::Closed(left_out)) = error;
            let path = left_out.path.to_string_lossy();
            tracing::warn!(
                path = path.as_ref(),
                "the program of --on-complete is too slow and is not run for this file"
            );
        }
    }

    /// Tells of a file, once there is room.
    pub async fn tell(&self, completed: Completed) {
        if let Some(sender) = &self.0 {
            // It ends after the last sender.
            let _told = sender.send(completed).await;
        }
    }
}

impl OnComplete {
    /// Finds the program, as a shell would.
    ///
    /// # Errors
    /// If there is none that can be run: better now than after the first download.
    pub fn find(program: &Path, search: Option<&std::ffi::OsStr>) -> Result<Self, Failed> {
        let is_program = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
        let found = if program.components().count() > 1 || program.is_absolute() {
            Some(program.to_owned()).filter(|path| is_program(path))
        } else {
            let folders = search.map(std::env::split_paths).into_iter().flatten();
            folders.map(|folder| folder.join(program)).find(|path| is_program(path))
        };
        let found = found.and_then(|path| std::path::absolute(path).ok()).ok_or_else(|| {
            let message = format!("--on-complete: there is no program {} that can be run", program.display());
            let hint = "Name one file, without arguments: it is called with path, content id and length. A script needs a #! line and chmod +x.";
            Failed::new(FailureKind::Usage, message, hint)
        })?;
        Ok(Self { program: found })
    }

    /// Where to tell of files, and what runs the program for them: until all tellers are gone and all programs have ended.
    /// `report` is called with each failure; the number of failures is the result.
    pub fn start(self, report: impl FnMut(String)) -> (Completions, impl Future<Output = usize>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Completions(Some(sender)), self.run(receiver, report))
    }

    async fn run(self, mut completed: mpsc::Receiver<Completed>, mut report: impl FnMut(String)) -> usize {
        let this = Arc::new(self);
        let (mut running, mut n_failed, mut open) = (JoinSet::new(), 0, true);
        while open || !running.is_empty() {
            tokio::select! {
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    if let Ok(Err(failure)) = ended {
                        n_failed += 1;
                        report(failure);
                    }
                }
                next = completed.recv(), if open && running.len() < MAX_AT_ONCE => match next {
                    None => open = false,
                    Some(completed) => {
                        let this = this.clone();
                        running.spawn(async move { this.call(&completed).await });
                    }
                },
            }
        }
        n_failed
    }

    async fn call(&self, completed: &Completed) -> Result<(), String> {
        let Completed { path, content_id, len } = completed;
        let (id, len) = (content_id.to_string(), len.to_string());
        let mut command = Command::new(&self.program);
        command.arg(path).arg(&id).arg(&len);
        command.env("POTLUCK_PATH", path).env("POTLUCK_CONTENT_ID", &id).env("POTLUCK_LEN", &len);
        let output = io::stderr().as_fd().try_clone_to_owned().map_or_else(|_| Stdio::null(), Stdio::from);
        command.stdin(Stdio::null()).stdout(output);
        let why = match command.status().await {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Err(format!("--on-complete: {} for {}: {why}", self.program.display(), path.display()))
    }
}
