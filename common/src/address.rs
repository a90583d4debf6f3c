//! Which addresses a peer may announce and be dialled at.
//!
//! An announced address is a URL chosen by somebody else, and a tracker hands it to everybody: without
//! a judgement potluck would be a tool for poking at loopback services, cloud metadata, or mail servers. The
//! tracker judges what is announced; the peer judges again what it is about to dial, after name
//! resolution, since a name may resolve to anything.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why an address is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Unspecified, multicast, broadcast or link-local.
    #[error("{0} is not the address of one host on a network")]
    NotAHost(IpAddr),
    /// Loopback, announced to or by somebody who does not talk over loopback.
    #[error("{0} is a loopback address, which means another machine to everybody else")]
    Loopback(IpAddr),
    /// Zero or a privileged port other than 80 and 443.
    #[error("port {0} is kept for other services; use 80, 443 or one above 1023")]
    Port(u16),
}

/// Whether two parties talk within one machine: only then loopback addresses mean the same to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Over loopback.
    SameHost,
    /// Over a network.
    Network,
}

impl Reach {
    /// Judged by the address that the other side talks from (or is dialled at).
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_loopback() { Self::SameHost } else { Self::Network }
    }
}

/// Judges the address that is about to be recorded or dialled.
pub fn judge(address: SocketAddr, reach: Reach) -> Result<(), AddressError> {
    judge_ip(address.ip(), reach)?;
    judge_port(address.port())
}

/// Judges a port alone: all that can be said of a host name before it is resolved.
pub fn judge_port(port: u16) -> Result<(), AddressError> {
    match port {
        80 | 443 | 1024.. => Ok(()),
        other => Err(AddressError::Port(other)),
    }
}

/// Judges an address without its port.
pub fn judge_ip(ip: IpAddr, reach: Reach) -> Result<(), AddressError> {
    let ip = ip.to_canonical();
    let not_a_host = match ip {
        IpAddr::V4(v4) => {
            v4.is_unspecified() || v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local()
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local(),
    };
    if not_a_host {
        return Err(AddressError::NotAHost(ip));
    }
    if ip.is_loopback() && reach == Reach::Network {
        return Err(AddressError::Loopback(ip));
    }
    Ok(())
}

/// Whether the host of a base URL means the peer to whoever asks from `ip`: a peer listed at a loopback address is another
/// machine, or nothing, to everybody elsewhere.
pub fn means_the_same_at(host: &str, ip: IpAddr) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = match host.parse::<IpAddr>() {
        Ok(literal) => Reach::of(literal) == Reach::SameHost,
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    };
    !is_loopback || Reach::of(ip) == Reach::SameHost
}

/// The text is not `ADDR:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an address and a port, such as 0.0.0.0:7701 (every address of this host) or 127.0.0.1:0 (any free port)"
)]
pub struct ParseListenError;

/// What `--listen` takes: the address of an interface and a port.
///
/// # Errors
/// If the text is anything else, a name for instance.
pub fn parse_listen(text: &str) -> Result<SocketAddr, ParseListenError> {
    text.parse().map_err(|_| ParseListenError)
}

/// What `--advertise` takes: a host name or address, with a port or without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Advertise {
    host: String,
    port: Option<u16>,
}

/// The text is not `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST or HOST:PORT (IPv6 addresses in brackets)")]
pub struct ParseAdvertiseError;

impl Advertise {
    /// The port, if one was named.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host as an address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// The host as it stands in a URL.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl FromStr for Advertise {
    type Err = ParseAdvertiseError;

    fn from_str(text: &str) -> Result<Self, ParseAdvertiseError> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| ParseAdvertiseError)?))
            }
            _ => (text, None),
        };
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match (bracketed.unwrap_or(host).parse::<IpAddr>(), bracketed) {
            (Ok(IpAddr::V6(v6)), _) => format!("[{v6}]"),
            (Ok(IpAddr::V4(v4)), None) => v4.to_string(),
            (Err(_), None) if is_host_name(host) => host.to_ascii_lowercase(),
            _ => return Err(ParseAdvertiseError),
        };
        Ok(Self { host, port })
    }
}

fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
        })
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for Advertise {
    type Error = ParseAdvertiseError;

    fn try_from(text: String) -> Result<Self, ParseAdvertiseError> {
        text.parse()
    }
}

impl From<Advertise> for String {
    fn from(advertise: Advertise) -> Self {
        advertise.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T04.
    #[test]
    fn forbidden_addresses() {
        let check = |text: &str, same_host: bool, network: bool| {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(judge(address, Reach::SameHost).is_ok(), same_host, "{text} on one host");
            assert_eq!(judge(address, Reach::Network).is_ok(), network, "{text} over a network");
        };
        check("192.168.1.7:7701", true, true);
        check("10.0.0.1:80", true, true);
        check("[fd00::1]:443", true, true);
        check("127.0.0.1:7701", true, false);
        check("[::1]:7701", true, false);
        check("[::ffff:127.0.0.1]:7701", true, false);
        for bad in [
            "0.0.0.0:7701",
            "[::]:7701",
            "0.1.2.3:7701",
            "169.254.169.254:7701",
            "[fe80::1]:7701",
            "224.0.0.1:7701",
            "[ff02::1]:7701",
            "255.255.255.255:7701",
            "[::ffff:169.254.169.254]:7701",
            "10.0.0.1:0",
            "10.0.0.1:22",
            "10.0.0.1:25",
        ] {
            check(bad, false, false);
        }
    }

    #[test]
    fn loopback_means_something_to_this_machine_only() {
        let check = |host: &str, near: bool, far: bool| {
            assert_eq!(means_the_same_at(host, "127.0.0.1".parse().unwrap()), near, "{host} here");
            assert_eq!(means_the_same_at(host, "10.0.0.9".parse().unwrap()), far, "{host} elsewhere");
        };
        check("10.0.0.7", true, true);
        check("node1", true, true);
        check("[fd00::1]", true, true);
        check("127.0.0.1", true, false);
        check("127.0.0.2", true, false);
        check("[::1]", true, false);
        check("[::ffff:127.0.0.1]", true, false);
        check("localhost", true, false);
        check("a.localhost", true, false);
    }

    #[test]
    fn advertise() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(text.parse::<Advertise>().ok().map(|a| a.to_string()).as_deref(), want, "{text}");
        };
        check("node1", Some("node1"));
        check("Node1:7701", Some("node1:7701"));
        check("10.0.0.1", Some("10.0.0.1"));
        check("10.0.0.1:1", Some("10.0.0.1:1"));
        check("[fd00::1]:9", Some("[fd00::1]:9"));
        check("fd00::1", Some("[fd00::1]"));
        for bad in
            ["", ":1", "a:", "a:b", "a:99999", "a/b", "a@b", "http://a", "[a]:1", "[10.0.0.1]:1", "-a", "a b", "a?b"]
        {
            check(bad, None);
        }
    }
}
