//! Asking the model service.

use std::error::Error;
use std::iter;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use reqwest::{Client, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use service_kit::{Problem, SERVED_BY, request_id, seconds, trace_headers};

use crate::bucket::{bucket, labels_of_all};

/// Why a question has no answer.
const LATE: &str = "late";
const FAILED: &str = "failed";

/// A client of the model service.
pub(crate) struct ModelClient {
    client: Client,
    predict: Url,
    timeout: Duration,
    duration: HistogramVec,
    unanswered: IntCounterVec,
    in_progress: IntGauge,
}

/// What came of a question.
pub(crate) struct Reply<A> {
    outcome: Result<A, Problem>,
    /// Who says so, if it was anybody.
    served_by: Vec<HeaderValue>,
}

impl<A> Reply<A> {
    /// The response to the caller: what `answer` makes of the model's answer, or the problem, and in
    /// either case the tiers that took part.
    pub(crate) fn answer(self, answer: impl FnOnce(A) -> Response) -> Response {
        let mut response = match self.outcome {
            Ok(prediction) => answer(prediction),
            Err(problem) => problem.into_response(),
        };
        for tier in self.served_by {
            response.headers_mut().append(SERVED_BY, tier);
        }
        response
    }
}

/// Why there is no prediction.
struct Failure {
    status: StatusCode,
    /// For the caller.
    detail: String,
    /// For the log, where there is more to say.
    reason: Option<String>,
}

impl Failure {
    fn slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, detail)
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, detail)
    }

    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            reason: None,
        }
    }
}

impl ModelClient {
    /// A client that asks under `path`, gives up after `timeout`, and counts in `registry`.
    pub(crate) fn new(
        registry: &Registry,
        service: &str,
        path: &str,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        // The value is not shown: it may hold a password.
        const ALLOWED: &str = "MODEL_SERVICE_URL: allowed is http://host:port, without user and \
                               password (the mesh adds TLS)";
        let service = Url::parse(service).context(ALLOWED)?;
        ensure!(
            service.scheme() == "http"
                && service.has_host()
                && service.username().is_empty()
                && service.password().is_none(),
            ALLOWED
        );
        let predict = service.join(path).context(ALLOWED)?;
        // Proxies from the environment are reqwest's default: HTTP_PROXY puts a sidecar in the way.
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            .build()?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "answer_duration_seconds",
                "Time from the question to the model to its answer, if there was one.",
            )
            .buckets(seconds()?),
            &["bucket"],
        )?;
        for bucket in labels_of_all() {
            duration.with_label_values(&[&bucket]);
        }
        let unanswered = IntCounterVec::new(
            Opts::new(
                "predictions_unanswered_total",
                "Questions that the model did not answer, by why.",
            ),
            &["reason"],
        )?;
        for reason in [LATE, FAILED] {
            unanswered.with_label_values(&[reason]);
        }
        let in_progress = IntGauge::new(
            "predictions_in_progress",
            "Questions that the model has not answered yet.",
        )?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(unanswered.clone()))?;
        registry.register(Box::new(in_progress.clone()))?;
        Ok(Self {
            client,
            predict,
            timeout,
            duration,
            unanswered,
            in_progress,
        })
    }

    /// Asks a question, as part of the request that came with `headers`.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        question: &impl Serialize,
        headers: &HeaderMap,
    ) -> Reply<A> {
        let _in_progress = InProgress::begin(&self.in_progress);
        let start = Instant::now();
        let mut served_by = Vec::new();
        let outcome = self.send(question, headers, &mut served_by).await;
        if outcome.is_ok() {
            let duration = self.duration.with_label_values(&[bucket(headers)]);
            duration.observe(start.elapsed().as_secs_f64());
        }
        let outcome = outcome.map_err(|failure| {
            let reason = match failure.status {
                StatusCode::GATEWAY_TIMEOUT => LATE,
                _ => FAILED,
            };
            self.unanswered.with_label_values(&[reason]).inc();
            tracing::warn!(
                detail = failure.detail,
                reason = failure.reason,
                request_id = request_id(headers),
                "no prediction"
            );
            Problem::new(failure.status, failure.detail)
        });
        Reply { outcome, served_by }
    }

    async fn send<A: DeserializeOwned>(
        &self,
        question: &impl Serialize,
        headers: &HeaderMap,
        served_by: &mut Vec<HeaderValue>,
    ) -> Result<A, Failure> {
        let request = self
            .client
            .post(self.predict.clone())
            .headers(trace_headers(headers))
            .json(question);
        let answer = request.send().await.map_err(|error| self.explain(error))?;
        served_by.extend(answer.headers().get_all(SERVED_BY).iter().cloned());
        match answer.status() {
            StatusCode::OK => answer.json().await.map_err(|error| self.explain(error)),
            // A sidecar gave up before we did.
            StatusCode::GATEWAY_TIMEOUT => {
                Err(Failure::slow("the model service did not answer in time"))
            }
            // Even a 4xx is not the caller's fault: the text was checked before it was sent.
            status => Err(Failure::bad(format!(
                "the model service answered {}",
                status.as_u16()
            ))),
        }
    }

    fn explain(&self, error: reqwest::Error) -> Failure {
        if error.is_timeout() {
            Failure::slow(format!(
                "the model service did not answer within {:?}",
                self.timeout
            ))
        } else if error.is_decode() {
            // More would quote the answer, and with it perhaps the text.
            Failure::bad("the model service's answer is not a prediction")
        } else {
            let mut failure = Failure::bad("the model service cannot be reached");
            failure.reason = Some(causes(&error.without_url()));
            failure
        }
    }
}

/// An error and what it comes from, down to the operating system's word.
fn causes(error: &(dyn Error + 'static)) -> String {
    let all = iter::successors(Some(error), |&error| error.source());
    let all: Vec<_> = all.map(ToString::to_string).collect();
    all.join(": ")
}

/// A question under way, also if the caller leaves before the answer.
struct InProgress<'a>(&'a IntGauge);

impl<'a> InProgress<'a> {
    fn begin(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
