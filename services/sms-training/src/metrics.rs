//! How good a model is, as numbers and as a table.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sms::{Label, Model};

use crate::data::{Counts, Example};

/// The contents of `metrics.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The SHA-256 of the data set.
    pub data_sha256: String,
    /// What became of its lines.
    pub data: Counts,
    /// The models, measured on the part of the data that they have not seen.
    pub models: Vec<Figures>,
}

/// How one model did.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// The version of the service that carries it.
    pub version: String,
    /// The kind of model.
    pub model: String,
    /// Spam called spam.
    pub spam_found: u32,
    /// Spam called ham.
    pub spam_missed: u32,
    /// Ham called spam.
    pub ham_blocked: u32,
    /// Ham called ham.
    pub ham_passed: u32,
    /// The share of right answers.
    pub accuracy: f64,
    /// The share of spam among what was called spam.
    pub precision: f64,
    /// The share of spam that was found.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
}

impl Figures {
    /// Asks `model` about every example.
    pub fn measure(version: &str, model: &Model, examples: &[Example]) -> Self {
        let count = |truth: Label, answer: Label| -> u32 {
            examples
                .iter()
                .filter(|e| e.label == truth && model.classify(&e.text) == answer)
                .map(|_| 1)
                .sum()
        };
        let spam_found = count(Label::Spam, Label::Spam);
        let spam_missed = count(Label::Spam, Label::Ham);
        let ham_blocked = count(Label::Ham, Label::Spam);
        let ham_passed = count(Label::Ham, Label::Ham);
        let right = spam_found + ham_passed;
        let wrong = spam_missed + ham_blocked;
        Self {
            version: version.to_owned(),
            model: model.name().to_owned(),
            spam_found,
            spam_missed,
            ham_blocked,
            ham_passed,
            accuracy: share(right, right + wrong),
            precision: share(spam_found, spam_found + ham_blocked),
            recall: share(spam_found, spam_found + spam_missed),
            f1: share(2 * spam_found, 2 * spam_found + wrong),
        }
    }
}

/// To four decimals, as it is printed.
fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (f64::from(part) / f64::from(whole) * 1e4).round() / 1e4
}

impl Metrics {
    /// What became of the data, in a sentence.
    pub fn summary(&self) -> String {
        let Counts {
            lines,
            duplicates,
            train,
            train_spam,
            test,
            test_spam,
        } = self.data;
        format!(
            "{lines} lines, {duplicates} duplicates dropped; {train} messages to train on \
             ({train_spam} spam), {test} to measure on ({test_spam} spam)"
        )
    }

    /// The figures, the positive class being spam.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| version | model | accuracy | precision | recall | F1 | spam found | spam missed | ham blocked | ham passed |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for f in &self.models {
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {} | {} | {:.4} | {:.4} | {:.4} | {:.4} | {} | {} | {} | {} |",
                f.version,
                f.model,
                f.accuracy,
                f.precision,
                f.recall,
                f.f1,
                f.spam_found,
                f.spam_missed,
                f.ham_blocked,
                f.ham_passed
            );
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use sms::Features;

    use super::*;

    /// Calls everything `label`.
    fn constant(label: Label) -> Model {
        let bias = if label == Label::Spam { 1.0 } else { -1.0 };
        Model::new("constant", Features::WordCounts, bias, &[0.0])
    }

    fn examples() -> Vec<Example> {
        [Label::Spam, Label::Ham, Label::Ham, Label::Ham]
            .map(|label| Example {
                label,
                text: "text".to_owned(),
            })
            .to_vec()
    }

    #[test]
    fn figures_follow_from_the_confusion_matrix() {
        let f = Figures::measure("stable", &constant(Label::Spam), &examples());
        assert_eq!(
            (f.spam_found, f.spam_missed, f.ham_blocked, f.ham_passed),
            (1, 0, 3, 0)
        );
        assert_eq!(
            (f.accuracy, f.precision, f.recall, f.f1),
            (0.25, 0.25, 1.0, 0.4)
        );
    }

    #[test]
    fn a_model_that_finds_no_spam_has_zeros_and_no_nan() {
        let f = Figures::measure("stable", &constant(Label::Ham), &examples());
        assert_eq!(
            (f.accuracy, f.precision, f.recall, f.f1),
            (0.75, 0.0, 0.0, 0.0)
        );
    }
}
