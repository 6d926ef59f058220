//! A service and the routes that every service has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use serde::Serialize;

use crate::observe::{RequestMetrics, observe};
use crate::unread::read_rest;
use crate::{Problem, Version};

/// The largest request body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Who a process is, and what it counts.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    name: &'static str,
    version: Version,
    tier: HeaderValue,
    registry: Registry,
    request_metrics: RequestMetrics,
}

impl Service {
    /// A service called `name` in `version`; all its metrics carry the label `version`.
    pub fn new(name: &'static str, version: Version) -> prometheus::Result<Self> {
        let labels = HashMap::from([("version".to_owned(), version.to_string())]);
        let registry = Registry::new_custom(None, Some(labels))?;
        let tier = HeaderValue::try_from(format!("{name};v={version}"))
            .map_err(|error| prometheus::Error::Msg(error.to_string()))?;
        let request_metrics = RequestMetrics::register(&registry)?;
        Ok(Self(Arc::new(Inner {
            name,
            version,
            tier,
            registry,
            request_metrics,
        })))
    }

    /// Where the service registers metrics of its own.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// `routes` with `/health`, `/version`, `/metrics`, answers for everything else, limits, logs
    /// and metrics.
    pub fn router(&self, routes: Router, request_timeout: Duration) -> Router {
        let version = Router::new()
            .route("/version", get(version))
            .with_state(self.clone());
        self.router_with_own_version(routes.merge(version), request_timeout)
    }

    /// The same for a service whose `routes` have a `/version` of its own making.
    pub fn router_with_own_version(&self, routes: Router, request_timeout: Duration) -> Router {
        let common = Router::new()
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .with_state(self.clone());
        let routes = routes
            .merge(common)
            .fallback(not_found)
            .method_not_allowed_fallback(async || StatusCode::METHOD_NOT_ALLOWED)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(request_timeout, time_limit))
            .layer(middleware::from_fn_with_state(request_timeout, read_rest))
            .layer(middleware::from_fn_with_state(self.clone(), observe));
        // The methods of a path are known only after all that is in its routes.
        Router::new()
            .fallback_service(routes)
            .layer(middleware::map_response(name_methods))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(crate) fn version(&self) -> &Version {
        &self.0.version
    }

    /// This service's part of the served-by header.
    pub(crate) fn tier(&self) -> &HeaderValue {
        &self.0.tier
    }

    pub(crate) fn request_metrics(&self) -> &RequestMetrics {
        &self.0.request_metrics
    }
}

/// A process that answers is ready: a service starts to listen when it has all it needs.
async fn health() -> Response {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
    }
    axum::Json(Health { status: "ok" }).into_response()
}

async fn version(State(service): State<Service>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        service: &'static str,
        version: String,
    }
    axum::Json(Answer {
        service: service.name(),
        version: service.version().to_string(),
    })
    .into_response()
}

async fn metrics(State(service): State<Service>) -> Result<Response, Problem> {
    let text = TextEncoder::new()
        .encode_to_string(&service.registry().gather())
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing under this path")
}

/// Says in the body, too, which methods a path has.
async fn name_methods(mut response: Response) -> Response {
    let methods = response.headers().get(header::ALLOW);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some(methods) = methods.and_then(|methods| methods.to_str().ok())
    {
        let detail = format!("method: allowed are {}", methods.replace(',', ", "));
        let problem = Problem::new(response.status(), detail).into_response();
        let (head, body) = problem.into_parts();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(head.headers);
        *response.body_mut() = body;
    }
    response
}

/// Answers 408 for a request that is not complete in time. Calls to other tiers have deadlines of
/// their own, which are shorter, so it is the request that was slow.
async fn time_limit(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    tokio::time::timeout(limit, next.run(request))
        .await
        .unwrap_or_else(|_| {
            let detail = format!("allowed are {limit:?} for a request and its body");
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        })
}
