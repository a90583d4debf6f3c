//! `/files/{path}`: one file. Each content under the name, how to get it, and who holds which part of it.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};
use potluck_common::net::page::{chunk_map, name};
use potluck_common::protocol::{ContentOwners, FileInfo, Owner, Parts, WHOLE};
use potluck_common::units::{count, number, percent as percents, size};
use potluck_common::{Geometry, PeerId, percent};

use super::{command, empty, frame, own_url, path_name, respond};
use crate::http::App;

/// Complete owners with a bar of their own; of more than that only the number is told.
const MAX_COMPLETE: usize = 8;
/// Versions shown of one name.
const MAX_VERSIONS: usize = 10;
/// Which owners of a large swarm are shown: the same at each look, so that the page stays calm.
const SEED: u64 = 0;

pub(super) async fn file(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let asked = path.map(|Path(path)| path).unwrap_or_default();
    let found = app.swarm().ask(|registry| {
        let file = registry.file(&asked, SEED)?;
        let owners = |content: &ContentOwners| content.owners.iter().map(|owner| owner.peer_id).collect::<Vec<_>>();
        let parts = file.contents.iter().take(MAX_VERSIONS).map(|content| {
            let parts = |peer: PeerId| registry.parts(peer, content.content_id).map(|parts| (peer, parts));
            owners(content).into_iter().filter_map(parts).collect()
        });
        let parts = parts.collect();
        Some((file, parts))
    });
    match found {
        Some((file, parts)) => {
            let shown = Shown { own_url: own_url(&headers), file, parts };
            respond(&frame(&app, shown.file.path.file_name()), &shown.body())
        }
        None => {
            let what =
                html! { p { a href="/#files" { "See what is shared" } " or " a href="/" { "look around" } "." } };
            let body = html! {
                h1 { "Not here" }
                (empty("Nobody who is here shares a file of this name.", &what))
            };
            frame(&app, "Not here").respond(StatusCode::NOT_FOUND, &body)
        }
    }
}

struct Shown {
    own_url: String,
    file: FileInfo,
    /// For each version, the parts of those who are fetching it.
    parts: Vec<Vec<(PeerId, Parts)>>,
}

impl Shown {
    fn body(&self) -> Markup {
        let path = self.file.path.as_str();
        let n_versions = self.file.contents.len();
        html! {
            nav.crumbs aria-label="Where this is" { a href="/" { "Swarm" } " / " a href="/#files" { "Files" } }
            h1.path { (path_name(path)) }
            @if n_versions > 1 {
                p.note { (number(n_versions as u64)) " versions stand under this name. Each download names the one that is meant." }
            }
            @for (content, parts) in self.file.contents.iter().zip(&self.parts) {
                section.card data-key=(content.content_id) aria-label=(format!("Content {}", content.content_id)) {
                    (self.content(content, parts, n_versions > 1))
                }
            }
            @if n_versions > MAX_VERSIONS {
                p.note { "… and " (number((n_versions - MAX_VERSIONS) as u64)) " more." }
            }
        }
    }

    fn content(&self, content: &ContentOwners, parts: &[(PeerId, Parts)], is_ambiguous: bool) -> Markup {
        let geometry = Geometry::new(content.len).ok();
        let (n_chunks, chunk_len) = geometry.map_or((0, 0), |geometry| (geometry.n_chunks(), geometry.chunk_len()));
        let mut owners = content.owners.clone();
        owners.sort_by(|a, b| (b.complete, &a.name, a.peer_id).cmp(&(a.complete, &b.name, b.peer_id)));
        let n_complete = owners.iter().filter(|owner| owner.complete).count();
        html! {
            dl.facts {
                div { dt { "Size" } dd { (size(content.len)) } }
                div { dt { "Chunks" } dd { @match n_chunks { 0 | 1 => "one", n => { (number(n.into())) " × " (size(chunk_len)) } } } }
                div { dt { "Owners" } dd { (owners_in_words(n_complete, owners.len() - n_complete)) } }
                div.wide { dt { "Content id" } dd { code.id tabindex="0" { (content.content_id) } } }
            }
            (self.links(content, n_complete, is_ambiguous))
            h2 { "Who holds which part" }
            (holders(&owners, n_complete, n_chunks, parts))
        }
    }

