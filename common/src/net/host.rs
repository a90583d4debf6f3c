//! Which `Host` a request may name.
//!
//! A web page can point its own host name at any address, this machine's included, and then read what it finds
//! there (DNS rebinding, CVE-2018-5702). Such a request carries the page's host name; so only names that no page
//! can own pass: address literals, names of one label, `.local`, and names we were configured with.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::problem;

/// Names that pass besides those that always do.
#[derive(Debug, Clone, Default)]
pub struct HostPolicy {
    names: Arc<[String]>,
}

impl HostPolicy {
    /// With the names (without port, any letter case) that this host is known by.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect() }
    }

    /// Whether the value of a `Host` header may be served.
    pub fn allows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        literal.parse::<IpAddr>().is_ok()
            || !name.contains('.')
            || name.ends_with(".local")
            || self.names.contains(&name)
    }
}

/// Middleware (`axum::middleware::from_fn_with_state`): 421 for a host that may not be named.
pub async fn guard(State(policy): State<HostPolicy>, request: Request, next: Next) -> Response {
    let from_header = request.headers().get(header::HOST).map(|value| value.to_str().unwrap_or("?.?").to_owned());
    let host = request.uri().authority().map(ToString::to_string).or(from_header);
    match host {
        Some(host) if !policy.allows(&host) => problem(
            StatusCode::MISDIRECTED_REQUEST,
            "foreign-host",
            "This server is not known by that host name",
            "Ask by address, by a name without dots, or by a name the server was started with.",
        )
        .into_response(),
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H04.
    #[test]
    fn hosts() {
        let policy = HostPolicy::new(["Share.Example.org".to_owned()]);
        let check = |host: &str, want: bool| assert_eq!(policy.allows(host), want, "{host}");
        for host in [
            "127.0.0.1",
            "127.0.0.1:7700",
            "[::1]:7700",
            "[fd00::1]",
            "node1",
            "node1:7701",
            "localhost:1",
            "ann.local",
            "ANN.LOCAL:80",
            "share.example.org",
            "share.example.org:7700",
            "node1.",
        ] {
            check(host, true);
        }
        for host in
            ["evil.example", "evil.example:7700", "127.0.0.1.evil.example", "x.local.evil.example", "?.?", "a.b."]
        {
            check(host, false);
        }
    }
}
