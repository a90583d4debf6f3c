//! What the tracker shows to people: the dashboard at `/`, all peers at `/peers` and a page for each file at `/files/{path}`.
//!
//! They say what `/v1` says, as of now; `assets/potluck.js` asks for them again when something happens. Lists are bounded as
//! everywhere, and nothing here changes anything.

mod dashboard;
mod file;
mod peers;
mod picture;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::get;
use maud::{Markup, Render, html};
use potluck_common::net::page::{self, Page};
use potluck_common::percent;

use super::App;

/// How often a page is asked for again while nothing is told by events, in milliseconds: rates come with announces.
const REFRESH_MS: u32 = 2_000;

/// The routes.
pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(dashboard::dashboard))
        .route("/peers", get(peers::peers))
        .route("/files/{*path}", get(file::file))
        .route("/assets/{name}", get(async |Path(name): Path<String>, headers: HeaderMap| page::asset(&name, &headers)))
}

fn frame<'a>(app: &'a App, title: &'a str) -> Page<'a> {
    let place = app.0.config.swarm.as_str();
    Page { title, place, events: Some("/v1/events"), refresh_ms: REFRESH_MS }
}

/// Where the client found us, as it has to be written elsewhere.
fn own_url(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("TRACKER:7700");
    format!("http://{host}")
}

/// The address of a file's page.
fn page_of(path: &str) -> String {
    format!("/files/{}", percent::path(path))
}

/// A path with its folders set back.
fn path_name(path: &str) -> impl Render + use<> {
    let (folder, last) = match path.rsplit_once('/') {
        Some((folder, last)) => (format!("{folder}/"), last),
        None => (String::new(), path),
    };
    let markup: Markup = html! {
        bdi { @if !folder.is_empty() { span.folder { (page::name(&folder)) } } (page::name(last)) }
    };
    markup
}

/// A line to type.
fn command(text: &str) -> Markup {
    html! { code.command tabindex="0" { (page::name(text)) } }
}

/// What is said where there is nothing to show.
fn empty(title: &str, what_to_do: &Markup) -> Markup {
    html! { div.empty { p.lead { (title) } (what_to_do) } }
}

/// A length, a rate: the number and, smaller, its unit.
fn quantity(text: &str) -> Markup {
    match text.rsplit_once(' ') {
        Some((number, unit)) => html! { (number) span.unit { " " (unit) } },
        None => html! { (text) },
    }
}

fn respond(page: &Page<'_>, body: &Markup) -> Response {
    page.respond(axum::http::StatusCode::OK, body)
}
