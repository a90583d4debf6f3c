//! Asking an origin: what it has, and bytes of it.
//!
//! Unlike peers and trackers an origin was named by the user, so no address is refused, redirects are followed as long as they
//! stay `http(s)` and do not leave `https`, a proxy of the environment is used (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), and TLS trusts
//! the certificates of this machine, or where it has none, those that browsers trust.
//!
//! Invariant: a body that is returned is that of one and the same state of the file, as far as the origin tells (RFC 9110,
//! `If-Range`). Whether its bytes are right is for the caller to prove.

use std::ops::Range;
use std::time::Duration;

use potluck_common::net::client::trusting;
use reqwest::header::{self, HeaderMap};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};

use super::peer_client::{FetchError, check, ranged};
use super::tracker_client::root_cause;
use crate::origin::url::OriginUrl;

/// As many as browsers and curl follow or fewer.
const MAX_REDIRECTS: usize = 10;

/// Why an origin gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Worth another try: no connection, silence, a server that is busy or ill.
    #[error("{0}")]
    Unreachable(String),
    /// It is not who it should be, as far as certificates tell.
    #[error("its certificate is not trusted ({0})")]
    Untrusted(String),
    /// There is no such file.
    #[error("it has no such file ({0})")]
    NotFound(StatusCode),
    /// It wants to know who asks, or does not let us.
    #[error("it does not let us ({0})")]
    Forbidden(StatusCode),
    /// Something that is no answer to the question.
    #[error("it answers {0}")]
    Wrong(String),
    /// It went on elsewhere where we do not follow.
    #[error("{0}")]
    Redirect(&'static str),
}

/// What tells one state of a file from another: a strong `ETag`, or else `Last-Modified`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator(String);

/// What an origin says of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The length in bytes, if it says it.
    pub len: Option<u64>,
    /// Whether it gives ranges.
    pub gives_ranges: bool,
    /// Which state of the file it is.
    pub validator: Option<Validator>,
}

/// An origin that has been asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Origin {
    client: Client,
    /// Its address.
    pub url: OriginUrl,
    /// What it said.
    pub facts: Facts,
}

/// The file from some byte on, to its end.
#[derive(Debug)]
pub struct Rest {
    /// Where it begins: where it was asked for, or at 0.
    pub offset: u64,
    /// What is said of the file now.
    pub facts: Facts,
    /// The bytes.
    pub response: Response,
}

impl Origin {
    /// Asks what there is, without taking it.
    ///
    /// # Errors
    /// See [`OriginError`].
    pub async fn ask(url: &OriginUrl, timeout: Duration) -> Result<Self, OriginError> {
        let client = client(timeout).map_err(|error| OriginError::Unreachable(root_cause(&error)))?;
        // Not HEAD, which many a server refuses or answers otherwise than GET. One byte, and if all comes it is not read.
        let first = get(&client, url).header(header::RANGE, "bytes=0-0");
        let response = judge(first.send().await)?;
        let facts = facts(response.status(), response.headers())?;
        Ok(Self { client, url: url.clone(), facts })
    }

    /// Starts reading a range of the file as it was when we asked what there is.
    ///
    /// # Errors
    /// See [`FetchError`]; `NotHeld` if the file is not what it was.
    pub async fn range(&self, bytes: Range<u64>) -> Result<Response, FetchError> {
        let range = format!("bytes={}-{}", bytes.start, bytes.end - 1);
        let request = self.since(get(&self.client, &self.url).header(header::RANGE, range), &self.facts);
        let response = check(request.send().await)?;
        match response.status() {
            StatusCode::OK if self.facts.gives_ranges => Err(FetchError::NotHeld),
            _ => ranged(response, bytes),
        }
    }

