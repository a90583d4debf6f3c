//! How one-shot verbs and the shell reach the peer that already runs on a share folder.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::control::{self, MAX_EVENTS};
use crate::verb::{Event, Failed, FailureKind, Verb};

/// The peer that runs on a share folder, in another process.
#[derive(Debug)]
pub struct Session {
    share: PathBuf,
}

impl Session {
    /// The running peer of that share folder, if there is one.
    ///
    /// # Errors
    /// If there is one that may not be spoken to.
    pub async fn attach(share: &Path) -> Result<Option<Self>, Failed> {
        let connected = control::connect(share).await.map_err(|error| cannot_speak(share, &error))?;
        Ok(connected.map(|_| Self { share: share.to_owned() }))
    }

    /// Asks for a verb; the last event is `Done` or `Failed`. Dropping the receiver cancels it.
    pub fn run(&self, verb: Verb) -> mpsc::Receiver<Event> {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let share = self.share.clone();
        tokio::spawn(async move {
            let failed = tokio::select! {
                relayed = relay(&share, &verb, &events) => relayed.err(),
                () = events.closed() => None,
            };
            if let Some(failed) = failed {
                crate::download::job::tell(&events, Event::Failed(failed)).await;
            }
        });
        receiver
    }
}

async fn relay(share: &Path, verb: &Verb, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
    let lost = |error: &std::io::Error| cannot_speak(share, error);
    let connected = control::connect(share).await.map_err(|error| lost(&error))?;
    let mut stream = connected.ok_or_else(|| gone(share))?;
    let mut line = serde_json::to_vec(verb).map_err(|error| lost(&error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(|error| lost(&error))?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.map_err(|error| lost(&error))? {
        let event: Event = serde_json::from_str(&line).map_err(|error| lost(&error.into()))?;
        let last = event.is_last();
        if events.send(event).await.is_err() || last {
            return Ok(());
        }
    }
    Err(gone(share))
}

fn cannot_speak(share: &Path, error: &std::io::Error) -> Failed {
    let message = format!("cannot speak to the peer that runs on {}: {error}", share.display());
    Failed::new(FailureKind::Failed, message, "Only the user who started it may. Check with whom it runs.")
}

fn gone(share: &Path) -> Failed {
    let message = format!("the peer on {} has ended", share.display());
    Failed::new(FailureKind::Failed, message, "Start it again with up; unfinished downloads go on by themselves.")
}
