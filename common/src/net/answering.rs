//! Being found: a tracker answers who asks for it by broadcast, and is listed in DNS-SD.
//!
//! Invariant: nothing is sent that was not asked for, an answer is no longer than its question and goes to the asker alone,
//! and only to somebody near; at most `MAX_QUESTIONS` a second are looked at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dns_sd::DnsSd;
use super::lan::{Scope, hearing_socket, is_near, sending_socket};
use crate::discovery::{PACKET_LEN, Packet, SwarmName, TrackerId};

/// Questions a second: a room full of machines that start at once gets its answers within one.
const MAX_QUESTIONS: u32 = 200;
/// Between two tries to take the port.
const RETRY: Duration = Duration::from_secs(10);

/// A tracker that wants to be found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Of which swarm.
    pub swarm: SwarmName,
    /// Which it is.
    pub tracker_id: TrackerId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The UDP port where questions come in.
    pub port: u16,
}

/// Answers until `shutdown`. `dns_sd` is where it is listed too, where that works.
pub async fn answer(found: Found, dns_sd: Option<DnsSd>, shutdown: CancellationToken) {
    let scope = Scope::of(found.listen.ip());
    let listed = dns_sd.filter(|_| scope == Scope::Network);
    let listed = listed.and_then(|dns_sd| dns_sd.list(&found.swarm, found.tracker_id, found.listen));
    let hearing = async {
        loop {
            match open(&found, scope) {
                Ok((hearing, sending)) => hear(&found, scope, &hearing, &sending).await,
                Err(error) => tracing::debug!(%error, port = found.port, "cannot hear who asks for trackers"),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    shutdown.run_until_cancelled(hearing).await;
    if let Some(listed) = listed {
        listed.end().await;
    }
}

fn open(found: &Found, scope: Scope) -> std::io::Result<(UdpSocket, UdpSocket)> {
    // The asker takes the answer's source for the tracker's address.
    let from = match found.listen.ip().to_canonical() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    Ok((hearing_socket(scope, found.port)?, sending_socket(from)?))
}

/// Returns when the socket fails.
async fn hear(found: &Found, scope: Scope, hearing: &UdpSocket, sending: &UdpSocket) {
    // Longer datagrams are cut, and so differ in length from any packet.
    let mut bytes = [0; PACKET_LEN + 1];
    let (mut since, mut n_asked) = (Instant::now(), 0);
    loop {
        let (len, from) = match hearing.recv_from(&mut bytes).await {
            Ok(received) => received,
            Err(error) => return tracing::debug!(%error, "cannot hear who asks for trackers"),
        };
        let Some(Packet::Ask { nonce, swarm }) = Packet::parse(&bytes[..len]) else { continue };
        if since.elapsed() >= Duration::from_secs(1) {
            (since, n_asked) = (Instant::now(), 0);
        }
        n_asked += 1;
        let asks_us = n_asked <= MAX_QUESTIONS
            && swarm == found.swarm
            && from.port() >= 1024
            && (scope == Scope::Network || from.ip().is_loopback())
            && is_near(from.ip());
        if asks_us {
            let here = Packet::Here { nonce, swarm, port: found.listen.port() };
            if let Err(error) = sending.send_to(&here.encode(), from).await {
                tracing::debug!(%error, %from, "cannot answer who asks for trackers");
            }
        }
    }
}
