//! What ties the requests of one user action together.

use axum::http::{HeaderMap, HeaderName};

const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// The headers to hand on to the next tier.
///
/// The version is not among them: keeping it is up to the mesh.
pub fn trace_headers(request: &HeaderMap) -> HeaderMap {
    request
        .iter()
        .filter(|(name, _)| HEADERS.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
