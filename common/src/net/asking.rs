//! Looking for a tracker by broadcast.
//!
//! Invariant: what is given as heard answered a question of ours within the last two, came from somebody near, and has an
//! address that may be dialled. Whether a tracker serves there is for the caller to ask.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::lan::{Scope, broadcast_addresses, is_near, sending_socket};
use crate::address::{Reach, judge};
use crate::discovery::{PACKET_LEN, Packet, SwarmName};

/// One who looks.
#[derive(Debug)]
pub struct Asking {
    socket: UdpSocket,
    swarm: SwarmName,
    scope: Scope,
    port: u16,
    /// Of the last two questions: an answer may come after the next question.
    nonces: [u64; 2],
}

impl Asking {
    /// Looks for trackers of a swarm that hear questions at UDP `port`.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn open(swarm: SwarmName, scope: Scope, port: u16) -> io::Result<Self> {
        let socket = sending_socket(Ipv4Addr::UNSPECIFIED)?;
        Ok(Self { socket, swarm, scope, port, nonces: [0; 2] })
    }

    /// Asks once on every interface.
    pub async fn ask(&mut self) {
        self.nonces = [fastrand::u64(1..), self.nonces[0]];
        let ask = Packet::Ask { nonce: self.nonces[0], swarm: self.swarm.clone() }.encode();
        for address in broadcast_addresses(self.scope, self.port) {
            if let Err(error) = self.socket.send_to(&ask, address).await {
                tracing::debug!(%error, %address, "cannot ask for trackers there");
            }
        }
    }

    /// Where the next answer says that a tracker serves.
    pub async fn heard(&self) -> SocketAddr {
        let mut bytes = [0; PACKET_LEN + 1];
        loop {
            let (len, from) = match self.socket.recv_from(&mut bytes).await {
                Ok(received) => received,
                Err(error) => {
                    // Such as an ICMP refusal of what was sent: the next datagram is another matter.
                    tracing::debug!(%error, "an answer about trackers is lost");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Some(Packet::Here { nonce, swarm, port }) = Packet::parse(&bytes[..len]) else { continue };
            let tracker = SocketAddr::new(from.ip(), port);
            if nonce != 0
                && self.nonces.contains(&nonce)
                && swarm == self.swarm
                && judge(tracker, Reach::of(from.ip())).is_ok()
                && is_near(from.ip())
            {
                return tracker;
            }
        }
    }
}
