//! What can be seen of a request from outside: its log line, its metrics, who served it.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::served_by;
use crate::service::Service;

/// The borders of histograms of seconds: from half a millisecond to the deadline of some seconds, in steps
/// of a fifth. Versions are compared by their percentiles, which are no more exact than these.
///
/// # Errors
/// None: there are such borders.
pub fn seconds() -> prometheus::Result<Vec<f64>> {
    prometheus::exponential_buckets(0.000_5, 1.2, 52)
}

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
            .buckets(seconds()?),
            &["method", "route"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { total, duration })
    }
}

/// The status of a request whose client left before the answer, as nginx has it.
const CLIENT_LEFT: u16 = 499;

/// One log line, one count and the headers of every answer, for each request.
pub(crate) async fn observe(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let mut seen = Seen {
        start: Instant::now(),
        method: method_label(request.method()),
        // The raw path would let clients make up labels.
        route: request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned()),
        request_id: request_id(request.headers()),
        status: None,
        service,
    };
    let mut response = next.run(request).await;
    seen.status = Some(response.status());
    served_by::put_first(seen.service.tier(), response.headers_mut());
    let nosniff = HeaderValue::from_static("nosniff");
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// A request. It is logged and counted when it is dropped, for a request whose client leaves is
/// dropped before it has an answer.
struct Seen {
    service: Service,
    start: Instant,
    method: &'static str,
    route: String,
    request_id: Option<String>,
    status: Option<StatusCode>,
}

impl Drop for Seen {
    fn drop(&mut self) {
        let seconds = self.start.elapsed().as_secs_f64();
        let status = match self.status {
            Some(status) => status.as_u16(),
            None if std::thread::panicking() => 500,
            None => CLIENT_LEFT,
        };
        let metrics = self.service.request_metrics();
        metrics
            .total
            .with_label_values(&[self.method, &self.route, &status.to_string()])
            .inc();
        metrics
            .duration
            .with_label_values(&[self.method, &self.route])
            .observe(seconds);
        tracing::info!(
            service = self.service.name(),
            version = %self.service.version(),
            method = self.method,
            route = self.route,
            status,
            duration_ms = seconds * 1e3,
            request_id = self.request_id,
            "request"
        );
    }
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
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    (id.len() <= 128).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_an_answer_is_the_clients_doing_unless_the_service_panics() {
        let version = "v1".parse().expect("a version");
        let service = Service::new("test", version).expect("a service");
        let seen = || Seen {
            service: service.clone(),
            start: Instant::now(),
            method: "GET",
            route: "/".to_owned(),
            request_id: None,
            status: None,
        };
        drop(seen());
        let held = seen();
        std::thread::spawn(move || {
            let _held = held;
            panic!("as the test wants");
        })
        .join()
        .expect_err("panics");
        for status in ["499", "500"] {
            let total = &service.request_metrics().total;
            let count = total.with_label_values(&["GET", "/", status]).get();
            assert_eq!(count, 1, "{status}");
        }
    }
}
