//! The model at work: its routes, and what is counted of its answers.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use service_kit::request_id;
use text::{Class, Label, Message, Model, Prediction, Task};

use crate::artefact::Artefact;
use crate::comparison::Comparison;

/// Seconds. Twenty characters take a few microseconds, two thousand a millisecond.
const INFERENCE_BUCKETS: [f64; 9] = [1e-6, 5e-6, 2e-5, 5e-5, 1e-4, 5e-4, 2e-3, 1e-2, 1e-1];

const CONFIDENCE_BUCKETS: [f64; 7] = [0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

pub(crate) struct Classifier {
    model: Model,
    predictions: IntCounterVec,
    confidence: HistogramVec,
    inference: Histogram,
    comparison: Option<Comparison>,
}

impl Classifier {
    /// A classifier that counts in `registry`.
    pub(crate) fn register(
        registry: &Registry,
        artefact: Artefact,
        comparison: Option<Comparison>,
    ) -> prometheus::Result<Self> {
        artefact.register_info(registry, "model_info", "The model that serves; always 1.")?;
        let model = artefact.model;
        let predictions = IntCounterVec::new(
            Opts::new("model_predictions_total", "Predictions by label."),
            &["label"],
        )?;
        let confidence = HistogramVec::new(
            HistogramOpts::new("model_confidence", "How sure the model was, by label.")
                .buckets(CONFIDENCE_BUCKETS.to_vec()),
            &["label"],
        )?;
        let inference = Histogram::with_opts(
            HistogramOpts::new("model_inference_seconds", "Time from a text to its label.")
                .buckets(INFERENCE_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(predictions.clone()))?;
        registry.register(Box::new(confidence.clone()))?;
        registry.register(Box::new(inference.clone()))?;
        let task = model.task();
        for class in Class::BOTH {
            // There before the first, or its increase could not be seen.
            predictions.with_label_values(&[task.label(class)]);
        }
        Ok(Self {
            model,
            predictions,
            confidence,
            inference,
            comparison,
        })
    }

    /// The route of the model's task. That of another task does not exist.
    pub(crate) fn routes(self) -> Router {
        let route = match self.model.task() {
            Task::SmsSpam => Router::new().route("/predict", post(predict_sms)),
            Task::ReviewSentiment => Router::new().route("/v1/predict", post(predict_review)),
        };
        route.with_state(Arc::new(self))
    }

    fn predict(&self, text: &Message, headers: &HeaderMap) -> Prediction {
        let start = Instant::now();
        let prediction = self.model.predict(text.as_str());
        self.inference.observe(start.elapsed().as_secs_f64());
        let label = self.model.task().label(prediction.class);
        self.predictions.with_label_values(&[label]).inc();
        self.confidence
            .with_label_values(&[label])
            .observe(prediction.confidence);
        if let Some(comparison) = &self.comparison {
            comparison.compare(text.as_str(), prediction, request_id(headers).as_deref());
        }
        prediction
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SmsQuestion {
    sms: Message,
}

#[derive(Serialize)]
struct SmsAnswer {
    result: Label,
    classifier: String,
    sms: Message,
}

async fn predict_sms(
    State(classifier): State<Arc<Classifier>>,
    headers: HeaderMap,
    service_kit::Json(SmsQuestion { sms }): service_kit::Json<SmsQuestion>,
) -> Json<SmsAnswer> {
    let prediction = classifier.predict(&sms, &headers);
    Json(SmsAnswer {
        result: prediction.class.into(),
        classifier: classifier.model.name().to_owned(),
        sms,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReviewQuestion {
    review: Message,
}

#[derive(Serialize)]
struct ReviewAnswer {
    prediction: u8,
    confidence: f64,
    classifier: String,
}

async fn predict_review(
    State(classifier): State<Arc<Classifier>>,
    headers: HeaderMap,
    service_kit::Json(ReviewQuestion { review }): service_kit::Json<ReviewQuestion>,
) -> Json<ReviewAnswer> {
    let prediction = classifier.predict(&review, &headers);
    Json(ReviewAnswer {
        prediction: u8::from(prediction.class == Class::Positive),
        confidence: prediction.confidence,
        classifier: classifier.model.name().to_owned(),
    })
}