    /// Starts reading the file from `offset` on, if it is still the one of `known`, or else from its beginning.
    ///
    /// # Errors
    /// See [`OriginError`].
    pub async fn rest(&self, offset: u64, known: &Facts) -> Result<Rest, OriginError> {
        // Without a word on its state, nobody could say that the rest belongs to what came before.
        let goes_on = offset > 0 && known.validator.is_some() && known.gives_ranges;
        let mut request = get(&self.client, &self.url);
        if goes_on {
            request = self.since(request.header(header::RANGE, format!("bytes={offset}-")), known);
        }
        let response = match judge(request.send().await) {
            // All of it is here, or it is shorter now.
            Ok(response) if goes_on && response.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                judge(get(&self.client, &self.url).send().await)?
            }
            answer => answer?,
        };
        let facts = facts(response.status(), response.headers())?;
        let start =
            response.headers().get(header::CONTENT_RANGE).and_then(|value| parse_content_range(value.to_str().ok()?));
        match (response.status(), start) {
            (StatusCode::OK, _) => {
                let facts = Facts { gives_ranges: self.facts.gives_ranges, ..facts };
                Ok(Rest { offset: 0, facts, response })
            }
            (StatusCode::PARTIAL_CONTENT, Some((range, _))) if goes_on && range.start == offset => {
                // One that does not heed If-Range gives the rest of another state.
                if facts.validator == known.validator && facts.len == known.len {
                    return Ok(Rest { offset, facts, response });
                }
                drop(response);
                Box::pin(self.rest(0, known)).await
            }
            (status, _) => Err(OriginError::Wrong(format!("another range than asked for ({status})"))),
        }
    }

    fn since(&self, request: RequestBuilder, known: &Facts) -> RequestBuilder {
        match &known.validator {
            Some(Validator(text)) => request.header(header::IF_RANGE, text),
            None => request,
        }
    }
}

fn get(client: &Client, url: &OriginUrl) -> RequestBuilder {
    client.get(url.url().clone()).header(header::ACCEPT_ENCODING, "identity")
}

fn client(timeout: Duration) -> Result<Client, reqwest::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Client::builder()
        .tls_backend_preconfigured(trusting(roots))
        .http1_only()
        .redirect(Policy::custom(follow))
        .referer(false)
        .connect_timeout(timeout)
        .read_timeout(timeout)
        .user_agent(concat!("potluck/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_safe = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    match judge_redirect(attempt.url().scheme(), was_safe, attempt.previous().len()) {
        Ok(()) => attempt.follow(),
        Err(error) => attempt.error(error),
    }
}

/// Whether to follow to a URL of this scheme, having followed to `n_before` URLs, the last of which was `https` or not.
fn judge_redirect(scheme: &str, was_safe: bool, n_before: usize) -> Result<(), OriginError> {
    match scheme {
        _ if n_before > MAX_REDIRECTS => Err(OriginError::Redirect("it redirects in circles")),
        "https" => Ok(()),
        "http" if !was_safe => Ok(()),
        "http" => Err(OriginError::Redirect("it redirects from https to plain http")),
        _ => Err(OriginError::Redirect("it redirects to something that is not http")),
    }
}

/// What an answer means before its body.
fn judge(response: Result<Response, reqwest::Error>) -> Result<Response, OriginError> {
    let response = response.map_err(|error| {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(inner) = cause {
            if let Some(refused) = inner.downcast_ref::<OriginError>() {
                return refused.clone();
            }
            let of_tls = inner.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
            if let Some(rustls::Error::InvalidCertificate(why)) = of_tls {
                return OriginError::Untrusted(why.to_string());
            }
            cause = inner.source();
        }
        match error.is_redirect() {
            // A scheme that the client itself does not know.
            true => OriginError::Redirect("it redirects to something that is not http"),
            false => OriginError::Unreachable(root_cause(&error)),
        }
    })?;
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
        status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => Err(OriginError::NotFound(status)),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED) => {
            Err(OriginError::Forbidden(status))
        }
        status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) => {
            Err(OriginError::Unreachable(format!("it answers {status}")))
        }
        status if status.is_server_error() => Err(OriginError::Unreachable(format!("it answers {status}"))),
        status => Err(OriginError::Wrong(status.to_string())),
    }
}

