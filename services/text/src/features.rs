//! From text to numbers.
//!
//! Features are hashed, so an artefact holds weights of numbered buckets and no words of anybody's
//! messages. Digits become `0` first: which number a message names says nothing about the next one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which features a model looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Features {
    /// How often each word occurs.
    WordCounts,
    /// Words, pairs of words and runs of two to four characters, each dampened by the logarithm
    /// of its count; the whole of length 1, so that long messages do not weigh more.
    WordsAndGrams,
}

impl Features {
    /// The features of `text` as (bucket, value), by ascending bucket below `dimensions`.
    pub fn extract(self, text: &str, dimensions: u32) -> Vec<(usize, f64)> {
        let mut counts = BTreeMap::new();
        let mut count = |kind: &str, feature: &str| {
            *counts
                .entry(bucket(kind, feature, dimensions))
                .or_insert(0.0) += 1.0;
        };
        let text = normalise(text);
        match self {
            Self::WordCounts => {
                for word in words(&text) {
                    count("word", word);
                }
                counts.into_iter().collect()
            }
            Self::WordsAndGrams => {
                let words: Vec<_> = words(&text).collect();
                for word in &words {
                    count("word", word);
                }
                for pair in words.windows(2) {
                    count("pair", &pair.join(" "));
                }
                let padded: Vec<_> = format!(" {text} ").chars().collect();
                for length in 2..=4 {
                    for gram in padded.windows(length) {
                        count("gram", &gram.iter().collect::<String>());
                    }
                }
                unit_length(counts.into_iter().map(|(i, n): (_, f64)| (i, 1.0 + n.ln())))
            }
        }
    }
}

/// The text as models see it: lower case, every digit `0`, single spaces.
///
/// Two messages that are the same after this are the same message.
pub fn normalise(text: &str) -> String {
    let text: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_numeric() { '0' } else { c })
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The words of a normalised text.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

fn bucket(kind: &str, feature: &str, dimensions: u32) -> usize {
    let key = format!("{kind} {feature}");
    // Reading from memory cannot fail.
    let hash = murmur3::murmur3_32(&mut key.as_bytes(), 0).unwrap_or_default();
    (hash % dimensions.max(1)) as usize
}

fn unit_length(values: impl Iterator<Item = (usize, f64)>) -> Vec<(usize, f64)> {
    let mut values: Vec<_> = values.collect();
    let length = values.iter().map(|(_, v)| v * v).sum::<f64>().sqrt();
    if length > 0.0 {
        for (_, value) in &mut values {
            *value /= length;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Features; 2] = [Features::WordCounts, Features::WordsAndGrams];

    #[test]
    fn case_spacing_and_digits_do_not_matter() {
        for features in BOTH {
            assert_eq!(
                features.extract("Call 0800 123\n NOW", 4096),
                features.extract("call 0999  888 now", 4096),
            );
        }
    }

    #[test]
    fn word_counts_count_words_whatever_their_order() {
        let features = Features::WordCounts.extract("win a prize, win!", 4096);
        let mut values: Vec<_> = features.iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        assert_eq!(values, [1.0, 1.0, 2.0]);
        assert_eq!(
            features,
            Features::WordCounts.extract("prize win win a", 4096)
        );
    }

    #[test]
    fn grams_have_length_one_whatever_the_message() {
        for text in ["a", "hi there", &"long ".repeat(400)] {
            let features = Features::WordsAndGrams.extract(text, 4096);
            let length: f64 = features.iter().map(|(_, value)| value * value).sum();
            assert!((length - 1.0).abs() < 1e-9, "{length}");
        }
    }

    #[test]
    fn buckets_are_in_order_and_in_range() {
        for features in BOTH {
            let buckets: Vec<_> = features
                .extract("£1000 prize! 獎品 \u{0} \u{1F600}", 7)
                .into_iter()
                .map(|(bucket, _)| bucket)
                .collect();
            assert!(buckets.is_sorted_by(|a, b| a < b) && buckets.iter().all(|b| *b < 7));
        }
    }

    #[test]
    fn a_text_without_words_has_features_only_as_characters() {
        assert!(Features::WordCounts.extract("?!", 64).is_empty());
        assert!(!Features::WordsAndGrams.extract("?!", 64).is_empty());
    }
}
