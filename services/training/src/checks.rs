//! What must hold of the data before anything is trained on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use anyhow::{bail, ensure};
use text::{Class, Task, normalise, words};

use crate::data::{DataSet, Example, Split};

/// What is allowed, as shares.
struct Limits {
    positive: RangeInclusive<f64>,
    duplicates: f64,
    near_copies: f64,
}

fn limits(task: Task) -> Limits {
    match task {
        // Spammers send one text in many copies.
        Task::SmsSpam => Limits {
            positive: 0.05..=0.40,
            duplicates: 0.10,
            near_copies: 0.10,
        },
        Task::ReviewSentiment => Limits {
            positive: 0.40..=0.60,
            duplicates: 0.02,
            near_copies: 0.02,
        },
    }
}

/// Checks balance, duplicates and leakage, and says all that is wrong at once. (The schema is checked
/// where lines are parsed.)
pub fn check(data: &DataSet, split: &Split) -> anyhow::Result<()> {
    let limits = limits(data.task);
    let mut faults = Vec::new();
    let mut fault = |holds: bool, what: &str, share: f64, allowed: &str| {
        if !holds {
            faults.push(format!("{what}: {}; allowed is {allowed}", percent(share)));
        }
    };
    let positive = data.examples.iter().filter(|e| e.class == Class::Positive);
    let positive = share(positive.count(), data.examples.len());
    let label = data.task.label(Class::Positive);
    let (least, most) = (limits.positive.start(), limits.positive.end());
    fault(
        limits.positive.contains(&positive),
        &format!("balance: {label} among distinct texts"),
        positive,
        &format!("{} to {}", percent(*least), percent(*most)),
    );
    let duplicates = share(data.lines - data.examples.len(), data.lines);
    fault(
        duplicates <= limits.duplicates,
        "duplicates: lines whose text had occurred before",
        duplicates,
        &format!("up to {}", percent(limits.duplicates)),
    );
    let near = share(near_copies(split), split.test.len());
    fault(
        near <= limits.near_copies,
        "leakage: texts measured on that are nearly one trained on",
        near,
        &format!("up to {}", percent(limits.near_copies)),
    );
    if let Err(leak) = no_leak(split) {
        faults.push(leak.to_string());
    }
    ensure!(
        faults.is_empty(),
        "the data is not fit:\n{}",
        faults.join("\n")
    );
    Ok(())
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// No text that is measured on, apart from case, spacing and digits, is trained on.
pub fn no_leak(split: &Split) -> anyhow::Result<()> {
    let train: BTreeSet<_> = split.train.iter().map(|e| normalise(&e.text)).collect();
    let leaked = |example: &&Example| train.contains(&normalise(&example.text));
    match split.test.iter().filter(leaked).count() {
        0 => Ok(()),
        leaks => {
            bail!("leakage: {leaks} texts measured on are trained on as well; allowed is none")
        }
    }
}

/// How many texts that are measured on share four fifths or more of their words with one that is
/// trained on, by Jaccard's index. They make figures look better than strangers' texts would.
pub fn near_copies(split: &Split) -> usize {
    let train: Vec<_> = split.train.iter().map(vocabulary).collect();
    // Texts trained on, by word: only those that share one can be near.
    let mut by_word: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, words) in train.iter().enumerate() {
        for word in words {
            by_word.entry(word).or_default().push(index);
        }
    }
    let near = |example: &&Example| {
        let words = vocabulary(example);
        let mut shared = vec![0; train.len()];
        for index in words
            .iter()
            .filter_map(|w| by_word.get(w.as_str()))
            .flatten()
        {
            shared[*index] += 1;
        }
        shared.iter().zip(&train).any(|(shared, other)| {
            let union = words.len() + other.len() - shared;
            *shared > 0 && shared * 5 >= union * 4
        })
    };
    split.test.iter().filter(near).count()
}

fn vocabulary(example: &Example) -> BTreeSet<String> {
    words(&normalise(&example.text))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::File;

    fn checked(task: Task, lines: &[String]) -> Result<(), String> {
        let bytes = lines.join("\n").into_bytes();
        let name = "data".to_owned();
        let data = DataSet::parse(task, &[File { name, bytes }]).expect("the schema holds");
        let split = data.split().expect("enough");
        check(&data, &split).map_err(|error| error.to_string())
    }

    /// Lines whose words nobody else has.
    fn lines(label: &str, count: usize) -> Vec<String> {
        let line = |n| format!("{label}\t{label}{} {label}", "x".repeat(n));
        (1..=count).map(line).collect()
    }

    fn messages(ham: usize, spam: usize) -> Vec<String> {
        [lines("ham", ham), lines("spam", spam)].concat()
    }

    #[test]
    fn fit_data_passes() {
        assert_eq!(checked(Task::SmsSpam, &messages(80, 20)), Ok(()));
    }

    #[test]
    fn too_much_or_too_little_spam_is_refused() {
        let error = checked(Task::SmsSpam, &messages(100, 5)).expect_err("4.8 %");
        assert_eq!(
            error,
            "the data is not fit:\n\
             balance: spam among distinct texts: 4.8 %; allowed is 5.0 % to 40.0 %"
        );
        assert!(checked(Task::SmsSpam, &messages(50, 40)).is_err());
    }

    #[test]
    fn too_many_duplicates_are_refused() {
        let mut data = messages(80, 20);
        data.extend(lines("ham", 11));
        assert!(checked(Task::SmsSpam, &data).is_ok(), "9.9 %");
        data.extend(lines("ham", 1));
        let error = checked(Task::SmsSpam, &data).expect_err("10.7 %");
        assert!(
            error.contains("duplicates") && error.contains("10.7 %"),
            "{error}"
        );
    }

    #[test]
    fn too_many_near_copies_are_refused() {
        // Nine words of ten are the same: each is the near copy of all others.
        let offer = |n| format!("spam\ta b c d e f g h i {}", "x".repeat(n));
        let mut data = lines("ham", 60);
        data.extend((1..=20).map(offer));
        let error = checked(Task::SmsSpam, &data).expect_err("4 of 16");
        assert!(error.contains("nearly one trained on: 25.0 %"), "{error}");
    }

    #[test]
    fn all_faults_are_said_at_once() {
        let mut data = messages(100, 5);
        data.extend(lines("ham", 50));
        let error = checked(Task::SmsSpam, &data).expect_err("two faults");
        assert!(
            error.contains("balance") && error.contains("duplicates"),
            "{error}"
        );
    }

    #[test]
    fn a_text_on_both_sides_is_a_leak() {
        let example = |text: &str| Example {
            class: Class::Negative,
            text: text.to_owned(),
        };
        let mut split = Split {
            train: vec![example("See you at 6")],
            test: vec![example("see me at 6")],
        };
        assert!(no_leak(&split).is_ok());
        split.test.push(example("see you  at 7"));
        let error = no_leak(&split).expect_err("one leaks");
        assert!(error.to_string().contains("1 texts measured on"), "{error}");
    }

    #[test]
    fn nearness_is_the_share_of_common_words() {
        let near = |train: &str, test: &str| {
            let example = |text: &str| Example {
                class: Class::Negative,
                text: text.to_owned(),
            };
            let (train, test) = (vec![example(train)], vec![example(test)]);
            near_copies(&Split { train, test }) == 1
        };
        assert!(near("a b c d", "d, c, b, a!"));
        assert!(near("a b c d", "a b c d e"));
        assert!(!near("a b c d", "a b c e"));
        assert!(!near("a", "b"));
        assert!(!near("?", "!"));
    }
}
