//! The edge tier of the SMS checker: the page, and the API behind it.

mod model;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::Parser;
use prometheus::{IntCounterVec, Opts};
use serde::{Deserialize, Serialize};
use service_kit::{CommonArgs, SERVED_BY, Service, deadline};
use text::{Label, Message};

use crate::model::ModelClient;

/// The edge tier of the SMS checker: the page and POST /sms. Calls to the model go through the proxy
/// that HTTP_PROXY names, if any.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// Where to listen
    #[arg(long, env, default_value = "0.0.0.0:8080")]
    pub listen_addr: SocketAddr,

    /// The model service, such as http://model-service:8081
    #[arg(long, env)]
    pub model_service_url: String,

    /// How long the model may take; shorter than the request timeout
    #[arg(long, env, default_value = "3s", value_parser = deadline)]
    pub model_timeout: Duration,

    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The service.
pub fn router(args: &Args) -> anyhow::Result<Router> {
    let CommonArgs {
        version,
        request_timeout,
        ..
    } = args.common.clone();
    ensure!(
        args.model_timeout < request_timeout,
        "MODEL_TIMEOUT is {:?}; allowed is less than REQUEST_TIMEOUT, which is {request_timeout:?}",
        args.model_timeout,
    );
    let service = Service::new("app-service", version)?;
    let guesses = IntCounterVec::new(
        Opts::new(
            "sms_guesses_total",
            "Guesses of users by whether the model agreed.",
        ),
        &["agreed", "bucket"],
    )?;
    service.registry().register(Box::new(guesses.clone()))?;
    let model = ModelClient::new(&args.model_service_url, args.model_timeout)?;
    let routes = Router::new()
        .route("/", get(page::page))
        .route("/sms", get(page::page).post(check))
        .with_state(Arc::new(App { model, guesses }));
    Ok(service.router(routes, request_timeout))
}

struct App {
    model: ModelClient,
    guesses: IntCounterVec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sms: Message,
    guess: Option<Label>,
}

#[derive(Serialize)]
struct Answer {
    classifier: String,
    result: Label,
    sms: Message,
    guess: Option<Label>,
}

async fn check(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    service_kit::Json(Question { sms, guess }): service_kit::Json<Question>,
) -> Response {
    let reply = app.model.predict(&sms, &headers).await;
    let mut response = match reply.outcome {
        Ok(prediction) => {
            let result = prediction.result;
            if let Some(guess) = guess {
                let agreed = if guess == result { "yes" } else { "no" };
                app.guesses
                    .with_label_values(&[agreed, bucket(&headers)])
                    .inc();
            }
            let classifier = prediction.classifier;
            axum::Json(Answer {
                classifier,
                result,
                sms,
                guess,
            })
            .into_response()
        }
        Err(problem) => problem.into_response(),
    };
    for tier in reply.served_by {
        response.headers_mut().append(SERVED_BY, tier);
    }
    response
}

/// The user's bucket, for the filter at the gateway to stamp, which it does not do yet: experiments
/// compare users, and users are told apart by buckets. Anything but 0 to 31 is `none`, so that clients cannot make up labels.
fn bucket(headers: &HeaderMap) -> &str {
    headers
        .get("x-rollout-bucket")
        .and_then(|value| value.to_str().ok())
        .filter(|text| {
            text.parse::<u8>()
                .is_ok_and(|number| number < 32 && number.to_string() == *text)
        })
        .unwrap_or("none")
}