    fn links(&self, content: &ContentOwners, n_complete: usize, is_ambiguous: bool) -> Markup {
        let path = self.file.path.as_str();
        let version = if is_ambiguous { format!("?content={}", content.content_id) } else { String::new() };
        let address = format!("/f/{}", percent::path(path));
        let typed = if is_ambiguous { content.content_id.to_string() } else { quoted(path) };
        html! {
            @if n_complete > 0 {
                p.actions {
                    a.button href=(format!("{address}{version}")) { "Download" }
                    a.button.second href=(format!("{address}.meta4{version}")) { "Metalink" }
                    a.button.second href=(format!("{address}.torrent{version}")) { "Torrent" }
                }
            } @else {
                p.note { "Nobody holds all of it yet. potluck takes the parts from those who have them:" }
            }
            ul.commands {
                li { span { "From everybody at once" } (command(&format!("potluck download {typed}"))) }
                @if n_complete > 0 {
                    li { span { "From one owner" } (command(&format!("curl -LOJ '{}{address}{version}'", self.own_url))) }
                }
            }
        }
    }
}

fn owners_in_words(n_complete: usize, n_partial: usize) -> String {
    let complete = count(n_complete as u64, "complete", "complete");
    match n_partial {
        0 => complete,
        n => format!("{complete}, {n} fetching"),
    }
}

fn holders(owners: &[Owner], n_complete: usize, n_chunks: u32, parts: &[(PeerId, Parts)]) -> Markup {
    let n_hidden = n_complete.saturating_sub(MAX_COMPLETE);
    let (complete, partial) = owners.split_at(n_complete);
    let shown = partial.iter().chain(&complete[..n_complete - n_hidden]);
    html! {
        ul.holders {
            @for owner in shown {
                @let known = parts.iter().find(|(peer, _)| *peer == owner.peer_id).map(|(_, parts)| parts.values());
                @let done = known.map_or_else(|| percents(owner.n_chunks.into(), n_chunks.into()), share_of);
                li data-key=(owner.peer_id) {
                    a.name href=(owner.base_url) rel="noreferrer" { bdi { (name(&owner.name)) } }
                    @if owner.complete {
                        (chunk_map(&[WHOLE], "all of it"))
                        span.done { "all" }
                    } @else if let Some(parts) = known {
                        (chunk_map(parts, &format!("{done} % of it, in the parts shown")))
                        span.done { (done) " %" }
                    } @else {
                        span.map.unknown { "which parts is not known" }
                        span.done { (done) " %" }
                    }
                }
            }
        }
        @if n_hidden > 0 { p.note { "… and " (count(n_hidden as u64, "complete owner", "complete owners")) " more." } }
    }
}

/// How much all parts together are, in percents: it is told more often than the number of chunks.
fn share_of(parts: &[u8]) -> u64 {
    let sum: u64 = parts.iter().map(|part| u64::from(*part)).sum();
    percents(sum, parts.len() as u64 * u64::from(WHOLE))
}

/// As a shell takes it for one word.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/+,@:".contains(c);
    if path.chars().all(is_plain) && !path.starts_with('-') {
        return path.to_owned();
    }
    let dashes = if path.starts_with('-') { "-- " } else { "" };
    format!("{dashes}'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let check = |parts: &[u8], want: u64| assert_eq!(share_of(parts), want, "{parts:?}");
        check(&[0, 0], 0);
        check(&[WHOLE, 0], 50);
        check(&[WHOLE, WHOLE - 1], 96);
        check(&[WHOLE; 128], 100);
    }

    #[test]
    fn words_of_a_shell() {
        let check = |path: &str, want: &str| assert_eq!(quoted(path), want);
        check("a/b-1.txt", "a/b-1.txt");
        check("a b", "'a b'");
        check("it's", r"'it'\''s'");
        check("-rf", "-- '-rf'");
        check("$(id)", "'$(id)'");
    }
}
