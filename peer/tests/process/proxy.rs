//! A TCP proxy in front of an owner: counts what the owner sends, and lets no more through than its rate.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Inner {
    target: Mutex<Option<SocketAddr>>,
    n_bytes: AtomicU64,
    ended: AtomicBool,
}

/// Ends with the test.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

impl Proxy {
    /// Lets `rate` bytes a second through on each connection.
    pub(crate) fn start(rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, inner) = (listener.local_addr().unwrap(), Arc::<Inner>::default());
        let state = inner.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if state.ended.load(Ordering::Relaxed) {
                    return;
                }
                let state = state.clone();
                std::thread::spawn(move || state.serve(near, rate));
            }
        });
        Self { address, inner }
    }

    /// Where the owner is.
    pub(crate) fn leads_to(&self, owner: SocketAddr) {
        *self.inner.target.lock().unwrap() = Some(owner);
    }

    /// Bytes that the owner sent, heads of responses included.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.inner.n_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    fn serve(&self, near: TcpStream, rate: u64) {
        let target = *self.target.lock().unwrap();
        let Some(Ok(far)) = target.map(TcpStream::connect) else { return };
        let (mut from_near, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let asking = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_near, &mut to_far);
            let _ = to_far.shutdown(Shutdown::Write);
        });
        self.count(far, &near, rate);
        let _ = near.shutdown(Shutdown::Both);
        let _ = asking.join();
    }

    fn count(&self, mut far: TcpStream, mut near: &TcpStream, rate: u64) {
        let mut buffer = vec![0; 32 << 10];
        let (started, mut n_sent) = (Instant::now(), 0);
        while let Ok(n) = far.read(&mut buffer)
            && n > 0
        {
            self.n_bytes.fetch_add(n as u64, Ordering::Relaxed);
            if near.write_all(&buffer[..n]).is_err() {
                break;
            }
            n_sent += n as u64;
            let due = Duration::from_secs_f64(n_sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed())); // The rate is the test's input.
        }
        let _ = far.shutdown(Shutdown::Both);
    }
}
