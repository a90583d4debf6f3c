//! The address of an origin, as somebody typed it.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use potluck_common::{ContentId, PeerId, SharePath};
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Longer addresses are no addresses; servers take 8 KiB at most.
const MAX_LEN: usize = 8 << 10;
/// What bids are derived with, so that none is ever the id of a content.
const BID_CONTEXT: &str = "potluck 2026 bid for an origin: name, zero, address";
/// The same for the name of the owner that an origin counts as.
const OWNER_CONTEXT: &str = "potluck 2026 origin as an owner: address";

/// An `http` or `https` URL with a host and without a fragment. What is shown of it leaves out user, password and query, which
/// may be secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OriginUrl(Url);

/// Why text is no address of an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginUrlError {
    /// No URL.
    #[error("this is no URL that begins with http:// or https:// ({0})")]
    NotUrl(String),
    /// Another scheme.
    #[error("an origin is an http:// or https:// URL, not {0}://")]
    OtherScheme(String),
    /// Over 8 KiB.
    #[error("the URL is too long")]
    TooLong,
}

impl OriginUrl {
    /// To be asked.
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// What people call it as an owner: its host, with the port if that is not the usual one.
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The name of its file: the last segment of its path, if that is one to have in a share folder.
    pub fn file_name(&self) -> Option<SharePath> {
        let segment = self.0.path_segments()?.next_back()?;
        let name = percent_decode_str(segment).decode_utf8().ok()?;
        // A slash that was encoded is part of a name that no file system takes.
        (!name.contains('/')).then(|| name.parse().ok()).flatten()
    }

    /// Under what trackers list those who would fetch it as `name`: like a content, though there is none of this id.
    pub fn bid_id(&self, name: &SharePath) -> ContentId {
        let text = [name.as_str().as_bytes(), b"\0", self.0.as_str().as_bytes()].concat();
        ContentId::from_bytes(blake3::derive_key(BID_CONTEXT, &text))
    }

    /// What it is called among owners.
    pub fn peer_id(&self) -> PeerId {
        let key = blake3::derive_key(OWNER_CONTEXT, self.0.as_str().as_bytes());
        let (id, _) = key.split_first_chunk().expect("32 bytes begin with 16");
        PeerId::from_bytes(*id)
    }
}

impl FromStr for OriginUrl {
    type Err = OriginUrlError;

    fn from_str(text: &str) -> Result<Self, OriginUrlError> {
        if text.len() > MAX_LEN {
            return Err(OriginUrlError::TooLong);
        }
        let mut url = Url::parse(text).map_err(|error| OriginUrlError::NotUrl(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OriginUrlError::OtherScheme(url.scheme().to_owned()));
        }
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl TryFrom<String> for OriginUrl {
    type Error = OriginUrlError;

    fn try_from(text: String) -> Result<Self, OriginUrlError> {
        text.parse()
    }
}

impl From<OriginUrl> for String {
    fn from(origin: OriginUrl) -> Self {
        origin.0.into()
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = if self.0.query().is_some() { "?…" } else { "" };
        write!(f, "{}://{}{}{query}", self.0.scheme(), self.host(), self.0.path())
    }
}

impl fmt::Debug for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> OriginUrl {
        text.parse().unwrap()
    }

    #[test]
    fn addresses() {
        let check = |text: &str, want: bool| assert_eq!(text.parse::<OriginUrl>().is_ok(), want, "{text}");
        check("http://h/x", true);
        check("HTTPS://h:8443/a/b?c#d", true);
        check("https://u:p@h/x", true);
        check("h/x", false);
        check("/etc/passwd", false);
        check("file:///etc/passwd", false);
        check("ftp://h/x", false);
        check("http://", false);
        check("", false);
        check(&format!("http://h/{}", "x".repeat(9_000)), false);
        assert!(serde_json::from_str::<OriginUrl>("\"file:///x\"").is_err());
        let sent: OriginUrl =
            serde_json::from_str(&serde_json::to_string(&origin("http://u:p@h/x?y")).unwrap()).unwrap();
        assert_eq!(sent.url().as_str(), "http://u:p@h/x?y");
    }

    /// What is not safe in a share folder is no name, however it is written.
    #[test]
    fn names() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(origin(text).file_name().as_ref().map(SharePath::as_str), want, "{text}");
        };
        check("https://h/a/film.mkv?x=1#y", Some("film.mkv"));
        check("https://h/a%20b%C3%A9", Some("a bé"));
        check("https://h/[x]*.txt", Some("[x]*.txt"));
        check("https://h/a@beef", Some("a@beef"));
        for bad in [
            "https://h",
            "https://h/",
            "https://h/a/",
            "https://h/%2e%2e",
            "https://h/..%2f..%2fpasswd",
            "https://h/a%2Fb",
            "https://h/a%5Cb",
            "https://h/.potluck",
            "https://h/a%00b",
            "https://h/%ff",
            "https://h/C:",
        ] {
            check(bad, None);
        }
        check(&format!("https://h/{}", "x".repeat(256)), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{0} {0:?}", origin("https://me:word@h:81/x?token=12"));
        assert_eq!(shown, "https://h:81/x?… https://h:81/x?…");
        assert_eq!((origin("https://me@h/x").host(), origin("http://h:81").host()), ("h".into(), "h:81".into()));
    }

    #[test]
    fn who_bids_for_the_same() {
        let bid = |url: &str, name: &str| origin(url).bid_id(&name.parse().unwrap());
        assert_eq!(bid("http://h/x#1", "x"), bid("http://H:80/x#2", "x"));
        assert_ne!(bid("http://h/x", "x"), bid("http://h/x", "y"));
        assert_ne!(bid("http://h/x", "x"), bid("http://h/x?y", "x"));
        assert_eq!(origin("http://h/x").peer_id(), origin("http://h:80/x").peer_id());
    }
}
