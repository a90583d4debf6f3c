//! What a peer shows to people at `/`: what it shares, and what it is fetching and from whom.
//!
//! Of what it knows, only what it tells anyway: nothing of where its share folder lies. The page only asks, like all that is
//! served here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use maud::{Markup, html};
use potluck_common::net::page::{self, Page, chunk_map, name};
use potluck_common::percent;
use potluck_common::protocol::{MAX_NAME_LEN, Parts, Problem, Rates};
use potluck_common::units::{count, number, percent as percents, rate, size, time_left};
use potluck_common::{ContentId, SharePath};
use serde::Deserialize;

use super::announce::Who;
use super::respond::bad_query;
use super::trackers::Trackers;
use crate::download::live::Live;
use crate::download::moving::AllMoving;
use crate::share::library::{Library, SharedFile};
use crate::share::sharing::SharingState;
use crate::traffic::{Giver, Traffic};
use crate::verb::Transfer;

/// How often the page is asked for again, in milliseconds. It costs less than a chunk.
const REFRESH_MS: u32 = 1_000;
/// Files on one page.
const N_FILES: usize = 100;
/// Files looked at at once in a search, so that the library's lock is never held for long.
const LOOKED_AT: usize = 2_000;
/// Transfers shown.
const MAX_TRANSFERS: usize = 20;

/// What the page is made from.
#[derive(Clone)]
pub struct Pages {
    /// Who we are.
    pub who: Arc<Who>,
    /// With whom we are.
    pub trackers: Trackers,
    /// What is shared.
    pub library: Arc<Library>,
    /// Whether there is more to come.
    pub sharing: Arc<SharingState>,
    /// Parts of what is being fetched.
    pub live: Arc<Live>,
    /// What is being fetched.
    pub moving: Arc<AllMoving>,
    /// How fast.
    pub traffic: Arc<Traffic>,
}

/// The page and what it loads.
pub fn router(pages: Pages) -> Router<super::serve::Serve> {
    Router::new()
        .route("/", get(overview))
        .route("/assets/{name}", get(async |Path(name): Path<String>, headers: HeaderMap| page::asset(&name, &headers)))
        .with_state(pages)
}

#[derive(Debug, Default, Deserialize)]
struct Params {
    #[serde(default)]
    q: String,
    after: Option<SharePath>,
}

async fn overview(
    State(pages): State<Pages>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params.map_err(|error| bad_query(error.body_text()))?;
    let listed = pages.files(&params).await;
    let our_name: String = pages.who.name().chars().take(MAX_NAME_LEN).collect();
    let page = Page { title: &our_name, place: "peer", events: None, refresh_ms: REFRESH_MS };
    Ok(page.respond(StatusCode::OK, &pages.body(&our_name, &params, &listed)))
}

/// Files, and where to go on.
struct Listed {
    files: Vec<(SharePath, SharedFile)>,
    next: Option<SharePath>,
}

impl Pages {
    async fn files(&self, params: &Params) -> Listed {
        let wanted = params.q.to_lowercase();
        let (mut files, mut after) = (Vec::new(), params.after.clone());
        loop {
            let part = self.library.page(after.as_ref(), LOOKED_AT);
            let is_last = part.len() < LOOKED_AT;
            after = part.last().map(|(path, _)| path.clone());
            files.extend(part.into_iter().filter(|(path, _)| path.as_str().to_lowercase().contains(&wanted)));
            if files.len() > N_FILES {
                files.truncate(N_FILES);
                let next = files.last().map(|(path, _)| path.clone());
                return Listed { files, next };
            }
            if is_last {
                return Listed { files, next: None };
            }
            tokio::task::yield_now().await;
        }
    }

    fn body(&self, our_name: &str, params: &Params, listed: &Listed) -> Markup {
        let transfers = self.moving.transfers();
        let givers = self.traffic.givers();
        html! {
            h1 { bdi { (name(our_name)) } }
            (self.totals())
            section.card aria-labelledby="transfers" {
                h2 #transfers { "Fetching" }
                (self.transfers(&transfers, &givers))
            }
            section.card aria-labelledby="files" {
                div.bar {
                    h2 #files { "Shared files" }
                    form.search role="search" action="/" method="get" {
                        label.said for="q" { "Search by name" }
                        input #q type="search" name="q" value=(params.q) placeholder="Search files" autocomplete="off"
                            maxlength="200";
                        button type="submit" { "Search" }
                    }
                }
                (self.shared(params, listed))
            }
            (self.with_whom())
        }
    }

    fn totals(&self) -> Markup {
        let (n_files, n_bytes) = self.library.totals();
        let Rates { up, down } = self.traffic.rates();
        let n_hashing = self.sharing.n_hashing.load(Ordering::Relaxed);
        let n_uploads = self.traffic.n_uploads.load(Ordering::Relaxed);
        html! {
            dl.totals {
                div { dt { "Shares" } dd { (number(n_files)) }
                    p { @if n_hashing > 0 { (number(n_hashing)) " more being hashed" }
                        @else if n_files == 1 { "file" } @else { "files" } } }
                div { dt { "Data" } dd { (quantity(&size(n_bytes))) } p { "to give" } }
                div { dt { "Sending" } dd { (quantity(&rate(up))) } p { (count(n_uploads, "upload", "uploads")) } }
                div { dt { "Receiving" } dd { (quantity(&rate(down))) }
                    p { (count(self.moving.transfers().len() as u64, "download", "downloads")) } }
            }
        }
    }

