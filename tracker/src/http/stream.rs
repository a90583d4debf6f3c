//! `GET /v1/events`: what happens, as Server-Sent Events that can be resumed.
//!
//! The id of an event is `RUN-NUMBER`: the run of the tracker and the number of the event that comes next. Who comes back
//! with `Last-Event-ID` goes on there; if that is no longer known (too long ago, or the tracker was restarted) the
//! first event is `reload`: ask everything again. Who comes without one is greeted with `hello`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::Stream;
use potluck_common::openapi::AnyProblem;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::App;
use super::failure::Failure;
use crate::swarm::Swarm;

/// A comment this often finds out who is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens, as Server-Sent Events.
///
/// To watch a swarm: `curl -N http://TRACKER:7700/v1/events`. The events are `hello` (to who comes without an id), `peer`,
/// `peer_left`, `files`, `index`, and `reload`: too much was missed, ask everything again. Each has an id; who sends the last one back
/// as `Last-Event-ID` goes on there: `curl -N -H 'Last-Event-ID: ID' http://TRACKER:7700/v1/events`. A comment every 15 seconds keeps the connection alive.
#[utoipa::path(get, path = "/v1/events",
    params(("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen.")),
    responses((status = 200, description = "A stream without end.", body = String, content_type = "text/event-stream"), AnyProblem))]
pub(crate) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let place = app.0.streams.clone().try_acquire_owned().map_err(|_| Failure::busy())?;
    let latest = app.swarm().subscribe();
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or(""));
    let reader = Reader::new(app, latest, last, place);
    let stream = futures::stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

struct Reader {
    app: App,
    latest: watch::Receiver<u64>,
    next: u64,
    /// Said before the first event.
    greeting: Option<&'static str>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn new(app: App, latest: watch::Receiver<u64>, last: Option<&str>, place: OwnedSemaphorePermit) -> Self {
        let newest = *latest.borrow();
        let (next, greeting) = match last.map(|id| parse_id(id, app.swarm())) {
            None => (newest, Some("hello")),
            Some(Some(next)) if next <= newest => (next, None),
            Some(_) => (newest, Some("reload")),
        };
        Self { app, latest, next, greeting, _place: place }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(greeting) = self.greeting.take() {
                return Some(self.id(Event::default()).event(greeting).data("{}"));
            }
            let newest = *self.latest.borrow_and_update();
            if self.next < newest {
                let Some(event) = self.app.swarm().event(self.next) else {
                    (self.next, self.greeting) = (newest, Some("reload"));
                    continue;
                };
                self.next += 1;
                let json = serde_json::to_string(&*event).expect("an event is plain text and numbers");
                return Some(self.id(Event::default()).event(event.name()).data(json));
            }
            tokio::select! {
                biased;
                () = self.app.0.shutdown.cancelled() => return None,
                changed = self.latest.changed() => changed.ok()?,
            }
        }
    }

    fn id(&self, event: Event) -> Event {
        event.id(format!("{:016x}-{}", self.app.swarm().boot(), self.next))
    }
}

fn parse_id(id: &str, swarm: &Swarm) -> Option<u64> {
    let (run, next) = id.split_once('-')?;
    (u64::from_str_radix(run, 16).ok()? == swarm.boot()).then_some(())?;
    next.parse().ok()
}
