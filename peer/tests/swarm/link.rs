//! A TCP link to a peer or a tracker that a test can cut and heal, and that keeps every byte that goes there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Ends with the test.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    _ends: DropGuard,
}

#[derive(Default)]
struct Inner {
    target: Mutex<Option<SocketAddr>>,
    n_tried: AtomicUsize,
    sent: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
}

impl Link {
    /// That leads nowhere yet: whoever connects is cut off at once.
    pub(crate) async fn cut() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, inner) = (listener.local_addr().unwrap(), Arc::<Inner>::default());
        let (shutdown, state) = (CancellationToken::new(), inner.clone());
        let ending = shutdown.clone();
        tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Some(Ok((near, _))) = ending.run_until_cancelled(listener.accept()).await {
                open.spawn(state.clone().join(near));
            }
        });
        Self { address, inner, _ends: shutdown.drop_guard() }
    }

    /// It is whole: from now on it leads to who serves at this URL.
    pub(crate) fn leads_to(&self, url: &str) {
        let address = url.strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
        *self.inner.target.lock().unwrap() = Some(address);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many times somebody connected while it was cut.
    pub(crate) fn n_tried(&self) -> usize {
        self.inner.n_tried.load(Ordering::Relaxed)
    }

    /// What was sent to the far end, by connection.
    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.inner.sent.lock().unwrap().iter().map(|sent| sent.lock().unwrap().clone()).collect()
    }
}

impl Inner {
    async fn join(self: Arc<Self>, near: TcpStream) {
        let target = *self.target.lock().unwrap();
        let Some(target) = target else {
            self.n_tried.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Ok(far) = TcpStream::connect(target).await else { return };
        let sent = Arc::<Mutex<Vec<u8>>>::default();
        self.sent.lock().unwrap().push(sent.clone());
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
        let there = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n) = from_near.read(&mut buffer).await
                && n > 0
            {
                sent.lock().unwrap().extend_from_slice(&buffer[..n]);
                if to_far.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
        };
        let back = tokio::io::copy(&mut from_far, &mut to_near);
        // Either end may hang up, and the other is told.
        tokio::select! { () = there => {}, _ended = back => {} }
    }
}
