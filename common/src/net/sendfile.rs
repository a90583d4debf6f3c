//! Parts of files that the kernel sends by itself (`sendfile(2)`): their bytes are never copied into our memory.
//!
//! hyper writes only bytes that it can see. So a response body gives it bytes that *stand in* for a part of a file
//! ([`FileParts::push`]); the connection ([`FileStream`]) knows them by their address and sends the part instead.
//!
//! Invariant: bytes that stand in never go out themselves. hyper hands bytes of a body on as they are to a connection that
//! takes several slices at once, as this one does, if it is told to (`writev`, without `pipeline_flush`); a slice that does
//! not have the length of the part that is next ends the connection. No layer between may copy or compress bodies.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Longest part, in bytes: short, so that little is sent of a file that has changed since it was looked at.
pub const MAX_PART_LEN: usize = 256 << 10;

/// What stands in, for all connections. Nobody reads or writes it.
static STAND_IN: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; MAX_PART_LEN].into_boxed_slice());

/// Told why a part cannot be read. It must not push parts.
pub type OnUnread = Arc<dyn Fn(&io::Error) + Send + Sync>;

/// A part of a file.
pub struct FilePart {
    /// The file.
    pub file: Arc<File>,
    /// Which bytes of it: one at least, [`MAX_PART_LEN`] at most.
    pub bytes: Range<u64>,
    /// Told if the disk does not give them, or the file is shorter.
    pub on_unread: Option<OnUnread>,
}

impl fmt::Debug for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePart").field("file", &self.file).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The parts that one connection has yet to send, in order. In the extensions of every request that
/// [`super::server::run`] serves.
#[derive(Debug, Clone, Default)]
pub struct FileParts(Arc<Mutex<VecDeque<FilePart>>>);

impl FileParts {
    /// Bytes that stand in for a part. They must go, whole and in this order, into the body of a response on the connection
    /// that these parts belong to.
    ///
    /// # Panics
    /// If the part is empty or too long.
    pub fn push(&self, part: FilePart) -> Bytes {
        let len = usize::try_from(part.bytes.end - part.bytes.start).unwrap_or(usize::MAX);
        assert!((1..=MAX_PART_LEN).contains(&len), "a part has 1 to {MAX_PART_LEN} bytes");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(part);
        Bytes::from_static(&STAND_IN[..len])
    }

    /// Sends of the next part what fits; `n_left` bytes stand in for what is left of it.
    fn send(&self, tcp: &TcpStream, n_left: usize) -> io::Result<usize> {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = parts.front_mut().filter(|part| part.bytes.end - part.bytes.start == n_left as u64);
        let part = part.ok_or_else(|| io::Error::other("a body holds something else than the part that is next"))?;
        // Moves the start by as much as was sent.
        let sent = match rustix::fs::sendfile(tcp, &part.file, Some(&mut part.bytes.start), n_left) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            sent => sent.map_err(io::Error::from),
        };
        match (&sent, &part.on_unread) {
            (Err(error), Some(on_unread)) if is_of_file(error) => on_unread(error),
            _ => {}
        }
        if part.bytes.is_empty() {
            parts.pop_front();
        }
        sent
    }
}

