//! The simple model: multinomial naive Bayes over word counts.
//!
//! Written out because it is a closed form of a few lines: linfa-bayes keeps its probabilities
//! private and prints them with `dbg!`.

use sms::{Features, Label, Model};

use crate::data::Example;

const DIMENSIONS: u16 = 4096;
const FEATURES: Features = Features::WordCounts;

/// Laplace's rule: every word was seen once more than it was.
const SMOOTHING: f64 = 1.0;

/// Trains the model.
///
/// The log of the ratio of two products of probabilities is a sum of weights: a linear model.
pub fn train(examples: &[Example]) -> Model {
    let spam = Class::of(examples, Label::Spam);
    let ham = Class::of(examples, Label::Ham);
    let weights: Vec<_> = (spam.log_probabilities().zip(ham.log_probabilities()))
        .map(|(spam, ham)| spam - ham)
        .collect();
    let bias = (spam.messages / ham.messages).ln();
    Model::new("naive-bayes", FEATURES, bias, &weights)
}

struct Class {
    messages: f64,
    counts: Vec<f64>,
}

impl Class {
    fn of(examples: &[Example], label: Label) -> Self {
        let mut class = Self {
            messages: 0.0,
            counts: vec![SMOOTHING; DIMENSIONS.into()],
        };
        for example in examples.iter().filter(|e| e.label == label) {
            class.messages += 1.0;
            for (bucket, count) in FEATURES.extract(&example.text, DIMENSIONS.into()) {
                class.counts[bucket] += count;
            }
        }
        class
    }

    fn log_probabilities(&self) -> impl Iterator<Item = f64> {
        let total: f64 = self.counts.iter().sum();
        self.counts.iter().map(move |count| (count / total).ln())
    }
}
