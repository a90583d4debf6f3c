//! The accept loop: a router behind a listener, with a limit on everything a stranger could hold on to.
//!
//! `axum::serve` sets no header timeout and caps nothing, so this is our own loop over hyper: a cap on connections
//! in all and per address, a deadline for a request's head (which also ends idle connections), and one for a reader
//! that stops reading. Bodies are bounded where they are read.
//!
//! Invariant: no connection outlives [`run`].

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::per_address::PerAddress;
use super::sendfile::FileStream;

/// What one listener grants to strangers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once; further ones are closed at once.
    pub max_connections: usize,
    /// Of these, from one address.
    pub max_connections_per_ip: usize,
    /// From the accept (or the end of the last response) to a whole request head.
    pub head_timeout: Duration,
    /// Without a byte taken by a reader of a response.
    pub write_timeout: Duration,
    /// From shutdown until connections that are still busy are cut.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8_192,
            max_connections_per_ip: 6_144,
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Lowers the connection caps so that half of the process's descriptors stay free for files and
    /// connections of our own.
    #[must_use]
    pub fn within_descriptors(mut self, n_descriptors: u64) -> Self {
        let half = usize::try_from(n_descriptors / 2).unwrap_or(usize::MAX).max(8);
        self.max_connections = self.max_connections.min(half);
        self.max_connections_per_ip = self.max_connections_per_ip.min(half);
        self
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns what holds then.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if setrlimit(Resource::Nofile, wanted).is_ok() {
        limit = wanted;
    }
    limit.current.unwrap_or(1 << 20)
}

/// Accepts and serves until `shutdown`, then lets connections finish within the drain timeout.
pub async fn run(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let open = PerAddress::default();
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(place) = open.take(from.ip(), limits.max_connections, limits.max_connections_per_ip) else {
                    tracing::debug!(%from, "connection refused: too many are open");
                    continue;
                };
                let connection = serve(stream, from, router.clone(), limits.clone(), shutdown.clone());
                let cut = cut.clone();
                tasks.spawn(async move {
                    let _place = place;
                    cut.run_until_cancelled(connection).await;
                });
            }
            // Out of descriptors or memory: what is open must end first, so wait instead of spinning.
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    if tokio::time::timeout(limits.drain_timeout, tasks.wait()).await.is_err() {
        cut.cancel();
        tasks.wait().await;
    }
}

async fn serve(stream: TcpStream, from: SocketAddr, router: Router, limits: Limits, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%from, %error, "cannot set TCP_NODELAY");
    }
    let stream = FileStream::new(stream);
    let parts = stream.parts();
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        request.extensions_mut().insert(parts.clone());
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        // What stands in for parts of files must come to the stream as it is.
        .writev(true)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start(limits: Limits) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new()
            .route("/", get(|ConnectInfo(from): ConnectInfo<SocketAddr>| async move { from.ip().to_string() }));
        let server = tokio::spawn(run(listener, router, limits, shutdown.clone()));
        (address, shutdown, server)
    }

    async fn read_to_end(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A reset counts as an end: the server closed on us.
        let _ =
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut text)).await.expect("closed in time");
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn answers_and_knows_who_asks() {
        let (address, shutdown, server) = start(Limits::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(read_to_end(&mut stream).await.ends_with("127.0.0.1"));
        shutdown.cancel();
        server.await.unwrap();
    }

    /// T14: half a head is given up, and an idle connection is closed.
    #[tokio::test]
    async fn slow_heads_and_idlers_are_closed() {
        let limits = Limits { head_timeout: Duration::from_millis(100), ..Limits::default() };
        let (address, _shutdown, _server) = start(limits).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HT").await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read_to_end(&mut slow).await;
        assert!(read_to_end(&mut idle).await.ends_with("127.0.0.1"));
    }

    #[tokio::test]
    async fn caps_connections_and_frees_their_places() {
        let (address, _shutdown, _server) = start(Limits { max_connections: 1, ..Limits::default() }).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 15];
        first.read_exact(&mut head).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(read_to_end(&mut second).await, "");
        drop(first);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let mut third = TcpStream::connect(address).await.unwrap();
            let _ = third.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            if read_to_end(&mut third).await.ends_with("127.0.0.1") {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "the place was never freed");
        }
    }

    #[tokio::test]
    async fn shutdown_cuts_what_does_not_end() {
        let limits = Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() };
        let (address, shutdown, server) = start(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), server).await.expect("ends in time").unwrap();
    }
}