/// Whether the file is to blame, and not the connection.
fn is_of_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || [Errno::IO, Errno::STALE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A connection that sends [`FileParts`].
#[derive(Debug)]
pub struct FileStream {
    tcp: TcpStream,
    parts: FileParts,
}

impl FileStream {
    /// The connection, without parts.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, parts: FileParts::default() }
    }

    /// Where its parts go.
    pub fn parts(&self) -> FileParts {
        self.parts.clone()
    }

    fn poll_send(&self, cx: &mut Context<'_>, mut send: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.tcp.try_io(Interest::WRITABLE, &mut send) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

fn stands_in(slice: &IoSlice<'_>) -> bool {
    STAND_IN.as_ptr_range().contains(&slice.as_ptr())
}

impl AsyncWrite for FileStream {
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        let Some(first) = filled.next() else { return Poll::Ready(Ok(0)) };
        if stands_in(first) {
            return this.poll_send(cx, || this.parts.send(&this.tcp, first.len()));
        }
        // The head of a response waits for the first bytes of the part, so that both go in one packet.
        if filled.next().is_some_and(stands_in) {
            return this
                .poll_send(cx, || Ok(rustix::net::send(&this.tcp, first, SendFlags::MORE | SendFlags::NOSIGNAL)?));
        }
        let n_plain = slices.iter().take_while(|slice| slice.is_empty() || !stands_in(slice)).count();
        Pin::new(&mut this.tcp).poll_write_vectored(cx, &slices[..n_plain])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

impl AsyncRead for FileStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::HeaderMap;
    use axum::http::header::CONTENT_LENGTH;
    use axum::routing::get;
    use axum::{Extension, Router};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::net::client::{ClientConfig, client};
    use crate::net::server::{Limits, run};

    const PART: u64 = MAX_PART_LEN as u64;

    fn content() -> Vec<u8> {
        (0..3 * MAX_PART_LEN + 7).map(|n| (n / 3 % 251 + n % 5) as u8).collect()
    }

    fn file() -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content()).unwrap();
        Arc::new(file)
    }

    /// A server that answers with this body, whose length it says if it is given.
    async fn serve<F>(len: Option<usize>, body: F) -> (SocketAddr, AbortOnDropHandle<()>)
    where
        F: Fn(FileParts) -> Vec<Bytes> + Clone + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = move |Extension(parts): Extension<FileParts>| async move {
            let len = len.map(|len| (CONTENT_LENGTH, len.to_string().parse().unwrap()));
            let body = futures::stream::iter(body(parts).into_iter().map(Ok::<_, io::Error>));
            (HeaderMap::from_iter(len), Body::from_stream(body))
        };
        let router = Router::new().route("/", get(answer));
        let server = tokio::spawn(run(listener, router, Limits::default(), CancellationToken::new()));
        (address, AbortOnDropHandle::new(server))
    }

    /// All that is answered on a new connection, with its head.
    async fn raw(address: SocketAddr) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // A reset counts as an end: the server closed on us.
        let _ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
        answer
    }

    fn part(file: &Arc<File>, bytes: Range<u64>) -> FilePart {
        FilePart { file: file.clone(), bytes, on_unread: None }
    }

    #[tokio::test]
    async fn parts_go_out_in_their_place_again_and_again() {
        let file = file();
        let body = move |parts: FileParts| {
            let plain = |text: &'static str| Bytes::from_static(text.as_bytes());
            let part = |bytes| parts.push(part(&file, bytes));
            vec![
                part(0..PART),
                plain("a"),
                part(5..6),
                part(7..PART),
                plain("b"),
                plain("c"),
                part(2 * PART + 7..3 * PART + 7),
            ]
        };
        let all = content();
        let expected = [
            &all[..MAX_PART_LEN],
            b"a",
            &all[5..6],
            &all[7..MAX_PART_LEN],
            b"bc",
            &all[2 * MAX_PART_LEN + 7..3 * MAX_PART_LEN + 7],
        ];
        let expected = expected.concat();
        // With its length said, and in the chunks of HTTP, where every frame is between bytes of hyper's own.
        for len in [Some(expected.len()), None] {
            let (address, _server) = serve(len, body.clone()).await;
            let client = client(&ClientConfig::default()).unwrap();
            for _ in 0..2 {
                let answer = client.get(format!("http://{address}/")).send().await.unwrap();
                assert!(answer.bytes().await.unwrap() == expected);
            }
        }
    }

    #[tokio::test]
    async fn what_stands_in_never_goes_out() {
        let file = file();
        let (address, _server) = serve(Some(9), move |parts| vec![parts.push(part(&file, 0..10)).slice(1..)]).await;
        let answer = raw(address).await;
        assert!(answer.ends_with(b"\r\n\r\n") || answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_told_of_and_ends_the_connection() {
        let (file, n_told) = (file(), Arc::new(AtomicUsize::new(0)));
        let told = n_told.clone();
        let (address, _server) = serve(Some(20), move |parts| {
            let (told, start) = (told.clone(), 3 * PART - 3);
            let on_unread: OnUnread = Arc::new(move |error| {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                told.fetch_add(1, Ordering::Relaxed);
            });
            vec![parts.push(FilePart { on_unread: Some(on_unread), ..part(&file, start..start + 20) })]
        })
        .await;
        let answer = raw(address).await;
        assert!(answer.ends_with(&content()[3 * MAX_PART_LEN - 3..]));
        assert_eq!(n_told.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_hangs_up_does_not_put_the_file_in_doubt() {
        let of_file = [Errno::IO, Errno::STALE].map(io::Error::from);
        let of_connection =
            [Errno::AGAIN, Errno::PIPE, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::NOBUFS, Errno::NOMEM];
        assert!(of_file.iter().all(is_of_file) && is_of_file(&io::ErrorKind::UnexpectedEof.into()));
        assert!(!of_connection.map(io::Error::from).iter().any(is_of_file));
    }
}
