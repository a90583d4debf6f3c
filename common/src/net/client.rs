//! The HTTP client: what may be dialled, and how long we wait.
//!
//! Invariant: no redirect is followed, no proxy from the environment is used, and every resolved address is
//! judged at the moment it is dialled (see [`crate::address`]), since a name may resolve to something else the second time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::RootCertStore;

use crate::address::{AddressError, Advertise, Reach, judge, judge_ip, judge_port};

/// Deadlines of a client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// For a connection to be made.
    pub connect_timeout: Duration,
    /// Between two reads of a response.
    pub read_timeout: Duration,
    /// Whether loopback may be dialled by name.
    pub reach: Reach,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(3), read_timeout: Duration::from_secs(10), reach: Reach::Network }
    }
}

/// Idle connections are dropped before the other side's head timeout can cut them.
const POOL_IDLE: Duration = Duration::from_secs(5);

/// Makes a client.
///
/// # Errors
/// If the system's resolver or sockets cannot be set up.
pub fn client(config: &ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
    plain()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .pool_idle_timeout(POOL_IDLE)
        .user_agent(concat!("potluck/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(JudgingResolver { reach: config.reach }))
        .build()
}

/// A builder without proxy, whose clients speak plain HTTP alone: for TLS they trust nobody, and so no certificates of the
/// machine are read, of which there may be none.
pub fn plain() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(trusting(RootCertStore::empty()))
}

/// TLS for a client that trusts these certificates.
pub fn trusting(roots: RootCertStore) -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what both versions of TLS need")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Whether a `User-Agent` is one of ours: who says so gets no more and no less of a content, only fewer headers.
pub fn is_potluck(user_agent: &[u8]) -> bool {
    user_agent.starts_with(b"potluck/")
}

/// Why a URL from somebody else is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Not `http://HOST[:PORT]` and nothing else.
    #[error("not a plain http://HOST:PORT address")]
    NotPlainHttp,
    /// The address is not one to dial.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// Accepts a base URL that somebody else chose; addresses in it are judged here, names when they are resolved.
pub fn parse_base_url(text: &str, reach: Reach) -> Result<Url, BaseUrlError> {
    let url = Url::parse(text).map_err(|_| BaseUrlError::NotPlainHttp)?;
    let plain = url.scheme() == "http"
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host_str().ok_or(BaseUrlError::NotPlainHttp)?;
    let port = url.port_or_known_default().ok_or(BaseUrlError::NotPlainHttp)?;
    let host: Advertise = host.parse().map_err(|_| BaseUrlError::NotPlainHttp)?;
    if !plain {
        return Err(BaseUrlError::NotPlainHttp);
    }
    match host.ip() {
        Some(ip) => judge(SocketAddr::new(ip, port), reach)?,
        None => judge_port(port)?,
    }
    Ok(url)
}

struct JudgingResolver {
    reach: Reach,
}

impl Resolve for JudgingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (good, refused): (Vec<_>, Vec<_>) =
                found.map(|address| (address, judge_ip(address.ip(), reach))).partition(|(_, verdict)| verdict.is_ok());
            if let (true, Some((_, Err(error)))) = (good.is_empty(), refused.first()) {
                return Err((*error).into());
            }
            let addresses: Addrs = Box::new(good.into_iter().map(|(address, _)| address));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let check = |text: &str, reach, want: bool| assert_eq!(parse_base_url(text, reach).is_ok(), want, "{text}");
        check("http://10.0.0.1:7701", Reach::Network, true);
        check("http://10.0.0.1:7701/", Reach::Network, true);
        check("http://node1:7701", Reach::Network, true);
        check("http://[fd00::1]:7701", Reach::Network, true);
        check("http://127.0.0.1:7701", Reach::SameHost, true);
        for bad in [
            "http://127.0.0.1:7701",
            "http://2130706433:7701",
            "http://0x7f.1:7701",
            "http://169.254.169.254:80",
            "https://10.0.0.1:7701",
            "file:///etc/passwd",
            "http://10.0.0.1:22",
            "http://10.0.0.1:7701/x",
            "http://u@10.0.0.1:7701",
            "http://10.0.0.1:7701?x",
            "http://10.0.0.1:7701#x",
            "10.0.0.1:7701",
            "",
            "http://",
            "http://a b",
        ] {
            check(bad, Reach::Network, false);
        }
    }

    /// T05: a name that resolves to loopback is not dialled from the network.
    #[tokio::test]
    async fn names_are_judged_when_resolved() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let network = client(&ClientConfig::default()).unwrap();
        let error = network.get(&url).send().await.unwrap_err();
        let mut text = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            text += &error.to_string();
            cause = error.source();
        }
        assert!(text.contains("loopback"), "{text}");
    }
}
