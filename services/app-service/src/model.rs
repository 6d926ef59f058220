//! Asking the model service.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response, Url, redirect};
use serde::{Deserialize, Serialize};
use service_kit::{Problem, SERVED_BY, trace_headers};
use text::{Label, Message};

/// A client of the model service.
pub(crate) struct ModelClient {
    client: Client,
    predict: Url,
    timeout: Duration,
}

/// What came of a question.
pub(crate) struct Reply {
    pub(crate) outcome: Result<Prediction, Problem>,
    /// Who says so, if it was anybody.
    pub(crate) served_by: Vec<HeaderValue>,
}

/// What the model makes of a message.
#[derive(Deserialize)]
pub(crate) struct Prediction {
    pub(crate) result: Label,
    pub(crate) classifier: String,
}

#[derive(Serialize)]
struct Question<'a> {
    sms: &'a Message,
}

impl ModelClient {
    /// A client that gives up after `timeout`.
    pub(crate) fn new(service: &str, timeout: Duration) -> anyhow::Result<Self> {
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
        let predict = service.join("/predict").context(ALLOWED)?;
        // Proxies from the environment are reqwest's default: HTTP_PROXY puts a sidecar in the way.
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            predict,
            timeout,
        })
    }

    /// Asks what `sms` is, as part of the request that came with `headers`.
    pub(crate) async fn predict(&self, sms: &Message, headers: &HeaderMap) -> Reply {
        let answer = self
            .client
            .post(self.predict.clone())
            .headers(trace_headers(headers))
            .json(&Question { sms })
            .send()
            .await;
        match answer {
            Ok(answer) => Reply {
                served_by: answer
                    .headers()
                    .get_all(SERVED_BY)
                    .iter()
                    .cloned()
                    .collect(),
                outcome: self.read(answer).await,
            },
            Err(error) => Reply {
                served_by: Vec::new(),
                outcome: Err(self.explain(&error)),
            },
        }
    }

    async fn read(&self, answer: Response) -> Result<Prediction, Problem> {
        match answer.status() {
            StatusCode::OK => answer.json().await.map_err(|error| self.explain(&error)),
            // A sidecar gave up before we did.
            StatusCode::GATEWAY_TIMEOUT => Err(slow("the model service did not answer in time")),
            // Even a 4xx is not the caller's fault: the message was checked before it was sent.
            status => Err(bad(format!(
                "the model service answered {}",
                status.as_u16()
            ))),
        }
    }

    fn explain(&self, error: &reqwest::Error) -> Problem {
        if error.is_timeout() {
            slow(format!(
                "the model service did not answer within {:?}",
                self.timeout
            ))
        } else if error.is_decode() {
            bad("the model service's answer is not a prediction")
        } else {
            bad("the model service cannot be reached")
        }
    }
}

fn slow(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}
