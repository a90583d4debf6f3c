//! Running programs that may not be installed, and owners for them to download from.

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::Ordering;

use potluck_common::ContentId;
use potluck_peer::config::Config;
use potluck_peer::limit::schedule::Limit;
use tokio::process::{Child, Command};

use crate::harness::{DEADLINE, Node, Tracker, eventually, quick, root_with};

fn command(program: &str, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    // Neither a proxy nor somebody's own configuration.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder);
    command
}

fn skipped<T>(program: &str, why: impl std::fmt::Display) -> Option<T> {
    crate::harness::skipped(format_args!("{program}: {why}"));
    None
}

/// Runs a program in a folder; `None` and a word if this machine does not have it.
pub(crate) async fn run(program: &str, folder: &Path, args: &[&str]) -> Option<Output> {
    let output = command(program, folder, args).output();
    match tokio::time::timeout(DEADLINE, output).await.expect("it ends in time") {
        Ok(output) => Some(output),
        Err(error) => skipped(program, error),
    }
}

/// Runs a script with the system's Python, for which Debian's packages are; `None` and a word if that lacks the module.
pub(crate) async fn run_python(module: &str, script: &str, folder: &Path, args: &[&str]) -> Option<Output> {
    let python = "/usr/bin/python3";
    let has_module = run(python, folder, &["-c", &format!("import {module}")]).await?;
    if !has_module.status.success() {
        return skipped(python, format!("it has no module {module}"));
    }
    run(python, folder, &[&["-c", script], args].concat()).await
}

/// Starts a program that goes on until it is dropped.
pub(crate) fn start(program: &str, folder: &Path, args: &[&str]) -> Option<Child> {
    match command(program, folder, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => Some(child),
        Err(error) => skipped(program, error),
    }
}

/// A tracker and owners of one file, each at an address of its own: aria2c opens one connection to a host.
pub(crate) async fn owners(n: u8, path: &str, data: &[u8]) -> (Tracker, Vec<Node>) {
    owners_of(n, &[(path, data)]).await
}

/// The same with several files.
pub(crate) async fn owners_of(n: u8, files: &[(&str, &[u8])]) -> (Tracker, Vec<Node>) {
    let tracker = Tracker::start().await;
    let mut nodes = Vec::new();
    // Not that of the tracker, whose host would count as the one that it redirects to.
    for k in 2..n + 2 {
        let advertise = Some(format!("127.0.0.{k}").parse().unwrap());
        // Slow enough that whoever wants to be quick asks several.
        let limit_up: Limit = "8M".parse().unwrap();
        let quick = |share: &Path| quick(share, &tracker.url, "node");
        let config = |share: &Path| Config { advertise: advertise.clone(), limit_up: limit_up.clone(), ..quick(share) };
        nodes.push(Node::start_at(&format!("127.0.0.{k}:0"), root_with(files), config).await.unwrap());
    }
    for (_, data) in files {
        let id = ContentId::of(data);
        eventually("all own it", async || {
            let info = tracker.get(&format!("/v1/content/{id}")).await;
            info.is_some_and(|info| info["n_owners"] == u64::from(n))
        })
        .await;
    }
    (tracker, nodes)
}

/// What each has sent.
pub(crate) fn sent(nodes: &[Node]) -> Vec<u64> {
    nodes.iter().map(|node| node.peer.traffic().up.load(Ordering::Relaxed)).collect()
}
