//! Metalink 4 (RFC 5854): one file, where it is, and what it must hash to. Pure.

use crate::share::sha256::{Sums, piece_len};

/// Their media type.
pub const CONTENT_TYPE: &str = "application/metalink4+xml";
/// Their ending.
pub const SUFFIX: &str = ".meta4";

/// The text of a Metalink; the first of the URLs is preferred, the others are all alike.
pub fn metalink(name: &str, len: u64, sums: &Sums, urls: &[String]) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">\n\
         \x20 <generator>potluck/{}</generator>\n\
         \x20 <file name=\"{}\">\n\
         \x20   <size>{len}</size>\n\
         \x20   <hash type=\"sha-256\">{}</hash>\n",
        env!("CARGO_PKG_VERSION"),
        escape(name),
        hex::encode(sums.whole),
    );
    if !sums.pieces.is_empty() {
        text += &format!("    <pieces length=\"{}\" type=\"sha-256\">\n", piece_len(len));
        for piece in &sums.pieces {
            text += &format!("      <hash>{}</hash>\n", hex::encode(piece));
        }
        text += "    </pieces>\n";
    }
    for (n, url) in urls.iter().enumerate() {
        text += &format!("    <url priority=\"{}\">{}</url>\n", if n == 0 { 1 } else { 2 }, escape(url));
    }
    text + "  </file>\n</metalink>\n"
}

/// Text as it stands in XML 1.0, between tags and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // XML has no way to write these.
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_wire() {
        let sums = Sums { whole: [1; 32], pieces: vec![[2; 32], [3; 32]] };
        let urls = ["http://10.0.0.1:7701/a?b&c", "http://10.0.0.2:7701/d"].map(str::to_owned);
        insta::assert_snapshot!(metalink("a <b> & \"c\u{ffff}\" é.bin", (1 << 20) + 1, &sums, &urls));
    }
}
