//! `/`: the swarm at a glance. Totals, what moves, who is there, and the files with a search.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::{Markup, html};
use potluck_common::net::page::name;
use potluck_common::percent;
use potluck_common::protocol::{FileSummary, Files, PeerInfo, Stats};
use potluck_common::units::{count, number, rate, size};
use serde::Deserialize;

use super::picture::{flow_list, picture};
use super::{command, empty, frame, own_url, page_of, path_name, peers, quantity, respond};
use crate::http::App;
use crate::http::failure::Failure;
use crate::http::queries::page;
use crate::lookup::{FilesQuery, Moving};

/// Peers shown; of larger swarms the busiest.
const MAX_PEERS: usize = 24;
/// Flows shown.
const MAX_MOVING: usize = 24;
/// Files on one page.
const N_FILES: usize = 50;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Params {
    #[serde(default)]
    q: String,
    after: Option<String>,
}

struct Shown<'a> {
    stats: Stats,
    peers: Vec<PeerInfo>,
    moving: Vec<Moving>,
    files: Files,
    params: &'a Params,
    own_url: String,
}

pub(super) async fn dashboard(
    State(app): State<App>,
    headers: HeaderMap,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(params) = params.map_err(|error| Failure::bad_query(error.body_text()))?;
    let query = FilesQuery { contains: params.q.clone(), ..FilesQuery::default() };
    let files = page(&app, &query, params.after.clone(), N_FILES).await;
    let stats = app.swarm().stats();
    let (peers, moving) = app.swarm().ask(|registry| (registry.busiest(MAX_PEERS), registry.flows(MAX_MOVING)));
    let shown = Shown { stats, peers, moving, files, params: &params, own_url: own_url(&headers) };
    Ok(respond(&frame(&app, "Swarm"), &shown.body()))
}

impl Shown<'_> {
    fn body(&self) -> Markup {
        html! {
            h1.quiet { "The swarm" }
            (self.totals())
            div.pair {
                section.card aria-labelledby="now" {
                    h2 #now { "Right now" }
                    (self.now())
                }
                section.card aria-labelledby="peers" {
                    h2 #peers { "Peers" }
                    (self.peers())
                }
            }
            section.card #files-card aria-labelledby="files" {
                div.bar {
                    h2 #files { "Files" }
                    (self.search())
                }
                (self.files())
            }
        }
    }

    fn totals(&self) -> Markup {
        let Stats { n_peers, n_files, n_contents, n_bytes, n_syncing, rates, .. } = self.stats;
        html! {
            dl.totals {
                div { dt { "Peers" } dd { (number(n_peers)) }
                    p { @if n_syncing > 0 { (number(n_syncing)) " in sync" } @else { "at the table" } } }
                div { dt { "Files" } dd { (number(n_files)) }
                    p { (count(n_contents, "content", "contents")) } }
                div { dt { "Data" } dd { (quantity(&size(n_bytes))) } p { "each content once" } }
                div { dt { "Moving" } dd { (quantity(&rate(rates.down.max(rates.up)))) } p { "between peers" } }
            }
        }
    }

    fn now(&self) -> Markup {
        if self.stats.n_peers == 0 {
            return empty(
                "A quiet table.",
                &html! { p { "Who sends to whom is drawn here as soon as something moves." } },
            );
        }
        html! {
            (picture(&self.peers, &self.moving))
            (flow_list(&self.moving))
        }
    }

    fn peers(&self) -> Markup {
        if self.peers.is_empty() {
            return empty(
                "Nobody is here yet.",
                &html! { p { "A peer joins with:" } (command(&format!("potluck --tracker {} up", self.own_url))) },
            );
        }
        let n_more = self.stats.n_peers.saturating_sub(self.peers.len() as u64);
        html! {
            ul.rows.peers {
                @for peer in &self.peers { (peers::row(peer)) }
            }
            @if n_more > 0 {
                p.note { "… and " (count(n_more, "peer", "peers")) " that move less. "
                    a href="/peers" { "All peers" } }
            }
            div.join { "One more joins with" (command(&format!("potluck --tracker {} up", self.own_url))) }
        }
    }

    fn search(&self) -> Markup {
        html! {
            form.search role="search" action="/" method="get" {
                label.said for="q" { "Search by name" }
                input #q type="search" name="q" value=(self.params.q) placeholder="Search files" autocomplete="off"
                    maxlength="200";
                button type="submit" { "Search" }
            }
        }
    }

    fn files(&self) -> Markup {
        let (files, q) = (&self.files.files.items, self.params.q.as_str());
        if files.is_empty() && !q.is_empty() {
            let nothing = html! { p { a href="/#files" { "Show all files" } } };
            return html! { div.empty { p.lead { "No shared file has “" bdi { (name(q)) } "” in its name." } (nothing) } };
        }
        if files.is_empty() {
            let what = html! { p { (command("potluck up")) " in a folder shares it." } };
            return empty("No files yet.", &what);
        }
        let next = self
            .files
            .next
            .as_ref()
            .map(|next| format!("/?q={}&after={}#files", percent::part(q), percent::part(next)));
        html! {
            ul.rows.files {
                @for file in files { (row(file)) }
            }
            @if self.params.after.is_some() || next.is_some() {
                nav.pager aria-label="Pages of files" {
                    @if self.params.after.is_some() { a href=(format!("/?q={}#files", percent::part(q))) { "From the start" } }
                    @if let Some(next) = &next { a rel="next" href=(next) { "More files" } }
                }
            }
        }
    }
}

fn row(file: &FileSummary) -> Markup {
    let path = file.path.as_str();
    let (n_owners, n_partial) =
        file.contents.iter().fold((0, 0), |(n, m), content| (n + content.n_owners, m + content.n_partial));
    html! {
        li data-key=(page_of(path)) {
            a.name href=(page_of(path)) { (path_name(path)) }
            span.what {
                @match file.contents.as_slice() {
                    [content] => { (size(content.len)) }
                    several => { (several.len()) " versions" }
                }
            }
            span.owners {
                @if n_owners > 0 { (count(n_owners, "owner", "owners")) }
                @if n_owners > 0 && n_partial > 0 { " · " }
                @if n_partial > 0 { span.partial { (number(n_partial)) " fetching" } }
            }
        }
    }
}
