//! This machine's places on its networks, looked up anew each time: interfaces come and go.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use if_addrs::{IfAddr, Interface};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// Interfaces that are asked on; a machine with more has virtual ones for each container.
const MAX_INTERFACES: usize = 32;
/// The broadcast address of loopback: programs of this machine find each other without any network.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// How far we look and are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Programs on this machine only.
    Loopback,
    /// The machines of our networks too.
    Network,
}

impl Scope {
    /// Of who listens at an address.
    pub fn of(listen: IpAddr) -> Self {
        if listen.to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

fn interfaces() -> Vec<Interface> {
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot look at the network interfaces");
        Vec::new()
    });
    found.into_iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local()).collect()
}

/// Where a broadcast goes so that everybody near hears it; loopback last.
pub fn broadcast_addresses(scope: Scope, port: u16) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    if scope == Scope::Network {
        addresses = interfaces()
            .into_iter()
            .filter_map(|interface| match interface.addr {
                IfAddr::V4(v4) => v4.broadcast,
                IfAddr::V6(_) => None,
            })
            .take(MAX_INTERFACES)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
    }
    addresses.push(LOOPBACK_BROADCAST);
    addresses.into_iter().map(|ip| SocketAddr::new(ip.into(), port)).collect()
}

/// The address under which machines of our networks reach this one; `None` without a network.
pub fn own_address() -> Option<IpAddr> {
    let found = interfaces();
    let first = |wanted: fn(&IpAddr) -> bool| found.iter().map(Interface::ip).find(wanted);
    first(IpAddr::is_ipv4).or_else(|| first(IpAddr::is_ipv6))
}

/// Whether an address is of this machine or of a network that it is directly on.
pub fn is_near(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback()
        || interfaces().iter().any(|interface| match (&interface.addr, ip) {
            (IfAddr::V4(own), IpAddr::V4(ip)) => {
                let mask = u32::from(own.netmask);
                u32::from(own.ip) & mask == u32::from(ip) & mask
            }
            (IfAddr::V6(own), IpAddr::V6(ip)) => {
                let mask = u128::from(own.netmask);
                u128::from(own.ip) & mask == u128::from(ip) & mask
            }
            _ => false,
        })
}

/// A socket that hears broadcasts to `port` beside other programs that do.
pub(super) fn hearing_socket(scope: Scope, port: u16) -> io::Result<UdpSocket> {
    let ip = match scope {
        // Bound to it, the socket hears nothing that comes from a network.
        Scope::Loopback => LOOPBACK_BROADCAST,
        Scope::Network => Ipv4Addr::UNSPECIFIED,
    };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(ip.into(), port).into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that may send broadcasts, or answers as `from`.
pub(super) fn sending_socket(from: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(from.into(), 0).into())?;
    UdpSocket::from_std(socket.into())
}
