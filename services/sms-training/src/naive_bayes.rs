//! The simple model: multinomial naive Bayes over word counts.

use anyhow::bail;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::naive_bayes::multinomial::{MultinomialNB, MultinomialNBParameters};
use sms::{Features, Label, Model};

use crate::data::Example;

const DIMENSIONS: u16 = 4096;
const FEATURES: Features = Features::WordCounts;

/// Laplace's rule: every word was seen once more than it was.
const SMOOTHING: f64 = 1.0;

/// Trains the model.
///
/// The log of the ratio of two products of probabilities is a sum of weights: a linear model.
pub fn train(examples: &[Example]) -> anyhow::Result<Model> {
    let parameters = MultinomialNBParameters::default().with_alpha(SMOOTHING);
    let fitted = MultinomialNB::fit(&counts(examples)?, &classes(examples), parameters)?;
    // In the order of the classes' numbers. The priors are not public; their ratio is that of these.
    let ([ham_messages, spam_messages], [ham, spam]) = (
        fitted.class_count().as_slice(),
        fitted.feature_log_prob().as_slice(),
    ) else {
        bail!("naive Bayes: there must be both spam and ham");
    };
    let bias = (*spam_messages as f64 / *ham_messages as f64).ln();
    let weights: Vec<_> = spam.iter().zip(ham).map(|(spam, ham)| spam - ham).collect();
    Ok(Model::new("naive-bayes", FEATURES, bias, &weights))
}

/// One row per message, one column per bucket.
fn counts(examples: &[Example]) -> anyhow::Result<DenseMatrix<u32>> {
    let columns = usize::from(DIMENSIONS);
    let mut counts = vec![0; examples.len() * columns];
    for (row, example) in counts.chunks_exact_mut(columns).zip(examples) {
        for (bucket, count) in FEATURES.extract(&example.text, DIMENSIONS.into()) {
            row[bucket] = count as u32;
        }
    }
    let column_major = false;
    Ok(DenseMatrix::new(
        examples.len(),
        columns,
        counts,
        column_major,
    )?)
}

/// Ham is 0, spam is 1.
fn classes(examples: &[Example]) -> Vec<u32> {
    examples
        .iter()
        .map(|example| u32::from(example.label == Label::Spam))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_label_alone_is_an_error() {
        for label in [Label::Spam, Label::Ham] {
            let text = "win a prize".to_owned();
            let error = train(&[Example { label, text }]).expect_err("must be refused");
            assert_eq!(
                error.to_string(),
                "naive Bayes: there must be both spam and ham"
            );
        }
    }
}
