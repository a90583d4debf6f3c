//! What answers with bytes say besides, to clients that are no peers: where else the bytes are (RFC 6249), what they hash to
//! (RFC 9530), and what to call them. [`exports`](super::exports) say all that in a file.
//!
//! A layer around the routes that give bytes: whatever they answer for a content gets its headers here. Peers, which know
//! owners and hashes from elsewhere, are told nothing and wait for nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use potluck_common::net::client::is_potluck;
use potluck_common::protocol::Problem;
use potluck_common::{ContentId, SharePath, percent};
use serde::Deserialize;

use super::digests::Digests;
use super::mirrors::Mirrors;
use crate::share::library::Library;
use crate::share::sha256::Sums;

/// Other owners named in the headers of one answer: as many as a client opens connections, and little to read.
const MAX_LINKS: usize = 8;
/// How long an answer waits for a SHA-256 that the client said it wants.
const DIGEST_PATIENCE: Duration = Duration::from_secs(2);
/// Contents longer than this are not waited for: they would take longer than that.
const MAX_AWAITED_LEN: u64 = 256 << 20;
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const DIGEST: HeaderName = HeaderName::from_static("digest");
/// What clients say who want a digest: RFC 9530, and RFC 3230 before it.
const WANT_DIGEST: [&str; 2] = ["want-repr-digest", "want-digest"];

/// What the layer works with.
#[derive(Clone)]
pub struct People {
    /// Who else has it.
    pub mirrors: Mirrors,
    /// What it hashes to.
    pub digests: Digests,
    /// What we share.
    pub library: Arc<Library>,
}

/// What is read of a request before it is answered.
struct Asked {
    /// The rest of the address, decoded.
    path: String,
    uri: Uri,
    headers: HeaderMap,
    from: Option<IpAddr>,
}

/// The layer around routes that give bytes.
pub async fn dress(State(people): State<People>, mut request: Request, next: Next) -> Response {
    if request.headers().get(header::USER_AGENT).is_some_and(|agent| is_potluck(agent.as_bytes())) {
        return next.run(request).await;
    }
    let path = request.extract_parts::<Path<String>>().await.map(|Path(path)| path).unwrap_or_default();
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|from| from.0.ip().to_canonical());
    let asked = Asked { path, uri: request.uri().clone(), headers: request.headers().clone(), from };
    let mut response = next.run(request).await;
    if response.status() == StatusCode::NOT_FOUND
        && asked.uri.path().starts_with("/f/")
        && let Some(export) = people.export(&asked.path, &asked.headers, asked.from).await
    {
        return export.unwrap_or_else(Problem::into_response);
    }
    if let Some(id) = content_id_of(&response) {
        people.add_headers(id, &asked, response.headers_mut()).await;
    }
    response
}

/// Answers that are about a content have its id as their tag.
fn content_id_of(response: &Response) -> Option<ContentId> {
    let tag = response.headers().get(header::ETAG)?.to_str().ok()?;
    tag.strip_prefix("\"b3:")?.strip_suffix('"')?.parse().ok()
}

/// A download with this name (RFC 6266, RFC 8187).
pub fn disposition(name: &str) -> HeaderValue {
    let value = format!("attachment; filename*=UTF-8''{}", percent::part(name));
    HeaderValue::try_from(value).expect("what is percent-encoded is a header value")
}

#[derive(Deserialize)]
struct NameQuery {
    name: Option<SharePath>,
}

/// What the client wants the download to be called: one component.
pub(super) fn wanted_name(uri: &Uri) -> Option<SharePath> {
    let name = Query::<NameQuery>::try_from_uri(uri).ok()?.0.name?;
    name.parent().is_none().then_some(name)
}

impl People {
    async fn add_headers(&self, id: ContentId, asked: &Asked, headers: &mut HeaderMap) {
        let (urls, sums) = tokio::join!(self.urls(id, asked.from), self.sums(id, asked));
        // No two owners are better than one another; clients that want one only take the first.
        for (url, pri) in urls.iter().take(MAX_LINKS).zip(1..) {
            if let Ok(link) = HeaderValue::try_from(format!("<{url}>; rel=duplicate; pri={pri}")) {
                headers.append(header::LINK, link);
            }
        }
        if let Some(sums) = sums {
            let sum = BASE64_STANDARD.encode(sums.whole);
            let value = |text| HeaderValue::try_from(text).expect("base64 is a header value");
            headers.insert(REPR_DIGEST, value(format!("sha-256=:{sum}:")));
            headers.insert(DIGEST, value(format!("SHA-256={sum}")));
        }
        if let Some(name) = wanted_name(&asked.uri) {
            headers.insert(header::CONTENT_DISPOSITION, disposition(name.as_str()));
        }
    }

    pub(super) async fn urls(&self, id: ContentId, from: Option<IpAddr>) -> Vec<String> {
        match from {
            Some(from) => self.mirrors.urls(id, from).await,
            None => Vec::new(),
        }
    }

    async fn sums(&self, id: ContentId, asked: &Asked) -> Option<Sums> {
        let wants = WANT_DIGEST
            .iter()
            .flat_map(|name| asked.headers.get_all(*name))
            .any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("sha-256")));
        let is_short = || self.library.find(id).first().is_some_and(|(_, file)| file.identity.len <= MAX_AWAITED_LEN);
        // The first answer of a download decides; later parts of it come with a range.
        if wants && !asked.headers.contains_key(header::RANGE) && is_short() {
            return self.digests.wait(id, DIGEST_PATIENCE).await;
        }
        self.digests.ask(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_names() {
        let check = |uri: &str, want: Option<&str>| {
            let name = wanted_name(&uri.parse().unwrap());
            assert_eq!(name.as_ref().map(SharePath::as_str), want, "{uri}");
        };
        check("/v1/content/x?name=a%20b.txt", Some("a b.txt"));
        check("/v1/content/x?name=br%C3%BBl%C3%A9e", Some("brûlée"));
        for bad in ["", "?", "?name=", "?name=..", "?name=a%2Fb", "?name=%0D%0Ax", "?name=a&name=b"] {
            check(&format!("/v1/content/x{bad}"), None);
        }
    }
}
