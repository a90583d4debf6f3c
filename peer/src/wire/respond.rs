//! From a request's headers to the head of an answer with bytes: ranges, tags, and what to say when there is no slot.

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::response::Builder;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use potluck_common::net::problem::problem;
use potluck_common::protocol::Problem;
use potluck_common::{ChunkIndex, ContentId};
use std::ops::Range;

use super::body::FileSlices;
use super::serve::COMING_HEADER;
use crate::range::{Wanted, parse_range};

/// What a request for bytes comes to.
pub enum Negotiated {
    /// The answer has no bytes of the content: not modified, or no such range.
    Over(Response),
    /// These bytes, with this head.
    Send(Range<u64>, Builder),
}

/// Reads the request's headers for a content of `len` bytes.
pub fn negotiate(id: ContentId, len: u64, headers: &HeaderMap) -> Negotiated {
    let etag = format!("\"b3:{id}\"");
    let builder = Response::builder()
        .header(header::ETAG, &etag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|value| matches_etag(value, &etag)) {
        return Negotiated::Over(body(builder.status(StatusCode::NOT_MODIFIED), Body::empty()));
    }
    let wanted = match headers.get(header::IF_RANGE).map(HeaderValue::as_bytes) {
        Some(value) if value != etag.as_bytes() => Wanted::Whole,
        _ => {
            let ranges = headers.get_all(header::RANGE).iter().map(|value| value.to_str().unwrap_or_default());
            parse_range(ranges, len)
        }
    };
    let (bytes, builder) = match wanted {
        Wanted::Whole => (0..len, builder.status(StatusCode::OK)),
        Wanted::Bytes(bytes) => {
            let content_range = format!("bytes {}-{}/{len}", bytes.start, bytes.end - 1);
            (bytes, builder.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range))
        }
        Wanted::Unsatisfiable => return Negotiated::Over(no_such_range(len)),
    };
    let n_bytes = bytes.end - bytes.start;
    Negotiated::Send(bytes, builder.header(header::CONTENT_LENGTH, n_bytes))
}

/// The answer with bytes, or without for `HEAD`.
pub fn send(builder: Builder, method: &Method, slices: FileSlices) -> Response {
    if *method == Method::HEAD || slices.bytes.is_empty() {
        return body(builder, Body::empty());
    }
    body(builder, Body::from_stream(slices.into_stream()))
}

fn body(builder: Builder, body: Body) -> Response {
    builder.body(body).expect("our own header values are valid")
}

fn no_such_range(len: u64) -> Response {
    let title = "The content does not have those bytes";
    let problem = problem(StatusCode::RANGE_NOT_SATISFIABLE, "no-such-range", title, format!("It has {len} bytes."));
    let mut response = problem.into_response();
    let content_range = HeaderValue::try_from(format!("bytes */{len}")).expect("digits are a header value");
    response.headers_mut().insert(header::CONTENT_RANGE, content_range);
    response
}

/// The request was for chunks of which no copy is known, and these are on their way to somebody.
pub fn coming(chunks: &[ChunkIndex]) -> Response {
    let numbers: Vec<String> = chunks.iter().map(|chunk| chunk.get().to_string()).collect();
    let mut response = problem(
        StatusCode::PRECONDITION_FAILED,
        "not-fresh",
        "A copy of that is on its way to somebody",
        "Ask for other chunks first, or for these without potluck-fresh.",
    )
    .into_response();
    let numbers = HeaderValue::try_from(numbers.join(",")).expect("digits and commas are a header value");
    response.headers_mut().insert(COMING_HEADER, numbers);
    response
}

/// What stands behind the question mark is nothing that this route takes.
pub fn bad_query(detail: impl Into<String>) -> Problem {
    problem(StatusCode::BAD_REQUEST, "bad-query", "The query cannot be read", detail)
}

/// All slots are taken.
pub fn choked(retry_after_s: u64) -> Response {
    busy("no-upload-slot", "All upload slots are taken", retry_after_s)
}

/// There is no place for more.
pub fn busy(slug: &str, title: &str, retry_after_s: u64) -> Response {
    let detail = "Ask again after the time in Retry-After, or ask another peer.";
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, slug, title, detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    response
}

fn matches_etag(value: &HeaderValue, etag: &str) -> bool {
    value.to_str().is_ok_and(|value| {
        value.split(',').any(|candidate| {
            let candidate = candidate.trim();
            candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
        })
    })
}