/// What the headers of an answer say of the file. An empty file has no range, and 416 names its length.
fn facts(status: StatusCode, headers: &HeaderMap) -> Result<Facts, OriginError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let validator = text(header::ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(header::LAST_MODIFIED));
    let validator = validator.map(|text| Validator(text.to_owned()));
    let range = text(header::CONTENT_RANGE);
    let (len, gives_ranges) = match status {
        StatusCode::PARTIAL_CONTENT => (range.and_then(parse_content_range).and_then(|(_, total)| total), true),
        StatusCode::RANGE_NOT_SATISFIABLE => match range {
            Some("bytes */0") => (Some(0), true),
            _ => return Err(OriginError::Wrong(status.to_string())),
        },
        StatusCode::OK => {
            let len = text(header::CONTENT_LENGTH).and_then(|len| len.parse().ok());
            // Whoever asked for all of it is told this way that it could have been a part.
            (len, text(header::ACCEPT_RANGES) == Some("bytes"))
        }
        status => return Err(OriginError::Wrong(status.to_string())),
    };
    if text(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(OriginError::Wrong("compressed bytes, which it was not asked for".into()));
    }
    Ok(Facts { len, gives_ranges, validator })
}

/// The bytes that follow a 206, and the length of the whole if it says it.
fn parse_content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let range = crate::range::parse_content_range(text)?;
    let (_, total) = text.split_once('/')?;
    let total = (total != "*").then(|| total.parse::<u64>());
    let total = total.transpose().ok()?;
    total.is_none_or(|total| range.end <= total).then_some((range, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_headers_say() {
        let check = |status: u16, headers: &[(&'static str, &str)], want: Option<(Option<u64>, bool, Option<&str>)>| {
            let map = headers.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), header::HeaderValue::from_str(value).unwrap())
            });
            let facts = facts(StatusCode::from_u16(status).unwrap(), &map.collect());
            let want = want.map(|(len, gives_ranges, validator)| Facts {
                len,
                gives_ranges,
                validator: validator.map(|text| Validator(text.to_owned())),
            });
            assert_eq!(facts.ok(), want, "{status} {headers:?}");
        };
        check(206, &[("content-range", "bytes 0-0/9"), ("etag", "\"a\"")], Some((Some(9), true, Some("\"a\""))));
        check(206, &[("content-range", "bytes 0-0/*")], Some((None, true, None)));
        check(206, &[("content-range", "bytes 0-9/5")], Some((None, true, None)));
        check(206, &[], Some((None, true, None)));
        check(200, &[("content-length", "9"), ("last-modified", "x")], Some((Some(9), false, Some("x"))));
        check(200, &[("etag", "W/\"a\""), ("last-modified", "x")], Some((None, false, Some("x"))));
        check(200, &[("etag", "W/\"a\""), ("accept-ranges", "bytes")], Some((None, true, None)));
        check(200, &[("content-length", "-1")], Some((None, false, None)));
        check(416, &[("content-range", "bytes */0")], Some((Some(0), true, None)));
        check(416, &[("content-range", "bytes */7")], None);
        check(416, &[], None);
        check(204, &[], None);
        check(200, &[("content-encoding", "gzip")], None);
        check(200, &[("content-encoding", "identity")], Some((None, false, None)));
    }

    #[test]
    fn redirects() {
        let check = |scheme: &str, was_safe, n_before, want: bool| {
            assert_eq!(judge_redirect(scheme, was_safe, n_before).is_ok(), want, "{scheme} {was_safe} {n_before}");
        };
        check("http", false, 1, true);
        check("https", false, 1, true);
        check("https", true, 10, true);
        check("http", true, 1, false);
        check("http", false, 11, false);
        check("file", false, 1, false);
        check("ftp", true, 1, false);
    }
}
