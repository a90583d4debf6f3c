//! Names of requests: with one, what the asker's log says of a request is found in the log of whoever answered it.
//!
//! A request brings its name in a header, else it gets one; the answer carries it back. What strangers send as a name
//! is taken only if it is short and plain: it goes into logs.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

/// The header that carries it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ones are replaced.
pub const MAX_REQUEST_ID_LEN: usize = 64;

/// Whether that may be the name of a request: 1 to [`MAX_REQUEST_ID_LEN`] letters, digits, dots, dashes and underscores of
/// ASCII.
pub fn is_request_id(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=MAX_REQUEST_ID_LEN).contains(&name.len()) && name.iter().all(is_plain)
}

/// Middleware (`axum::middleware::from_fn`), outside of all others that log: names the request, and the span of whatever
/// is logged while it is answered.
pub async fn follow(request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).filter(|name| is_request_id(name.as_bytes()));
    let name = given.cloned().unwrap_or_else(fresh);
    // Without `debug` in the filter this costs a look at an atomic: nothing is formatted.
    let span = tracing::debug_span!(
        "request",
        request_id = name.to_str().unwrap_or_default(),
        method = %request.method(),
        path = request.uri().path()
    );
    let answer = async {
        let response = next.run(request).await;
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    };
    let mut response = answer.instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, name);
    response
}

fn fresh() -> HeaderValue {
    HeaderValue::try_from(format!("{:016x}", fastrand::u64(..))).expect("hex digits are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn plain_names_come_back_and_others_are_replaced() {
        let router = Router::new().route("/", get(|| async {})).layer(axum::middleware::from_fn(follow));
        let ask = async |name: Option<&[u8]>| {
            let mut request = Request::get("/").body(Body::empty()).unwrap();
            if let Some(name) = name {
                request.headers_mut().insert(REQUEST_ID, HeaderValue::from_bytes(name).unwrap());
            }
            router.clone().oneshot(request).await.unwrap().headers()[REQUEST_ID].as_bytes().to_vec()
        };
        let longest = [b'a'; MAX_REQUEST_ID_LEN];
        for good in [&b"0badcafe-17"[..], b"A.b_c-9", &longest] {
            assert_eq!(ask(Some(good)).await, good);
        }
        let too_long = [b'a'; MAX_REQUEST_ID_LEN + 1];
        for bad in [&b""[..], b"a b", b"a\tb", b"\xff", b"\"", b"a\xc3\xa9", b"${x}", &too_long] {
            let name = ask(Some(bad)).await;
            assert!(name != bad && name.len() == 16 && is_request_id(&name), "{bad:?} became {name:?}");
        }
        let fresh = ask(None).await;
        assert!(is_request_id(&fresh) && fresh != ask(None).await);
    }
}
