//! The peer that verbs go to: the one that is running on the share folder, or one in this process.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::Global;
use crate::session::Session;
use crate::verb::{Event, Failed, FailureKind, Verb};
use crate::{Lifetime, Peer};

/// A peer that takes verbs.
pub enum Reached {
    /// It runs elsewhere on this machine, and goes on when we end.
    Running(Session),
    /// It lives in this process; the token ends it.
    Own(Box<Peer>, CancellationToken),
}

impl Reached {
    /// The running peer of the share folder, if there is one.
    ///
    /// # Errors
    /// If it is there and cannot be talked to.
    pub async fn running(share: &Path) -> Result<Option<Self>, Failed> {
        Ok(Session::attach(share).await?.map(Self::Running))
    }

    /// A new peer in this process.
    ///
    /// # Errors
    /// If it cannot listen, or cannot start.
    pub async fn start(global: &Global, lifetime: Lifetime) -> Result<Self, Failed> {
        let listener = bind(global).await?;
        let shutdown = CancellationToken::new();
        let peer = Peer::start(listener, global.config()?, lifetime, shutdown.clone()).await?;
        Ok(Self::Own(Box::new(peer), shutdown))
    }

    /// Gives a verb; dropping the receiver cancels it.
    pub fn run(&self, verb: Verb) -> mpsc::Receiver<Event> {
        match self {
            Self::Running(session) => session.run(verb),
            Self::Own(peer, _) => peer.run(verb),
        }
    }

    /// The first event of an answer, if it comes within `patience`.
    pub async fn ask(&self, verb: Verb, patience: Duration) -> Option<Event> {
        let mut events = self.run(verb);
        tokio::time::timeout(patience, events.recv()).await.ok().flatten()
    }

    /// Ends a peer of our own in good order; leaves any other alone.
    pub async fn end(self) {
        if let Self::Own(peer, shutdown) = self {
            shutdown.cancel();
            peer.wait().await;
        }
    }
}

/// Binds the address that others will reach us at.
///
/// # Errors
/// With what to do about it.
pub async fn bind(global: &Global) -> Result<TcpListener, Failed> {
    TcpListener::bind(global.listen).await.map_err(|error| {
        let (why, hint) = match error.kind() {
            std::io::ErrorKind::AddrInUse => (
                "something else listens there already".to_owned(),
                "Give another port with --listen ADDR:PORT, or port 0 for any that is free.",
            ),
            std::io::ErrorKind::AddrNotAvailable => {
                ("this machine has no such address".to_owned(), "0.0.0.0 stands for all of this machine's addresses.")
            }
            std::io::ErrorKind::PermissionDenied => {
                ("that is not allowed".to_owned(), "Ports below 1024 are for root; take a higher one.")
            }
            _ => (error.to_string(), "Give another address with --listen ADDR:PORT."),
        };
        Failed::new(FailureKind::Failed, format!("cannot listen on {}: {why}", global.listen), hint)
    })
}
