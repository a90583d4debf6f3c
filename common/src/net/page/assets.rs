//! The files that pages load: compiled in, with a tag made from their bytes.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::net::problem::not_found;

struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

static ASSETS: [Asset; 3] = [
    Asset { name: "potluck.css", kind: "text/css; charset=utf-8", text: include_str!("assets/potluck.css") },
    Asset { name: "potluck.js", kind: "text/javascript; charset=utf-8", text: include_str!("assets/potluck.js") },
    Asset { name: "icon.svg", kind: "image/svg+xml", text: include_str!("assets/icon.svg") },
];

static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |asset: &Asset| format!("\"{}\"", &blake3::hash(asset.text.as_bytes()).to_hex()[..32]);
    ASSETS.iter().map(tag).collect()
});

/// `GET /assets/{name}`. A browser keeps it and asks whether it is still the same, so a new version is seen at once.
pub fn asset(name: &str, headers: &HeaderMap) -> Response {
    let Some((asset, tag)) = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.name == name) else {
        return not_found("The pages load nothing of that name.").into_response();
    };
    let common = [
        (header::ETAG, HeaderValue::from_str(tag).expect("hex digits are a header value")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    if given.flat_map(|value| value.split(',')).any(|given| given.trim().trim_start_matches("W/") == tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, asset.kind)], asset.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_asked_again() {
        let none = HeaderMap::new();
        for name in ["potluck.css", "potluck.js", "icon.svg"] {
            let first = asset(name, &none);
            assert_eq!(first.status(), StatusCode::OK, "{name}");
            let mut again = HeaderMap::new();
            again.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
            assert_eq!(asset(name, &again).status(), StatusCode::NOT_MODIFIED, "{name}");
        }
        for name in ["", "../mod.rs", "potluck.css.map"] {
            assert_eq!(asset(name, &none).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }
}
