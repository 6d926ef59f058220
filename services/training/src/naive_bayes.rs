//! The simple model: multinomial naive Bayes.

use anyhow::bail;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::naive_bayes::multinomial::{MultinomialNB, MultinomialNBParameters};
use text::{Class, Features};

use crate::Weights;
use crate::data::Example;

/// Laplace's rule: every word was seen once more than it was.
const SMOOTHING: f64 = 1.0;

/// The log of the ratio of two products of probabilities is a sum of weights: a linear model.
pub(crate) fn train(
    examples: &[Example],
    features: Features,
    dimensions: u16,
) -> anyhow::Result<Weights> {
    let parameters = MultinomialNBParameters::default().with_alpha(SMOOTHING);
    let counts = counts(examples, features, dimensions)?;
    let fitted = MultinomialNB::fit(&counts, &classes(examples), parameters)?;
    // In the order of the classes' numbers. The priors are not public; their ratio is that of these.
    let ([negatives, positives], [negative, positive]) = (
        fitted.class_count().as_slice(),
        fitted.feature_log_prob().as_slice(),
    ) else {
        bail!("naive Bayes: there must be examples of both classes");
    };
    Ok(Weights {
        bias: (*positives as f64 / *negatives as f64).ln(),
        weights: positive.iter().zip(negative).map(|(p, n)| p - n).collect(),
    })
}

/// One row per text, one column per bucket.
fn counts(
    examples: &[Example],
    features: Features,
    dimensions: u16,
) -> anyhow::Result<DenseMatrix<u32>> {
    let columns = usize::from(dimensions);
    let mut counts = vec![0; examples.len() * columns];
    for (row, example) in counts.chunks_exact_mut(columns).zip(examples) {
        for (bucket, count) in features.extract(&example.text, dimensions.into()) {
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

/// The positive class is 1.
fn classes(examples: &[Example]) -> Vec<u32> {
    let number = |example: &Example| u32::from(example.class == Class::Positive);
    examples.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_alone_is_an_error() {
        for class in Class::BOTH {
            let text = "win a prize".to_owned();
            let examples = [Example { class, text }];
            let error = train(&examples, Features::WordCounts, 64).err();
            assert_eq!(
                error.expect("must be refused").to_string(),
                "naive Bayes: there must be examples of both classes"
            );
        }
    }
}
