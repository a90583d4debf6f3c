//! The pages of tracker and peer: what they have in common.
//!
//! HTML is made on the server and complete without scripts; `assets/potluck.js` only keeps it fresh. Everything that a page
//! loads comes from the server that made it.
//!
//! Invariant: text from elsewhere gets into a page through `maud`, which escapes it, and names besides through [`name`]; a
//! page has neither inline scripts nor inline styles, and its policy ([`POLICY`]) forbids them. No page has a form that does
//! anything but ask.

mod assets;
mod chunk_map;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, Render, html};

pub use assets::asset;
pub use chunk_map::chunk_map;

/// The `Content-Security-Policy` of every page: its own server's files and nothing else, in nobody's frame.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What surrounds the body of a page.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The title, for tabs and history.
    pub title: &'a str,
    /// What stands beside the name of the program: the swarm, or the peer.
    pub place: &'a str,
    /// The stream of events that says when to ask again, if there is one.
    pub events: Option<&'a str>,
    /// How often the page is asked for again, in milliseconds.
    pub refresh_ms: u32,
}

impl Page<'_> {
    /// The whole page as an answer.
    pub fn respond(&self, status: StatusCode, body: &Markup) -> Response {
        let markup = self.markup(body);
        let headers: [(HeaderName, &'static str); 4] = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        (status, headers, markup.into_string()).into_response()
    }

    fn markup(&self, body: &Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (name(self.title)) " · potluck" }
                    link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/assets/potluck.css";
                    script src="/assets/potluck.js" defer {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href="/" {
                            img src="/assets/icon.svg" alt="" width="28" height="28";
                            span { "potluck" }
                        }
                        span.place { (name(self.place)) }
                        p.pulse #pulse role="status" hidden {}
                    }
                    main #main data-events=[self.events] data-refresh=(self.refresh_ms) tabindex="-1" { (body) }
                    footer.foot { "For programs: " a href="/docs" { "HTTP API" } }
                }
            }
        }
    }
}

/// Somebody's text as it is, but for characters that hide or turn what follows: those are shown by their numbers.
pub fn name(text: &str) -> impl Render + '_ {
    Name(text)
}

struct Name<'a>(&'a str);

impl Render for Name<'_> {
    fn render(&self) -> Markup {
        let hides = |c: char| {
            c.is_control()
                || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        };
        let shown = |c: char| if hides(c) { c.escape_unicode().collect::<String>() } else { c.to_string() };
        if self.0.contains(hides) { self.0.chars().map(shown).collect::<String>().render() } else { self.0.render() }
    }
}

/// Whether the client would rather have a page than JSON: a browser that was sent to an address.
pub fn wants_html(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value: &HeaderValue| {
        value.to_str().is_ok_and(|value| value.split(',').any(|kind| kind.trim().starts_with("text/html")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P24: what a name can do to a page.
    #[test]
    fn names() {
        let check = |text: &str, want: &str| assert_eq!(html! { (name(text)) }.into_string(), want);
        check("<script>alert(\"1\")</script>", "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;");
        check("exe.\u{202e}gpj", "exe.\\u{202e}gpj");
        check("a\u{200b}<b>", "a\\u{200b}&lt;b&gt;");
        check("1\u{61c}2\u{fffa}", "1\\u{61c}2\\u{fffa}");
        check("crème & 日本", "crème &amp; 日本");
        let attribute = html! { a title=("\" onclick=\"x") { (name("\" onclick=\"x")) } };
        assert!(!attribute.into_string().contains("onclick=\"x"));
    }
}
