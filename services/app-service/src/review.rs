//! The API of sentiment review: is a review favourable, and does its author agree?

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prometheus::{IntCounter, Registry};
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use service_kit::Problem;
use text::Message;

use crate::bucket::Outcomes;
use crate::model::ModelClient;
use crate::pending::Pending;

struct Reviews {
    model: ModelClient,
    shows_confidence: bool,
    submitted: IntCounter,
    predictions: Outcomes,
    confirmations: Outcomes,
    overrides: Outcomes,
    pending: Pending,
}

/// The routes, which count in `registry`.
pub(crate) fn routes(
    registry: &Registry,
    model: ModelClient,
    shows_confidence: bool,
    confirm_within: Duration,
) -> prometheus::Result<Router> {
    let submitted = IntCounter::new("reviews_submitted_total", "Reviews that could be read.")?;
    let [negative, positive] = [Sentiment::Negative, Sentiment::Positive].map(Sentiment::as_str);
    let predictions = Outcomes::register(
        registry,
        "review_predictions_total",
        "Reviews by what they were called.",
        ["label"],
        &[[negative], [positive]],
    )?;
    let confirmations = Outcomes::register(
        registry,
        "review_confirmations_total",
        "Predictions that users confirmed.",
        ["label"],
        &[[negative], [positive]],
    )?;
    let overrides = Outcomes::register(
        registry,
        "review_overrides_total",
        "Predictions that users corrected, by what they said instead.",
        ["original", "corrected"],
        &[[negative, positive], [positive, negative]],
    )?;
    let pending = Pending::new(confirm_within)?;
    registry.register(Box::new(submitted.clone()))?;
    registry.register(Box::new(pending.clone()))?;
    let reviews = Reviews {
        model,
        shows_confidence,
        submitted,
        predictions,
        confirmations,
        overrides,
        pending,
    };
    Ok(Router::new()
        .route("/predict-sentiment-review", post(predict))
        .route("/reviews/confirm", post(confirm))
        .with_state(Arc::new(reviews)))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    review: Message,
}

/// What the model makes of a review.
#[derive(Deserialize)]
struct Prediction {
    prediction: Sentiment,
    confidence: f64,
}

#[derive(Serialize)]
struct Answer {
    prediction: Sentiment,
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction_confidence: Option<f64>,
}

async fn predict(
    State(reviews): State<Arc<Reviews>>,
    headers: HeaderMap,
    service_kit::Json(question): service_kit::Json<Question>,
) -> Response {
    reviews.submitted.inc();
    let reply = reviews.model.ask(&question, &headers).await;
    reply.answer(
        |Prediction {
             prediction,
             confidence,
         }| {
            reviews.predictions.count([prediction.as_str()], &headers);
            reviews.pending.begin(prediction);
            axum::Json(Answer {
                prediction,
                prediction_confidence: reviews.shows_confidence.then_some(confidence),
            })
            .into_response()
        },
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Verdict {
    action: Action,
    original_label: Sentiment,
    corrected_label: Option<Sentiment>,
}

async fn confirm(
    State(reviews): State<Arc<Reviews>>,
    headers: HeaderMap,
    service_kit::Json(verdict): service_kit::Json<Verdict>,
) -> Result<StatusCode, Problem> {
    let Verdict {
        action,
        original_label: original,
        corrected_label: corrected,
    } = verdict;
    match (action, corrected) {
        (Action::Confirm, Some(corrected)) if corrected != original => {
            return Err(unprocessable(
                "correctedLabel: allowed with confirm is none, or the originalLabel",
            ));
        }
        (Action::Confirm, _) => {
            reviews.confirmations.count([original.as_str()], &headers);
        }
        (Action::Override, Some(corrected)) if corrected != original => {
            let labels = [original.as_str(), corrected.as_str()];
            reviews.overrides.count(labels, &headers);
        }
        (Action::Override, _) => {
            return Err(unprocessable(
                "correctedLabel: allowed with override is the label other than originalLabel",
            ));
        }
    }
    reviews.pending.end(original);
    Ok(StatusCode::NO_CONTENT)
}

fn unprocessable(detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// What a user says of a prediction.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
enum Action {
    /// It is right.
    Confirm,
    /// Another label is.
    Override,
}

impl TryFrom<String> for Action {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "confirm" => Ok(Self::Confirm),
            "override" => Ok(Self::Override),
            _ => Err(format!("{text:?}: allowed are confirm and override")),
        }
    }
}

/// What a review is called: 1 for a favourable one, else 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sentiment {
    Negative,
    Positive,
}

impl Sentiment {
    /// As in metrics, the model's own included.
    fn as_str(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::Positive => "positive",
        }
    }
}

impl Serialize for Sentiment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(u8::from(*self == Self::Positive))
    }
}

impl<'de> Deserialize<'de> for Sentiment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ZeroOrOne;

        impl Visitor<'_> for ZeroOrOne {
            type Value = Sentiment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("0 or 1")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Sentiment, E> {
                match number {
                    0 => Ok(Sentiment::Negative),
                    1 => Ok(Sentiment::Positive),
                    _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
                }
            }
        }

        deserializer.deserialize_u64(ZeroOrOne)
    }
}
