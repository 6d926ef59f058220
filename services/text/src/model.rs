//! A linear model and its artefact: the JSON file that training writes and serving loads.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Class, Features, Task};

/// The artefact format that this code reads and writes.
pub const FORMAT: u32 = 1;

/// One weight per bucket; a score above zero is the positive class, and the score itself its log odds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    format: u32,
    /// The first artefacts say none: there was one task.
    #[serde(default = "first_task", skip_serializing_if = "is_first_task")]
    task: Task,
    name: String,
    features: Features,
    dimensions: u32,
    bias: f64,
    weights: Vec<f64>,
}

fn first_task() -> Task {
    Task::SmsSpam
}

fn is_first_task(task: &Task) -> bool {
    *task == first_task()
}

/// What a model makes of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The more likely class.
    pub class: Class,
    /// How likely it is, as far as the model can tell: 0.5 to 1, to four decimals.
    pub confidence: f64,
}

impl Model {
    /// A model whose numbers are rounded to two decimals: what is measured is what is shipped.
    pub fn new(task: Task, name: &str, features: Features, bias: f64, weights: &[f64]) -> Self {
        // Adding zero turns -0.0 into 0.0.
        let round = |x: f64| (x * 1e2).round() / 1e2 + 0.0;
        Self {
            format: FORMAT,
            task,
            name: name.to_owned(),
            features,
            dimensions: u32::try_from(weights.len()).unwrap_or(u32::MAX),
            bias: round(bias),
            weights: weights.iter().copied().map(round).collect(),
        }
    }

    /// Reads an artefact and checks that it is whole.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidModel> {
        /// Read alone first: an artefact of another format need not have our fields.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(InvalidModel::json)?;
        if format != FORMAT {
            return Err(InvalidModel(format!(
                "format {format}; this service reads format {FORMAT}"
            )));
        }
        let model: Self = serde_json::from_slice(bytes).map_err(InvalidModel::json)?;
        let (dimensions, weights) = (model.dimensions, model.weights.len());
        if dimensions == 0 || usize::try_from(dimensions) != Ok(weights) {
            return Err(InvalidModel(format!(
                "{weights} weights for {dimensions} dimensions; there must be one for each, and at least one"
            )));
        }
        if model.name.is_empty() {
            return Err(InvalidModel("the name is empty".to_owned()));
        }
        Ok(model)
    }

    /// The artefact.
    pub fn to_json(&self) -> Result<Vec<u8>, InvalidModel> {
        let mut json = serde_json::to_vec(self).map_err(InvalidModel::json)?;
        json.push(b'\n');
        Ok(json)
    }

    /// The kind of model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is trained for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// What `text` is.
    pub fn predict(&self, text: &str) -> Prediction {
        let score = self.score(text);
        let class = match score > 0.0 {
            true => Class::Positive,
            false => Class::Negative,
        };
        let likely = 1.0 / (1.0 + (-score.abs()).exp());
        let confidence = (likely * 1e4).round() / 1e4;
        Prediction { class, confidence }
    }

    /// The log odds that `text` is of the positive class, as far as the model can tell.
    fn score(&self, text: &str) -> f64 {
        self.features
            .extract(text, self.dimensions)
            .into_iter()
            .fold(self.bias, |score, (bucket, value)| {
                score + value * self.weights.get(bucket).copied().unwrap_or_default()
            })
    }
}

/// The SHA-256 of `bytes` in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Why an artefact is not a model.
#[derive(Debug)]
pub struct InvalidModel(String);

impl InvalidModel {
    fn json(error: serde_json::Error) -> Self {
        Self(format!("not a model artefact: {error}"))
    }
}

impl fmt::Display for InvalidModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidModel {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spam is whatever says "win".
    fn model() -> Model {
        let features = Features::WordCounts;
        let mut weights = [0.0; 64];
        for (bucket, _) in features.extract("win", 64) {
            weights[bucket] = 2.0;
        }
        Model::new(Task::SmsSpam, "test", features, -1.0, &weights)
    }