    fn transfers(&self, transfers: &[Transfer], givers: &[Giver]) -> Markup {
        if transfers.is_empty() {
            return html! {
                div.empty { p.lead { "Nothing is being fetched." } p { code.command { "potluck download NAME" } " fetches from everybody at once." } }
            };
        }
        html! {
            ul.transfers {
                @for transfer in transfers.iter().take(MAX_TRANSFERS) { (self.transfer(transfer)) }
            }
            @if transfers.len() > MAX_TRANSFERS {
                p.note { "… and " (number((transfers.len() - MAX_TRANSFERS) as u64)) " more." }
            }
            @if !givers.is_empty() {
                ul.rows.givers aria-label="From whom" {
                    @for giver in givers {
                        li data-key=(giver.peer_id) {
                            span.name { bdi { (name(&giver.name)) } }
                            span.what {}
                            span.rate { span.down { (rate(giver.rate)) } }
                        }
                    }
                }
            }
        }
    }

    fn transfer(&self, transfer: &Transfer) -> Markup {
        let done = percents(transfer.n_bytes, transfer.len);
        let left = time_left(transfer.len.saturating_sub(transfer.n_bytes), transfer.rate);
        let words = match transfer.len {
            0 => format!("{} so far", size(transfer.n_bytes)),
            len => format!("{done} % of {}", size(len)),
        };
        let parts = transfer.content_id.and_then(|id| self.parts(id));
        let key = transfer.content_id.map_or_else(|| transfer.name.clone(), |id| id.to_string());
        html! {
            li data-key=(key) {
                span.name { bdi { (name(&transfer.name)) } }
                span.what {
                    (words)
                    @if let Some(waiting) = &transfer.waiting { " · waits: " (waiting) }
                    @else if transfer.n_owners > 0 { " · from " (count(transfer.n_owners.into(), "peer", "peers")) }
                    @if let Some(left) = left { " · " (left) " left" }
                }
                @match parts {
                    Some(parts) => (chunk_map(parts.values(), &words)),
                    None => (chunk_map(&[0], &words)),
                }
            }
        }
    }

    fn parts(&self, id: ContentId) -> Option<Parts> {
        let content = self.live.get(id)?;
        Some(Parts::of(&content.have(), content.partial.map().geometry()))
    }

    fn shared(&self, params: &Params, listed: &Listed) -> Markup {
        let q = params.q.as_str();
        let all = "/#files";
        if listed.files.is_empty() && !q.is_empty() {
            return html! {
                div.empty { p.lead { "No shared file has “" bdi { (name(q)) } "” in its name." } p { a href=(all) { "Show all files" } } }
            };
        }
        if listed.files.is_empty() {
            return html! {
                div.empty { p.lead { "No files yet." } p { "Whatever is put into this peer’s share folder is listed here." } }
            };
        }
        html! {
            ul.rows.files {
                @for (path, file) in &listed.files {
                    li data-key=(percent::path(path.as_str())) {
                        a.name href=(format!("/f/{}", percent::path(path.as_str()))) download {
                            bdi { @if let Some(folder) = path.parent() { span.folder { (name(folder.as_str())) "/" } } (name(path.file_name())) }
                        }
                        span.what { (size(file.identity.len)) }
                        span.owners { code title=(file.content_id) { (file.content_id.short()) } }
                    }
                }
            }
            @if params.after.is_some() || listed.next.is_some() {
                nav.pager aria-label="Pages of files" {
                    @if params.after.is_some() { a href=(format!("/?q={}#files", percent::part(q))) { "From the start" } }
                    @if let Some(next) = &listed.next {
                        a rel="next" href=(format!("/?q={}&after={}#files", percent::part(q), percent::part(next.as_str()))) { "More files" }
                    }
                }
            }
        }
    }

    fn with_whom(&self) -> Markup {
        let trackers = self.trackers.list();
        html! {
            section.card aria-labelledby="trackers" {
                h2 #trackers { "Trackers" }
                @if trackers.is_empty() {
                    div.empty { p.lead { "No tracker is known." } p { "This peer looks for one on its network; " code.command { "--tracker URL" } " names one." } }
                }
                ul.rows {
                    @for member in trackers.iter() {
                        @let url = member.tracker.name();
                        li data-key=(url) {
                            a.name href=(url) rel="noreferrer" { (name(&url)) }
                            span.what {}
                            span.rate { @if member.answers() { "answers" } @else { "does not answer" } }
                        }
                    }
                }
            }
        }
    }
}

fn quantity(text: &str) -> Markup {
    match text.rsplit_once(' ') {
        Some((number, unit)) => html! { (number) span.unit { " " (unit) } },
        None => html! { (text) },
    }
}
