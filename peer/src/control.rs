//! The control socket: `.potluck/control.sock`, over which a running peer is asked for verbs.
//!
//! A Unix socket of mode 0600 in a folder of mode 0700, and nothing else: no verb ever arrives over TCP. One line of
//! JSON is a verb, each line back an event (see [`crate::verb`]). It is reached through the state folder's open handle, so a
//! share folder may have a path that is too long for a socket's address.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::execute::Executor;
use crate::verb::{Event, Failed, FailureKind, Verb};

/// Its name in the state folder.
pub const SOCKET_NAME: &str = "control.sock";
/// Longest verb in bytes: thousands of names.
const MAX_VERB_LEN: u64 = 4 << 20;
/// Events that may wait for a slow reader.
pub const MAX_EVENTS: usize = 64;

/// Opens the socket. One left behind by a peer that was killed is replaced: the caller holds the folder's lock.
///
/// # Errors
/// As `bind` and `rename`.
pub fn listen(state: &Dir) -> io::Result<UnixListener> {
    let temporary = format!("{SOCKET_NAME}.new");
    match state.remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(through_handle(state, &temporary))?;
    // Under its own name it exists only with its final mode.
    let mode = std::fs::Permissions::from_mode(0o600);
    state.set_permissions(&temporary, cap_std::fs::Permissions::from_std(mode))?;
    state.rename(&temporary, state, SOCKET_NAME)?;
    Ok(listener)
}

/// Connects to the peer that runs on a share folder; `None` if none does.
///
/// # Errors
/// If there is one that cannot be spoken to.
pub async fn connect(share: &Path) -> io::Result<Option<UnixStream>> {
    let state = share.join(potluck_common::share_path::STATE_DIR);
    let state = match Dir::open_ambient_dir(state, cap_std::ambient_authority()) {
        Ok(state) => state,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match UnixStream::connect(through_handle(&state, SOCKET_NAME)).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A short path for a name in an open folder.
fn through_handle(dir: &Dir, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Serves verbs until `shutdown`.
pub async fn run(listener: UnixListener, executor: Executor, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (executor, shutdown) = (executor.clone(), shutdown.clone());
                tasks.spawn(async move {
                    if let Err(error) = serve(stream, executor, &shutdown).await {
                        tracing::debug!(%error, "a control connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept control connections for the moment");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn serve(stream: UnixStream, executor: Executor, shutdown: &CancellationToken) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_VERB_LEN));
    let read = tokio::select! {
        read = reader.read_line(&mut line) => read,
        () = shutdown.cancelled() => return Ok(()),
    };
    read?;
    let verb: Verb = match serde_json::from_str(&line) {
        Ok(verb) => verb,
        Err(error) => {
            let message = format!("the running peer does not know that verb: {error}");
            let failed =
                Failed::new(FailureKind::Usage, message, "Both sides must be of one version: restart the peer.");
            return send(&mut writer, &[Event::Failed(failed)]).await;
        }
    };
    // A verb that ends the peer must still be answered.
    let ends_us = verb == Verb::Stop;
    let (events, mut answers) = mpsc::channel(MAX_EVENTS);
    let running = executor.run(verb, events);
    let sending = async {
        // What came meanwhile goes out together: thousands of small files a second would else be as many writes.
        let mut waiting = Vec::with_capacity(MAX_EVENTS);
        while answers.recv_many(&mut waiting, MAX_EVENTS).await > 0 {
            send(&mut writer, &waiting).await?;
            waiting.clear();
        }
        Ok(())
    };
    let mut byte = [0];
    tokio::select! {
        ((), sent) = async { tokio::join!(running, sending) } => sent,
        // The other side has nothing more to say, so a read ends only when it hangs up.
        _ = reader.read(&mut byte) => Ok(()),
        () = shutdown.cancelled(), if !ends_us => Ok(()),
    }
}

async fn send(writer: &mut (impl tokio::io::AsyncWrite + Unpin), events: &[Event]) -> io::Result<()> {
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, event)?;
        lines.push(b'\n');
    }
    writer.write_all(&lines).await
}
