//! Being found by broadcast, on loopback only and at a port of each test's own.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use potluck_common::discovery::{PACKET_LEN, Packet, SwarmName};
use potluck_common::net::asking::Asking;
use potluck_common::net::lan::Scope;
use potluck_tracker::{CancellationToken, Config, Swarm, Tracker};
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_secs(30);
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn name(text: &str) -> SwarmName {
    text.parse().unwrap()
}

struct Running {
    address: SocketAddr,
    swarm: Swarm,
    _ends: tokio_util::sync::DropGuard,
}

async fn start(swarm: &str, port: u16) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { swarm: name(swarm), found_at: Some(port), ..Config::default() };
    let tracker = Tracker::open(config).await.unwrap();
    let (known, stop) = (tracker.swarm().clone(), CancellationToken::new());
    tokio::spawn(tracker.serve(listener, stop.clone()));
    Running { address, swarm: known, _ends: stop.drop_guard() }
}

async fn look(swarm: &str, port: u16) -> SocketAddr {
    let mut asking = Asking::open(name(swarm), Scope::Loopback, port).unwrap();
    let looking = async {
        loop {
            asking.ask().await;
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(50), asking.heard()).await {
                return heard;
            }
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("no tracker was heard")
}

#[tokio::test]
async fn each_swarm_finds_its_own_tracker() {
    let port = free_port();
    let (kitchen, hall) = (start("kitchen", port).await, start("hall", port).await);
    for _ in 0..3 {
        assert_eq!(look("kitchen", port).await, kitchen.address);
        assert_eq!(look("hall", port).await, hall.address);
    }
    // From now on others are to be found, so it is not.
    hall.swarm.retire();
    let next = start("hall", port).await;
    assert_eq!(look("hall", port).await, next.address);
}

/// H15: what is no question gets no answer, and a question gets one of its own length.
#[tokio::test]
async fn only_questions_are_answered() {
    let port = free_port();
    let tracker = start("kitchen", port).await;
    look("kitchen", port).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.set_broadcast(true).unwrap();
    let to = SocketAddr::new(LOOPBACK_BROADCAST.into(), port);
    let ask = Packet::Ask { nonce: 7, swarm: name("kitchen") }.encode();
    let here = Packet::Here { nonce: 7, swarm: name("kitchen"), port: 7700 }.encode();
    let foreign = Packet::Ask { nonce: 7, swarm: name("hall") }.encode();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut noise = vec![vec![0; 65_507], vec![], ask[..PACKET_LEN - 1].to_vec(), [&ask[..], b"x"].concat()];
    for _ in 0..50 {
        let mut bent = ask;
        bent[rng.usize(..9)] ^= rng.u8(1..);
        noise.push(bent.to_vec());
    }
    for datagram in noise.iter().map(Vec::as_slice).chain([&here[..], &foreign[..]]) {
        // Too long for this network is as good as not answered.
        let _sent = socket.send_to(datagram, to).await;
    }
    let ask = Packet::Ask { nonce: 8, swarm: name("kitchen") }.encode();
    socket.send_to(&ask, to).await.unwrap();
    let mut bytes = [0; 2 * PACKET_LEN];
    let (len, from) = tokio::time::timeout(DEADLINE, socket.recv_from(&mut bytes)).await.unwrap().unwrap();
    let port = tracker.address.port();
    // The first answer that comes at all is the one to the only question.
    assert_eq!(Packet::parse(&bytes[..len]), Some(Packet::Here { nonce: 8, swarm: name("kitchen"), port }));
    assert!(from.ip().is_loopback());
}
