//! What can be seen of a request from outside: its log line, its metrics, who served it.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::served_by;
use crate::service::Service;

/// Seconds. A prediction takes well under a millisecond, a deadline is a few seconds.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// The metrics of requests.
#[derive(Clone)]
pub(crate) struct RequestMetrics {
    total: IntCounterVec,
    duration: HistogramVec,
}

impl RequestMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let total = IntCounterVec::new(
            Opts::new("http_requests_total", "Requests by what became of them."),
            &["method", "route", "status"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "http_request_duration_seconds",
                "Time from a request's head to its answer.",
            )
            .buckets(BUCKETS.to_vec()),
            &["method", "route"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { total, duration })
    }
}

/// One log line, one count and the served-by header for each request.
pub(crate) async fn observe(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let method = method_label(request.method());
    // The raw path would let clients make up labels.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let request_id = request_id(request.headers());

    let mut response = next.run(request).await;

    let seconds = start.elapsed().as_secs_f64();
    let status = response.status();
    let metrics = service.request_metrics();
    metrics
        .total
        .with_label_values(&[method, &route, status.as_str()])
        .inc();
    metrics
        .duration
        .with_label_values(&[method, &route])
        .observe(seconds);
    tracing::info!(
        service = service.name(),
        version = %service.version(),
        method,
        route,
        status = status.as_u16(),
        duration_ms = seconds * 1e3,
        request_id,
        "request"
    );
    served_by::put_first(service.tier(), response.headers_mut());
    response
}

/// The methods that a label may have.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The request's id, unless it is too odd to log.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    (id.len() <= 128).then(|| id.to_owned())
}