    fn error(json: &str) -> String {
        Model::from_json(json.as_bytes())
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn an_artefact_survives_writing_and_reading() {
        let json = model().to_json().expect("writable");
        assert_eq!(Model::from_json(&json).expect("readable"), model());
    }

    #[test]
    fn the_sign_of_the_score_decides() {
        let class = |text| model().predict(text).class;
        assert_eq!(class("You WIN!"), Class::Positive);
        assert_eq!(class("see you at home"), Class::Negative);
        assert_eq!(class(""), Class::Negative);
    }

    #[test]
    fn confidence_is_the_likelihood_of_the_class_that_is_told() {
        let confidence = |text| model().predict(text).confidence;
        // Scores of 1, -1 and 1999.
        assert_eq!(confidence("win"), 0.7311);
        assert_eq!(confidence(""), 0.7311);
        assert_eq!(confidence(&"win ".repeat(1000)), 1.0);
        let unsure = Model::new(Task::SmsSpam, "test", Features::WordCounts, 0.0, &[0.0]);
        assert_eq!(
            unsure.predict("win"),
            Prediction {
                class: Class::Negative,
                confidence: 0.5
            }
        );
    }

    #[test]
    fn an_artefact_says_its_task_unless_it_is_the_first_one() {
        for (task, written) in [
            (Task::SmsSpam, None),
            (Task::ReviewSentiment, Some(r#""task":"review-sentiment","#)),
        ] {
            let model = Model::new(task, "test", Features::WordCounts, 0.0, &[0.0]);
            let json = model.to_json().expect("writable");
            let text = String::from_utf8_lossy(&json);
            match written {
                Some(written) => assert!(text.contains(written), "{text}"),
                None => assert!(!text.contains("task"), "{text}"),
            }
            assert_eq!(Model::from_json(&json).expect("readable").task(), task);
        }
        let unknown = r#"{"format":1,"task":"weather","name":"x","features":"word-counts","dimensions":1,"bias":0,"weights":[1]}"#;
        let error = error(unknown);
        assert!(
            error.contains("`weather`, expected `sms-spam` or `review-sentiment`"),
            "{error}"
        );
    }

    #[test]
    fn numbers_are_written_with_at_most_two_decimals_and_no_negative_zero() {
        let model = Model::new(
            Task::ReviewSentiment,
            "test",
            Features::WordCounts,
            0.123_456,
            &[-0.001, 1.0 / 3.0],
        );
        let json = String::from_utf8(model.to_json().expect("writable")).expect("JSON is UTF-8");
        assert!(
            json.contains(r#""bias":0.12,"weights":[0.0,0.33]"#),
            "{json}"
        );
    }

    #[test]
    fn another_format_is_named_even_when_its_fields_are_unknown() {
        assert_eq!(
            error(r#"{"format":2,"trees":[]}"#),
            "format 2; this service reads format 1"
        );
    }

    #[test]
    fn missing_weights_are_refused() {
        let json = |dimensions: u32, weights: &str| {
            format!(
                r#"{{"format":1,"name":"x","features":"word-counts","dimensions":{dimensions},"bias":0.0,"weights":{weights}}}"#
            )
        };
        assert!(error(&json(3, "[1.0,2.0]")).starts_with("2 weights for 3 dimensions"));
        assert!(error(&json(0, "[]")).starts_with("0 weights for 0 dimensions"));
        assert!(error(&json(1, "[1e999]")).contains("number out of range"));
        assert!(Model::from_json(json(1, "[1.5]").as_bytes()).is_ok());
    }

    #[test]
    fn what_is_not_an_artefact_is_refused() {
        for junk in ["", "null", "[]", "{}", "<html>"] {
            assert!(error(junk).starts_with("not a model artefact: "), "{junk}");
        }
    }

    #[test]
    fn sha256_is_the_one_of_sha256sum() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
