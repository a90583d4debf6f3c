//! Where a peer is told to be found: what it announced, judged.
//!
//! Invariant: an [`Endpoint`] that exists passed the address policy of [`potluck_common::address`] for the network
//! the announce came from; nothing else is ever handed out (THREATS T04).

use std::net::IpAddr;

use potluck_common::address::{Advertise, Reach};
use potluck_common::net::client::{BaseUrlError, parse_base_url};
use serde::{Deserialize, Serialize};

/// Host and port at which a peer serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Why an announced address is not handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The address policy refuses it.
    #[error(transparent)]
    Refused(#[from] BaseUrlError),
    /// `localhost`, announced over a network.
    #[error("{0} is another machine to everybody else")]
    LocalName(String),
}

impl Endpoint {
    /// Judges what a peer announced over a connection from `source`.
    ///
    /// # Errors
    /// Says which rule the address breaks.
    pub fn judge(source: IpAddr, port: u16, advertise: Option<&Advertise>) -> Result<Self, EndpointError> {
        let source = source.to_canonical();
        let reach = Reach::of(source);
        let host = match (advertise, source) {
            (Some(advertise), _) => advertise.host().to_owned(),
            (None, IpAddr::V4(v4)) => v4.to_string(),
            (None, IpAddr::V6(v6)) => format!("[{v6}]"),
        };
        if reach == Reach::Network && (host == "localhost" || host.ends_with(".localhost")) {
            return Err(EndpointError::LocalName(host));
        }
        let endpoint = Self { host, port: advertise.and_then(Advertise::port).unwrap_or(port) };
        // Reads the address as a dialler will: `2130706433` and `0x7f.1` are loopback to a URL.
        parse_base_url(&endpoint.base_url(), reach)?;
        Ok(endpoint)
    }

    /// `http://HOST:PORT`.
    pub fn base_url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// The host as it stands in the URL.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The host as an address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, port: u16, advertise: Option<&str>, want: Option<&str>) {
        let advertise = advertise.map(|text| text.parse().unwrap());
        let endpoint = Endpoint::judge(source.parse().unwrap(), port, advertise.as_ref());
        assert_eq!(endpoint.as_ref().ok().map(Endpoint::base_url).as_deref(), want, "{source} {port} {advertise:?}");
    }

    /// T04.
    #[test]
    fn judged_by_where_it_came_from() {
        check("10.0.0.7", 7701, None, Some("http://10.0.0.7:7701"));
        check("::ffff:10.0.0.7", 7701, None, Some("http://10.0.0.7:7701"));
        check("fd00::1", 7701, None, Some("http://[fd00::1]:7701"));
        check("127.0.0.1", 7701, None, Some("http://127.0.0.1:7701"));
        check("10.0.0.7", 7701, Some("node1"), Some("http://node1:7701"));
        check("10.0.0.7", 7701, Some("node1:8000"), Some("http://node1:8000"));
        check("10.0.0.7", 0, Some("10.0.0.8:8000"), Some("http://10.0.0.8:8000"));
        check("127.0.0.1", 7701, Some("localhost"), Some("http://localhost:7701"));
        check("127.0.0.1", 7701, Some("[::1]"), Some("http://[::1]:7701"));
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "localhost",
            "a.localhost",
            "2130706433",
            "0x7f.1",
            "10.0.0.8:0",
            "10.0.0.8:22",
            "node1:25",
        ] {
            check("10.0.0.7", 7701, Some(bad), None);
        }
        for port in [0, 22, 25] {
            check("10.0.0.7", port, None, None);
        }
    }
}
