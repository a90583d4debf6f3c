//! `/peers`: everybody who is here, by name, page by page, with a search.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use potluck_common::net::page::name;
use potluck_common::protocol::PeerInfo;
use potluck_common::units::{count, rate, size};
use potluck_common::{PeerId, percent};
use serde::Deserialize;

use super::{empty, frame, respond};
use crate::http::App;
use crate::http::failure::Failure;
use crate::lookup::PeerCursor;

/// Peers on one page.
const N_PEERS: usize = 100;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Params {
    #[serde(default)]
    q: String,
    /// The name after which it goes on,
    after: Option<String>,
    /// and whose: several peers may have one name.
    id: Option<PeerId>,
}

pub(super) async fn peers(
    State(app): State<App>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(params) = params.map_err(|error| Failure::bad_query(error.body_text()))?;
    let after = params.after.map(|name| PeerCursor { name, id: params.id });
    let (peers, has_more) = app.swarm().ask(|registry| registry.peers_named(&params.q, after.as_ref(), N_PEERS));
    let n_peers = app.swarm().stats().n_peers;
    let shown = Shown { n_peers, peers, has_more, q: &params.q, is_first: after.is_none() };
    Ok(respond(&frame(&app, "Peers"), &shown.body()))
}

struct Shown<'a> {
    n_peers: u64,
    peers: Vec<PeerInfo>,
    has_more: bool,
    q: &'a str,
    is_first: bool,
}

impl Shown<'_> {
    fn body(&self) -> Markup {
        html! {
            nav.crumbs aria-label="Where this is" { a href="/" { "Swarm" } }
            h1 { (count(self.n_peers, "peer", "peers")) }
            section.card aria-labelledby="peers" {
                div.bar {
                    h2 #peers { "By name" }
                    form.search role="search" action="/peers" method="get" {
                        label.said for="q" { "Search by name" }
                        input #q type="search" name="q" value=(self.q) placeholder="Search peers" autocomplete="off"
                            maxlength="200";
                        button type="submit" { "Search" }
                    }
                }
                (self.list())
            }
        }
    }

    fn list(&self) -> Markup {
        let q = percent::part(self.q);
        if self.peers.is_empty() && !self.is_first {
            return empty("There are no more.", &html! { p { a href=(format!("/peers?q={q}")) { "From the start" } } });
        }
        if self.peers.is_empty() && !self.q.is_empty() {
            let nothing = html! { p { a href="/peers" { "Show all peers" } } };
            return html! { div.empty { p.lead { "No peer has “" bdi { (name(self.q)) } "” in its name." } (nothing) } };
        }
        if self.peers.is_empty() {
            return empty("Nobody is here yet.", &html! { p { a href="/" { "How a peer joins" } } });
        }
        let next = self.peers.last().filter(|_| self.has_more);
        let next = next.map(|last| format!("/peers?q={q}&after={}&id={}", percent::part(&last.name), last.peer_id));
        html! {
            ul.rows.peers { @for peer in &self.peers { (row(peer)) } }
            @if !self.is_first || next.is_some() {
                nav.pager aria-label="Pages of peers" {
                    @if !self.is_first { a href=(format!("/peers?q={q}")) { "From the start" } }
                    @if let Some(next) = &next { a rel="next" href=(next) { "More peers" } }
                }
            }
        }
    }
}

/// One peer: what it shares, and what it moves.
pub(super) fn row(peer: &PeerInfo) -> Markup {
    html! {
        li data-key=(peer.peer_id) {
            a.name href=(peer.base_url) rel="noreferrer" { bdi { (name(&peer.name)) } }
            span.what { (count(peer.n_files, "file", "files")) " · " (size(peer.n_bytes)) }
            span.rate {
                @if peer.rates.up > 0 { span.up { span.said { "sends " } (rate(peer.rates.up)) } }
                @if peer.rates.down > 0 { span.down { span.said { "receives " } (rate(peer.rates.down)) } }
                @if peer.rates.up == 0 && peer.rates.down == 0 {
                    @if peer.reachable == Some(false) { span.partial { "not reachable" } } @else { span.idle { "idle" } }
                }
            }
        }
    }
}
