//! Reading the data set and splitting it.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sms::{Label, normalise};

/// One labelled message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What it is.
    pub label: Label,
    /// The message.
    pub text: String,
}

/// What the models are trained on, and what they are measured on.
#[derive(Debug, PartialEq)]
pub struct Split {
    /// Four fifths.
    pub train: Vec<Example>,
    /// One fifth, of which training sees nothing.
    pub test: Vec<Example>,
    /// How many there are of each.
    pub counts: Counts,
}

/// What became of the lines of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Lines read.
    pub lines: usize,
    /// Lines dropped because their normalised text had occurred before.
    pub duplicates: usize,
    /// Messages trained on.
    pub train: usize,
    /// The spam among them.
    pub train_spam: usize,
    /// Messages measured on.
    pub test: usize,
    /// The spam among them.
    pub test_spam: usize,
}

/// Parses `ham|spam<TAB>text` lines and splits them by distinct normalised text, so that no message
/// is on both sides; each label is split in the same proportion.
///
/// Bytes that are not UTF-8 become U+FFFD: copies of the data set differ in their encoding.
pub fn load(bytes: &[u8]) -> anyhow::Result<Split> {
    let (examples, lines) = parse(bytes)?;
    let duplicates = lines - examples.len();
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for label in [Label::Ham, Label::Spam] {
        let mut of_label: Vec<_> = examples.iter().filter(|(_, e)| e.label == label).collect();
        // The order of a seeded hash is random enough, and does not depend on the file's order.
        of_label.sort_by_key(|(text, _)| (order(text), *text));
        let fifth = of_label.len() / 5;
        ensure!(
            fifth > 0,
            "{} distinct {} messages; at least 5 are needed",
            of_label.len(),
            label.as_str()
        );
        let mut of_label = of_label.into_iter().map(|(_, example)| example.clone());
        test.extend(of_label.by_ref().take(fifth));
        train.extend(of_label);
    }
    let spam = |examples: &[Example]| examples.iter().filter(|e| e.label == Label::Spam).count();
    let counts = Counts {
        lines,
        duplicates,
        train: train.len(),
        train_spam: spam(&train),
        test: test.len(),
        test_spam: spam(&test),
    };
    Ok(Split {
        train,
        test,
        counts,
    })
}

/// The first example of each normalised text, and the number of lines.
fn parse(bytes: &[u8]) -> anyhow::Result<(BTreeMap<String, Example>, usize)> {
    let mut examples: BTreeMap<String, Example> = BTreeMap::new();
    let mut lines = 0;
    for line in String::from_utf8_lossy(bytes).lines() {
        lines += 1;
        let example = parse_line(line).with_context(|| format!("line {lines}"))?;
        let text = normalise(&example.text);
        match examples.get(&text) {
            Some(known) if known.label != example.label => bail!(
                "line {lines}: {}, but the same text was labelled {} before",
                example.label.as_str(),
                known.label.as_str()
            ),
            Some(_) => {}
            None => {
                examples.insert(text, example);
            }
        }
    }
    Ok((examples, lines))
}

fn parse_line(line: &str) -> anyhow::Result<Example> {
    let (label, text) = line.split_once('\t').context("no tab after the label")?;
    let label = Label::try_from(label.to_owned()).context("label")?;
    ensure!(!text.trim().is_empty(), "no text after the label");
    let text = text.to_owned();
    Ok(Example { label, text })
}

fn order(text: &str) -> u32 {
    const SEED: u32 = 1;
    // Reading from memory cannot fail.
    murmur3::murmur3_32(&mut text.as_bytes(), SEED).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(data: &str) -> String {
        format!("{:#}", load(data.as_bytes()).expect_err("must be refused"))
    }

    fn lines(ham: usize, spam: usize) -> Vec<String> {
        let word = |n: usize| "x".repeat(n + 1);
        let ham = (0..ham).map(|n| format!("ham\tsee you {}", word(n)));
        ham.chain((0..spam).map(|n| format!("spam\twin {}", word(n))))
            .collect()
    }

    #[test]
    fn each_label_is_split_four_to_one() {
        let split = load(lines(50, 10).join("\n").as_bytes()).expect("good data");
        assert_eq!(
            split.counts,
            Counts {
                lines: 60,
                duplicates: 0,
                train: 48,
                train_spam: 8,
                test: 12,
                test_spam: 2
            }
        );
    }

    #[test]
    fn no_text_is_on_both_sides_even_if_case_spacing_or_digits_differ() {
        let mut data = lines(10, 10);
        data.push("spam\tWIN  x".to_owned());
        data.push("ham\tcall 0800".to_owned());
        data.push("ham\tCall 1234 ".to_owned());
        let split = load(data.join("\n").as_bytes()).expect("good data");
        assert_eq!(split.counts.duplicates, 2);
        let train: Vec<_> = split.train.iter().map(|e| normalise(&e.text)).collect();
        assert!(
            split
                .test
                .iter()
                .all(|e| !train.contains(&normalise(&e.text)))
        );
    }

    #[test]
    fn the_order_of_the_lines_does_not_matter() {
        let mut data = lines(20, 20);
        let forwards = load(data.join("\n").as_bytes()).expect("good data");
        data.reverse();
        assert_eq!(
            load(data.join("\r\n").as_bytes()).expect("good data"),
            forwards
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        assert_eq!(
            error("ham\tok\nspam win\n"),
            "line 2: no tab after the label"
        );
        assert_eq!(
            error("eggs\tok"),
            "line 1: label: \"eggs\": allowed are spam and ham"
        );
        assert_eq!(error("ham\tok\n\n"), "line 2: no tab after the label");
        assert_eq!(error("spam\t \n"), "line 1: no text after the label");
        assert_eq!(
            error("ham\tok\nspam\tOK\n"),
            "line 2: spam, but the same text was labelled ham before"
        );
    }

    #[test]
    fn too_few_messages_are_refused() {
        assert_eq!(error(""), "0 distinct ham messages; at least 5 are needed");
        assert_eq!(
            error(&lines(9, 4).join("\n")),
            "4 distinct spam messages; at least 5 are needed"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_all_the_same() {
        let mut data = lines(5, 5).join("\n").into_bytes();
        data.extend(b"\nspam\twin \xa31000");
        assert_eq!(load(&data).expect("good data").counts.lines, 11);
    }
}
