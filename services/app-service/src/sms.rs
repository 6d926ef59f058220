//! The SMS checker: is a message spam?

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Histogram, HistogramOpts, Registry};
use serde::{Deserialize, Serialize};
use service_kit::Page;
use text::{Label, Message};

use crate::bucket::Outcomes;
use crate::model::ModelClient;

/// Characters. One SMS has 160, and no message that is checked has more than 2,000.
const LENGTH_BUCKETS: [f64; 7] = [20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 2000.0];

struct Sms {
    model: ModelClient,
    predictions: Outcomes,
    guesses: Outcomes,
    length: Histogram,
}

/// The routes, which count in `registry`.
pub(crate) fn routes(registry: &Registry, model: ModelClient) -> anyhow::Result<Router> {
    let [ham, spam] = [Label::Ham, Label::Spam].map(Label::as_str);
    let predictions = Outcomes::register(
        registry,
        "sms_predictions_total",
        "Messages by what they were called.",
        ["label"],
        &[[ham], [spam]],
    )?;
    let guesses = Outcomes::register(
        registry,
        "sms_guesses_total",
        "Guesses of users by whether the model agreed.",
        ["agreed"],
        &[["yes"], ["no"]],
    )?;
    let length = Histogram::with_opts(
        HistogramOpts::new("sms_length_characters", "Characters of a message.")
            .buckets(LENGTH_BUCKETS.to_vec()),
    )?;
    registry.register(Box::new(length.clone()))?;
    let sms = Sms {
        model,
        predictions,
        guesses,
        length,
    };
    let page = Page::new(include_str!("page.html"), "'self'")?;
    let page = async move || page.clone();
    Ok(Router::new()
        .route("/", get(page.clone()))
        .route("/sms", get(page).post(check))
        .with_state(Arc::new(sms)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sms: Message,
    guess: Option<Label>,
}

/// What the model is asked.
#[derive(Serialize)]
struct Asked<'a> {
    sms: &'a Message,
}

/// What the model makes of a message.
#[derive(Deserialize)]
struct Prediction {
    result: Label,
    classifier: String,
}

#[derive(Serialize)]
struct Answer {
    classifier: String,
    result: Label,
    sms: Message,
    guess: Option<Label>,
}

async fn check(
    State(app): State<Arc<Sms>>,
    headers: HeaderMap,
    service_kit::Json(Question { sms, guess }): service_kit::Json<Question>,
) -> Response {
    app.length.observe(sms.as_str().chars().count() as f64);
    let reply = app.model.ask(&Asked { sms: &sms }, &headers).await;
    reply.answer(|Prediction { result, classifier }| {
        app.predictions.count([result.as_str()], &headers);
        if let Some(guess) = guess {
            let agreed = if guess == result { "yes" } else { "no" };
            app.guesses.count([agreed], &headers);
        }
        axum::Json(Answer {
            classifier,
            result,
            sms,
            guess,
        })
        .into_response()
    })
}
