//! The models that are compared, and which of them is shipped in which version.

use text::{Class, Features, Model, Task};

use crate::data::Example;
use crate::{Weights, linear, naive_bayes};

/// The versions that carry a model: the simple one, the best one by cross-validation, and another that
/// is tried out on copies of requests.
pub const VERSIONS: [&str; 3] = ["stable", "canary", "shadow"];

/// A kind of model with its settings.
#[derive(Clone, Copy)]
pub struct Candidate {
    /// The version of the service that carries it; `None` if it is only compared.
    pub version: Option<&'static str>,
    /// What it looks at.
    pub features: Features,
    /// In how many buckets.
    pub dimensions: u16,
    /// How it is trained.
    pub recipe: Recipe,
}

/// How a model is trained. Penalties draw weights to zero.
#[derive(Clone, Copy)]
pub enum Recipe {
    /// Always the more frequent class: what every other model must beat.
    Majority,
    /// Multinomial naive Bayes.
    NaiveBayes,
    /// Logistic regression.
    Logistic {
        /// L2.
        penalty: f64,
    },
    /// Logistic regression on features that naive Bayes has weighed (Wang and Manning 2012).
    WeighedLogistic {
        /// L2.
        penalty: f64,
    },
    /// A linear support vector machine with Platt's scaling.
    Svm {
        /// L2.
        penalty: f64,
    },
}

impl Recipe {
    /// What the model is called, in its artefact too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::NaiveBayes => "naive-bayes",
            Self::Logistic { .. } => "logistic-regression",
            Self::WeighedLogistic { .. } => "nb-logistic-regression",
            Self::Svm { .. } => "linear-svm",
        }
    }
}

/// The models that are compared for `task`. Settings were chosen among some 40 by cross-validation on
/// the training part.
pub fn candidates(task: Task) -> Vec<Candidate> {
    use Features::{WordCounts, WordsAndGrams};
    use Recipe::{Logistic, Majority, NaiveBayes, Svm, WeighedLogistic};
    let candidate = |version, features, dimensions, recipe| Candidate {
        version,
        features,
        dimensions,
        recipe,
    };
    match task {
        Task::SmsSpam => vec![
            candidate(None, WordCounts, 1, Majority),
            candidate(Some("stable"), WordCounts, 4096, NaiveBayes),
            candidate(None, WordCounts, 8192, Logistic { penalty: 0.01 }),
            candidate(
                Some("shadow"),
                WordsAndGrams,
                8192,
                Logistic { penalty: 0.01 },
            ),
            candidate(None, WordsAndGrams, 8192, WeighedLogistic { penalty: 0.02 }),
            candidate(Some("canary"), WordsAndGrams, 8192, Svm { penalty: 0.5 }),
        ],
        Task::ReviewSentiment => vec![
            candidate(None, WordCounts, 1, Majority),
            candidate(Some("stable"), WordCounts, 8192, NaiveBayes),
            candidate(None, WordCounts, 32768, Logistic { penalty: 0.5 }),
            candidate(
                Some("shadow"),
                WordsAndGrams,
                32768,
                Logistic { penalty: 0.1 },
            ),
            candidate(
                Some("canary"),
                WordsAndGrams,
                32768,
                WeighedLogistic { penalty: 0.05 },
            ),
            candidate(None, WordsAndGrams, 32768, Svm { penalty: 2.0 }),
        ],
    }
}

impl Candidate {
    /// Trains it.
    pub fn train(&self, task: Task, examples: &[Example]) -> anyhow::Result<Model> {
        let Self {
            features,
            dimensions,
            ..
        } = *self;
        let weights = match self.recipe {
            Recipe::Majority => majority(examples, dimensions),
            Recipe::NaiveBayes => naive_bayes::train(examples, features, dimensions)?,
            Recipe::Logistic { penalty } => {
                linear::logistic(examples, features, dimensions, penalty)?
            }
            Recipe::WeighedLogistic { penalty } => {
                linear::weighed_logistic(examples, features, dimensions, penalty)?
            }
            Recipe::Svm { penalty } => linear::svm(examples, features, dimensions, penalty)?,
        };
        let Weights { bias, weights } = weights;
        Ok(Model::new(
            task,
            self.recipe.name(),
            features,
            bias,
            &weights,
        ))
    }
}

fn majority(examples: &[Example], dimensions: u16) -> Weights {
    let positive = examples.iter().filter(|e| e.class == Class::Positive);
    let share = positive.count() as f64 / examples.len().max(1) as f64;
    Weights {
        bias: if share > 0.5 { 1.0 } else { -1.0 },
        weights: vec![0.0; dimensions.into()],
    }
}
