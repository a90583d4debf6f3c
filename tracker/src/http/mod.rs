//! The tracker's routes.
//!
//! Invariants: every error is `application/problem+json`; a panic in one handler is a 500 for that request and nothing
//! more; nothing is read from a stranger without a bound in bytes and time. There is no CORS header: a page of
//! another origin can read nothing here.

mod announce;
mod body;
mod failure;
mod fetch;
mod matrix;
mod metrics;
mod pages;
mod queries;
mod stream;
mod sync;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use potluck_common::discovery::SwarmName;
use potluck_common::net::docs;
use potluck_common::net::host::{self, HostPolicy};
use potluck_common::net::metrics::{Metrics, measure};
use potluck_common::net::per_address::PerAddress;
use potluck_common::net::problem::{internal, method_not_allowed, not_found};
use potluck_common::net::request_id;
use potluck_common::openapi::without_wildcards;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::dispatch::Dispatch;
use crate::rate::{Rate, RateLimits};
use crate::swarm::Swarm;
use body::Bodies;
use failure::Failure;

/// Times and limits of the routes.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Told to peers: how often to announce.
    pub heartbeat: Duration,
    /// Told to peers: how long they are listed without.
    pub lease: Duration,
    /// From the first to the last byte of a body.
    pub body_timeout: Duration,
    /// Requests granted to one address.
    pub rate: RateLimits,
    /// Event streams open at once.
    pub max_streams: usize,
    /// Names this host is known by, besides those that always pass.
    pub hosts: Vec<String>,
    /// The swarm that this tracker is for.
    pub swarm: SwarmName,
    /// Whether a peer hosts it.
    pub hosted: bool,
}

/// What every handler can reach.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    swarm: Swarm,
    config: HttpConfig,
    /// Where the tracker listens: no peer may announce that.
    own: SocketAddr,
    rate: Mutex<Rate>,
    dispatch: Mutex<Dispatch>,
    bodies: Bodies,
    streams: Arc<tokio::sync::Semaphore>,
    metrics: Metrics,
    /// Answers that are held back until there is news.
    waiting: PerAddress,
    shutdown: CancellationToken,
}

impl App {
    /// For a swarm served at `own`. Event streams and answers that are held back end with `shutdown`.
    pub fn new(swarm: Swarm, config: HttpConfig, own: SocketAddr, shutdown: CancellationToken) -> Self {
        let streams = Arc::new(tokio::sync::Semaphore::new(config.max_streams));
        let (max_streams, free) = (config.max_streams, streams.clone());
        Self(Arc::new(Inner {
            metrics: metrics::of_swarm(&swarm, move || max_streams - free.available_permits()),
            swarm,
            own,
            rate: Mutex::new(Rate::new(config.rate.clone())),
            dispatch: Mutex::new(Dispatch::new(config.heartbeat)),
            bodies: Bodies::new(config.body_timeout),
            streams,
            waiting: PerAddress::default(),
            shutdown,
            config,
        }))
    }

    fn swarm(&self) -> &Swarm {
        &self.0.swarm
    }

    /// Whether that is the tracker's own address.
    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        let own = self.0.own;
        port == own.port()
            && if own.ip().is_unspecified() {
                // Only an address of this machine can be bound.
                UdpSocket::bind((ip, 0)).is_ok()
            } else {
                own.ip().to_canonical() == ip
            }
    }
}

/// What the description of the routes begins with.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "potluck tracker",
        description = "Who is there, and who holds what. Everything but announces only reads. Lengths are bytes (`len`), \
                       times milliseconds (`_ms`). Errors are `application/problem+json` (RFC 9457)."
    ),
    components(schemas(potluck_common::protocol::Problem))
)]
struct Described;

/// All routes with everything around them.
pub fn router(app: App) -> Router {
    let policy = HostPolicy::new(app.0.config.hosts.iter().cloned());
    let (described, document) = OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(queries::files))
        .routes(routes!(queries::file))
        .routes(routes!(queries::folder))
        .routes(routes!(queries::content))
        .routes(routes!(fetch::fetch))
        .routes(routes!(queries::peers))
        .routes(routes!(queries::peer))
        .routes(routes!(stream::events))
        .routes(routes!(queries::stats))
        .routes(routes!(queries::tracker))
        .routes(routes!(sync::sync))
        .routes(routes!(matrix::matrix))
        .routes(routes!(announce::announce))
        .routes(routes!(queries::healthz))
        .routes(routes!(queries::readyz))
        .routes(routes!(metrics::metrics))
        .split_for_parts();
    let limited = described
        .merge(pages::router())
        .merge(docs::router(&without_wildcards(document)))
        .fallback(async || not_found("GET /v1/files lists what is shared."))
        .method_not_allowed_fallback(async || method_not_allowed())
        .layer(from_fn_with_state(app.clone(), limit_rate))
        .layer(from_fn_with_state(policy, host::guard))
        .layer(from_fn(catch_panic))
        .layer(from_fn(request_id::follow))
        .layer(from_fn(add_headers))
        .layer(from_fn_with_state(app.0.metrics.clone(), measure));
    limited.with_state(app)
}

async fn limit_rate(State(app): State<App>, source: Source, request: Request, next: Next) -> Response {
    // Liveness must answer also while somebody hammers from the same address.
    if request.uri().path() != "/healthz" {
        let now = tokio::time::Instant::now().into_std();
        let taken = app.0.rate.lock().unwrap_or_else(PoisonError::into_inner).take(source.0, now);
        if let Err(wait) = taken {
            return Failure::too_many_requests(wait).into_response();
        }
    }
    next.run(request).await
}

async fn catch_panic(request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(request = what, "a handler panicked");
            internal().into_response()
        }
    }
}

async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The address a request came from.
#[derive(Debug, Clone, Copy)]
struct Source(IpAddr);

impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(from)) => Ok(Self(from.ip().to_canonical())),
            None => {
                tracing::error!("the server did not say where a request came from");
                Err(internal().into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryConfig;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower::ServiceExt;

    /// F50: a panic, here even with the registry locked, is a 500 for that request; everything goes on.
    #[tokio::test]
    async fn a_panic_stays_where_it_is() {
        let config = RegistryConfig {
            lease: Duration::from_secs(15),
            forget_after: Duration::from_secs(60),
            quotas: crate::Quotas::default(),
        };
        let swarm = Swarm::new(config, None);
        let router = Router::new()
            .route("/panic", get(async |State(swarm): State<Swarm>| swarm.ask(|_| -> String { panic!("a test") })))
            .route("/fine", get(async |State(swarm): State<Swarm>| swarm.stats().n_peers.to_string()))
            .layer(from_fn(catch_panic))
            .with_state(swarm.clone());
        let ask = |uri: &str| router.clone().oneshot(Request::get(uri).body(Body::empty()).unwrap());
        for _ in 0..3 {
            let response = ask("/panic").await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(ask("/fine").await.unwrap().status(), StatusCode::OK);
        }
        assert!(std::panic::catch_unwind(AssertUnwindSafe(|| swarm.panic_while_changing())).is_err());
        assert_eq!(ask("/fine").await.unwrap().status(), StatusCode::OK);
        assert!(swarm.expire().is_empty());
    }
}
