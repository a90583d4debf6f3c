//! Metrics, as Prometheus reads them: what is counted already is read when somebody asks; requests are counted here.
//!
//! Each program, and each of several peers in one process, has a registry of its own. Names begin with the
//! program's prefix and end in their unit; lengths are bytes, times seconds.
//!
//! Invariant: how many series there are is known when the program is built. Labels come from fixed lists (routes,
//! classes of status, reasons), never from peers, files or what a request says.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

/// Bounds of the time to the head of an answer: from one out of memory to a long poll.
const LATENCY_BUCKETS: [f64; 10] = [0.000_5, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0];
/// The label of requests that no route takes.
const NO_ROUTE: &str = "none";

/// One number that is read when somebody asks.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    kind: MetricType,
    name: &'static str,
    help: &'static str,
    label: Option<(&'static str, &'static str)>,
}

impl Reading {
    /// A number that goes up and down. The name is without the program's prefix.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { kind: MetricType::GAUGE, name, help, label: None }
    }

    /// A number that only grows; the name ends in `_total`.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { kind: MetricType::COUNTER, name, help, label: None }
    }

    /// One of several of the same name, told apart by a label.
    #[must_use]
    pub const fn with(self, label: &'static str, value: &'static str) -> Self {
        Self { label: Some((label, value)), ..self }
    }
}

/// The metrics of one program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    prefix: &'static str,
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
}

impl Metrics {
    /// Of a program whose metrics begin with `prefix` and an underscore.
    pub fn new(prefix: &'static str, version: &'static str) -> Self {
        let requests = Opts::new("http_requests_total", "Requests answered, by route and class of status.");
        let requests = IntCounterVec::new(requests.namespace(prefix), &["route", "status"]).expect("the name is fixed");
        let latency = "http_request_duration_seconds";
        let latency = HistogramOpts::new(latency, "Time from a request to the head of its answer, by route.");
        let latency = latency.namespace(prefix).buckets(LATENCY_BUCKETS.to_vec());
        let latency = HistogramVec::new(latency, &["route"]).expect("the name is fixed");
        let metrics = Self { prefix, registry: Registry::new(), requests, latency };
        metrics.register(metrics.requests.clone());
        metrics.register(metrics.latency.clone());
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let build = Reading::gauge("build_info", "Always 1; the label names the version.").with("version", version);
        let start = Reading::gauge("start_time_seconds", "When it was started, by the wall clock.");
        metrics.observe([build, start], move || [1.0, started]);
        metrics
    }

    /// Adds a counter that is kept elsewhere; its name has the prefix.
    pub fn register(&self, collector: impl Collector + 'static) {
        self.registry.register(Box::new(collector)).expect("each metric has a name of its own");
    }

    /// Adds numbers that `read` gives, in this order, whenever somebody asks.
    pub fn observe<const N: usize>(&self, readings: [Reading; N], read: impl Fn() -> [f64; N] + Send + Sync + 'static) {
        let desc = |reading: &Reading| {
            let labels =
                reading.label.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
            let name = format!("{}_{}", self.prefix, reading.name);
            Desc::new(name, reading.help.to_owned(), Vec::new(), labels).expect("the name is fixed")
        };
        let descs = readings.iter().map(desc).collect();
        self.register(Observed { readings, descs, read });
    }

    /// All of them, in the text format, version 0.0.4.
    pub fn answer(&self) -> Response {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => {
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                ([(header::CONTENT_TYPE, kind)], text).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                super::problem::internal().into_response()
            }
        }
    }
}

/// Middleware (`axum::middleware::from_fn_with_state`), outside of whatever else answers: counts and times requests.
pub async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    metrics.requests.with_label_values(&[route, class(response.status())]).inc();
    metrics.latency.with_label_values(&[route]).observe(begun.elapsed().as_secs_f64());
    response
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// Numbers that one function reads.
struct Observed<const N: usize, F> {
    readings: [Reading; N],
    descs: Vec<Desc>,
    read: F,
}

impl<const N: usize, F: Fn() -> [f64; N] + Send + Sync> Collector for Observed<N, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = (self.read)();
        self.readings
            .iter()
            .zip(&self.descs)
            .zip(values)
            .map(|((reading, desc), value)| family(*reading, desc, value))
            .collect()
    }
}

fn family(reading: Reading, desc: &Desc, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    metric.set_label(desc.const_label_pairs.iter().map(LabelPair::clone).collect());
    match reading.kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        _ => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(reading.kind);
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn counts_by_route_and_not_by_what_is_asked() {
        let metrics = Metrics::new("potluck_test", "1");
        metrics.observe(
            [
                Reading::counter("failed_total", "Failures.").with("reason", "a"),
                Reading::counter("failed_total", "Failures.").with("reason", "b"),
            ],
            || [3.0, 4.0],
        );
        let (shown, other) = (metrics.clone(), Metrics::new("potluck_test", "1"));
        let router = Router::new()
            .route("/x/{id}", get(|| async { "x" }))
            .route("/metrics", get(move || async move { shown.answer() }))
            .layer(from_fn_with_state(metrics, measure));
        let ask = async |uri: &str| {
            let answer = router.clone().oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
            String::from_utf8(to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
        };
        for n in 0..100 {
            ask(&format!("/x/{n}")).await;
            ask(&format!("/nothing/{n}")).await;
        }
        let text = ask("/metrics").await;
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "# TYPE potluck_test_http_requests_total counter",
            r#"potluck_test_http_requests_total{route="/x/{id}",status="2xx"} 100"#,
            r#"potluck_test_http_requests_total{route="none",status="4xx"} 100"#,
            r#"potluck_test_http_request_duration_seconds_count{route="/x/{id}"} 100"#,
            "# HELP potluck_test_failed_total Failures.",
            r#"potluck_test_failed_total{reason="a"} 3"#,
            r#"potluck_test_failed_total{reason="b"} 4"#,
            r#"potluck_test_build_info{version="1"} 1"#,
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
        assert_eq!(lines.iter().filter(|line| line.contains("failed_total") && line.starts_with('#')).count(), 2);
        let apart = to_bytes(other.answer().into_body(), 1 << 20).await.unwrap();
        assert!(!String::from_utf8(apart.to_vec()).unwrap().contains("route="), "registries are shared");
    }
}
