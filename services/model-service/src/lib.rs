//! The model tier of the SMS checker: says what a message is.

mod artefact;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use clap::Parser;
use prometheus::{IntCounterVec, Opts};
use serde::{Deserialize, Serialize};
use service_kit::{CommonArgs, Service};
use sms::{Label, Message, Model};

/// The model tier of the SMS checker. POST /predict says whether a message is spam.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// Where to listen
    #[arg(long, env, default_value = "0.0.0.0:8081")]
    pub listen_addr: SocketAddr,

    /// The model artefact
    #[arg(long, env)]
    pub model_file: PathBuf,

    /// The SHA-256 that the artefact must have
    #[arg(long, env)]
    pub model_sha256: Option<String>,

    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The service. It exists only with a sound model.
pub fn router(args: &Args) -> anyhow::Result<Router> {
    let model = artefact::load(&args.model_file, args.model_sha256.as_deref())?;
    let service = Service::new("model-service", args.common.version.clone())?;
    let predictions = IntCounterVec::new(
        Opts::new("sms_predictions_total", "Predictions by result."),
        &["result"],
    )?;
    service.registry().register(Box::new(predictions.clone()))?;
    let routes = Router::new()
        .route("/predict", post(predict))
        .with_state(Arc::new(Classifier { model, predictions }));
    Ok(service.router(routes, args.common.request_timeout))
}

struct Classifier {
    model: Model,
    predictions: IntCounterVec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sms: Message,
}

#[derive(Serialize)]
struct Answer {
    result: Label,
    classifier: String,
    sms: Message,
}

async fn predict(
    State(classifier): State<Arc<Classifier>>,
    service_kit::Json(Question { sms }): service_kit::Json<Question>,
) -> Json<Answer> {
    let result = classifier.model.classify(sms.as_str());
    classifier
        .predictions
        .with_label_values(&[result.as_str()])
        .inc();
    let classifier = classifier.model.name().to_owned();
    Json(Answer {
        result,
        classifier,
        sms,
    })
}
