//! Finding a data set, reading it and splitting it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use text::{Class, Label, Message, Task, normalise, sha256};

use crate::checks::near_copies;

/// One labelled text.
#[derive(Clone, PartialEq, Eq)]
pub struct Example {
    /// What it is.
    pub class: Class,
    /// The text.
    pub text: String,
}

/// A file of a data set.
pub struct File {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// For tests: the directory of the data set, where this machine has it; else it says so, and they do
/// without.
pub fn find(task: Task) -> Option<PathBuf> {
    let (variable, usual) = match task {
        Task::SmsSpam => ("SMS_DATA", "sms-spam-collection"),
        Task::ReviewSentiment => ("REVIEW_DATA", "sentiment-labelled-sentences"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let usual = root.join("../shared/data").join(usual);
    match std::env::var_os(variable) {
        Some(data) => Some(PathBuf::from(data)),
        None if usual.exists() => Some(usual),
        None => {
            let reason = format!("SKIPPED: no data for {task}; let {variable} name its directory");
            // Not eprintln!, which only shows when a test fails.
            let _ = writeln!(io::stderr(), "{reason}");
            None
        }
    }
}

/// For tests: the texts that training has not seen, if the data set is found.
pub fn held_out(task: Task) -> anyhow::Result<Option<Vec<Example>>> {
    let Some(directory) = find(task) else {
        return Ok(None);
    };
    let data = DataSet::parse(task, &read(task, &directory)?)?;
    Ok(Some(data.split()?.test))
}

/// The files of the data set of `task`, in `directory`.
pub fn read(task: Task, directory: &Path) -> anyhow::Result<Vec<File>> {
    let names: &[_] = match task {
        Task::SmsSpam => &["SMSSpamCollection"],
        Task::ReviewSentiment => &[
            "amazon_cells_labelled.txt",
            "imdb_labelled.txt",
            "yelp_labelled.txt",
        ],
    };
    let read = |name: &&str| {
        let path = directory.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let name = (*name).to_owned();
        Ok(File { name, bytes })
    };
    names.iter().map(read).collect()
}

/// A data set in which each normalised text stands once.
pub struct DataSet {
    /// What it is for.
    pub task: Task,
    /// In the order of the normalised texts, whatever the order of the lines.
    pub examples: Vec<Example>,
    /// The lines read.
    pub lines: usize,
    /// The SHA-256 of each file.
    pub files: BTreeMap<String, String>,
}

/// What the models are trained on, and what they are measured on.
pub struct Split {
    /// Four fifths.
    pub train: Vec<Example>,
    /// One fifth, of which training sees nothing.
    pub test: Vec<Example>,
}

/// What became of the lines of the data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Lines read.
    pub lines: usize,
    /// Lines dropped because their normalised text had occurred before.
    pub duplicates: usize,
    /// Texts trained on.
    pub train: usize,
    /// Those of the positive class among them.
    pub train_positive: usize,
    /// Texts measured on.
    pub test: usize,
    /// Those of the positive class among them.
    pub test_positive: usize,
    /// Those among them that are nearly the same as one trained on.
    pub near_copies: usize,
}

impl DataSet {
    /// Parses the lines of `files`: `ham|spam<TAB>text`, or `text<TAB>0|1` for reviews.
    ///
    /// Bytes that are not UTF-8 become U+FFFD: copies of the SMS data differ in their encoding.
    pub fn parse(task: Task, files: &[File]) -> anyhow::Result<Self> {
        let mut examples: BTreeMap<String, Example> = BTreeMap::new();
        let mut lines = 0;
        for file in files {
            for (number, line) in String::from_utf8_lossy(&file.bytes).lines().enumerate() {
                lines += 1;
                add(task, line, &mut examples)
                    .with_context(|| format!("{}: line {}", file.name, number + 1))?;
            }
        }
        let sum = |file: &File| (file.name.clone(), sha256(&file.bytes));
        Ok(Self {
            task,
            examples: examples.into_values().collect(),
            lines,
            files: files.iter().map(sum).collect(),
        })
    }

    /// Four fifths and one fifth of each class, by distinct normalised text: no text is on both sides.
    pub fn split(&self) -> anyhow::Result<Split> {
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for class in Class::BOTH {
            let of_class: Vec<_> = self.examples.iter().filter(|e| e.class == class).collect();
            let fifth = of_class.len() / 5;
            ensure!(
                fifth > 0,
                "{} distinct {} texts; at least 5 are needed",
                of_class.len(),
                self.task.label(class)
            );
            let mut of_class = shuffled(of_class, TEST_SEED).into_iter().cloned();
            test.extend(of_class.by_ref().take(fifth));
            train.extend(of_class);
        }
        Ok(Split { train, test })
    }
}

fn add(task: Task, line: &str, examples: &mut BTreeMap<String, Example>) -> anyhow::Result<()> {
    let example = parse_line(task, line)?;
    let text = normalise(&example.text);
    match examples.get(&text) {
        Some(known) if known.class != example.class => bail!(
            "{}, but the same text was labelled {} before",
            task.label(example.class),
            task.label(known.class)
        ),
        Some(_) => {}
        None => {
            examples.insert(text, example);
        }
    }
    Ok(())
}

fn parse_line(task: Task, line: &str) -> anyhow::Result<Example> {
    let (class, text) = match task {
        Task::SmsSpam => {
            let (label, text) = line.split_once('\t').context("no tab after the label")?;
            let label = Label::try_from(label.to_owned()).context("label")?;
            let is_label = |class: &Class| Label::from(*class) == label;
            let class = Class::BOTH.into_iter().find(is_label);
            (class.context("label")?, text)
        }
        Task::ReviewSentiment => {
            let (text, label) = line.rsplit_once('\t').context("no tab before the label")?;
            let class = match label {
                "0" => Class::Negative,
                "1" => Class::Positive,
                other => bail!("label: {other:?}: allowed are 0 and 1"),
            };
            (class, text)
        }
    };
    // What could not be asked cannot be learned from either.
    Message::try_from(text.to_owned()).context("text")?;
    let text = text.to_owned();
    Ok(Example { class, text })
}

impl Split {
    /// What became of the lines of `data`.
    pub fn counts(&self, data: &DataSet) -> Counts {
        let positive = |examples: &[Example]| {
            let positive = examples.iter().filter(|e| e.class == Class::Positive);
            positive.count()
        };
        Counts {
            lines: data.lines,
            duplicates: data.lines - data.examples.len(),
            train: self.train.len(),
            train_positive: positive(&self.train),
            test: self.test.len(),
            test_positive: positive(&self.test),
            near_copies: near_copies(self),
        }
    }
}

/// `examples` dealt out in `folds` parts of the same mix of classes; each part once for measuring, with
/// the others for training.
pub fn folds(examples: &[Example], folds: usize) -> Vec<Split> {
    let mut parts = vec![Vec::new(); folds];
    for class in Class::BOTH {
        let of_class = examples.iter().filter(|e| e.class == class).collect();
        for (place, example) in shuffled(of_class, FOLD_SEED).into_iter().enumerate() {
            parts[place % folds].push(example.clone());
        }
    }
    let split = |fold: usize| {
        let others = parts.iter().enumerate().filter(|(part, _)| *part != fold);
        Split {
            train: others.flat_map(|(_, part)| part).cloned().collect(),
            test: parts[fold].clone(),
        }
    };
    (0..folds).map(split).collect()
}

const TEST_SEED: u32 = 1;
/// Another one: the order of the training part is that of [`TEST_SEED`].
const FOLD_SEED: u32 = 2;

/// In the order of a seeded hash: random enough, and the same whatever the order was before.
fn shuffled(mut examples: Vec<&Example>, seed: u32) -> Vec<&Example> {
    examples.sort_by_cached_key(|example| {
        let text = normalise(&example.text);
        // Reading from memory cannot fail.
        let hash = murmur3::murmur3_32(&mut text.as_bytes(), seed).unwrap_or_default();
        (hash, text)
    });
    examples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(task: Task, data: &[u8]) -> anyhow::Result<DataSet> {
        let (name, bytes) = ("data".to_owned(), data.to_vec());
        DataSet::parse(task, &[File { name, bytes }])
    }

    fn error(task: Task, data: &str) -> String {
        let parsed = parse(task, data.as_bytes()).and_then(|data| data.split().map(drop));
        format!("{:#}", parsed.expect_err("must be refused"))
    }

    fn lines(ham: usize, spam: usize) -> Vec<String> {
        let word = |n: usize| "x".repeat(n + 1);
        let ham = (0..ham).map(|n| format!("ham\tsee you {}", word(n)));
        ham.chain((0..spam).map(|n| format!("spam\twin {}", word(n))))
            .collect()
    }

    fn sms(lines: &[String]) -> DataSet {
        parse(Task::SmsSpam, lines.join("\n").as_bytes()).expect("good data")
    }

    #[test]
    fn each_class_is_split_four_to_one() {
        let data = sms(&lines(50, 10));
        let counts = data.split().expect("enough").counts(&data);
        assert_eq!(
            (counts.lines, counts.duplicates, counts.near_copies),
            (60, 0, 0)
        );
        assert_eq!((counts.train, counts.train_positive), (48, 8));
        assert_eq!((counts.test, counts.test_positive), (12, 2));
    }

    #[test]
    fn no_text_is_on_both_sides_even_if_case_spacing_or_digits_differ() {
        let mut data = lines(10, 10);
        data.push("spam\tWIN  x".to_owned());
        data.push("ham\tcall 0800".to_owned());
        data.push("ham\tCall 1234 ".to_owned());
        let data = sms(&data);
        let split = data.split().expect("enough");
        assert_eq!(split.counts(&data).duplicates, 2);
        for split in folds(&data.examples, 5).iter().chain([&split]) {
            crate::checks::no_leak(split).expect("none");
            assert_eq!(split.train.len() + split.test.len(), 21);
        }
    }

    #[test]
    fn every_example_is_measured_on_in_one_fold() {
        let data = sms(&lines(23, 11));
        let folds = folds(&data.examples, 5);
        let mut measured: Vec<_> = folds.iter().flat_map(|fold| &fold.test).collect();
        assert!(folds.iter().all(|fold| (6..=8).contains(&fold.test.len())));
        measured.sort_by_key(|example| &example.text);
        measured.dedup_by_key(|example| &example.text);
        assert_eq!(measured.len(), 34);
    }

    #[test]
    fn the_order_of_the_lines_does_not_matter() {
        let mut data = lines(20, 20);
        let forwards = sms(&data).split().expect("enough");
        data.reverse();
        let backwards = parse(Task::SmsSpam, data.join("\r\n").as_bytes()).expect("good data");
        let backwards = backwards.split().expect("enough");
        assert!(forwards.train == backwards.train && forwards.test == backwards.test);
    }

    #[test]
    fn a_review_has_its_label_behind_it() {
        let data = parse(Task::ReviewSentiment, b"Good.\t1\nBad\tenough. \t0\n");
        let data = data.expect("good data");
        let read: Vec<_> = data
            .examples
            .iter()
            .map(|e| (e.class, e.text.as_str()))
            .collect();
        assert_eq!(
            read,
            [
                (Class::Negative, "Bad\tenough. "),
                (Class::Positive, "Good.")
            ]
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        for (task, data, expected) in [
            (
                Task::SmsSpam,
                "ham\tok\nspam win\n",
                "data: line 2: no tab after the label",
            ),
            (
                Task::SmsSpam,
                "eggs\tok",
                "data: line 1: label: \"eggs\": allowed are spam and ham",
            ),
            (
                Task::SmsSpam,
                "ham\tok\n\n",
                "data: line 2: no tab after the label",
            ),
            (
                Task::SmsSpam,
                "spam\t \n",
                "data: line 1: text: blank: allowed are 1 to 2000 characters",
            ),
            (
                Task::SmsSpam,
                "ham\tok\nspam\tOK\n",
                "data: line 2: spam, but the same text was labelled ham before",
            ),
            (
                Task::ReviewSentiment,
                "Good\t1\nBad 0",
                "data: line 2: no tab before the label",
            ),
            (
                Task::ReviewSentiment,
                "Good\t2",
                "data: line 1: label: \"2\": allowed are 0 and 1",
            ),
            (
                Task::ReviewSentiment,
                "Good\t1\ngood\t0",
                "data: line 2: negative, but the same text was labelled positive before",
            ),
        ] {
            assert_eq!(error(task, data), expected);
        }
    }

    #[test]
    fn too_few_texts_are_refused() {
        assert_eq!(
            error(Task::SmsSpam, ""),
            "0 distinct ham texts; at least 5 are needed"
        );
        assert_eq!(
            error(Task::SmsSpam, &lines(9, 4).join("\n")),
            "4 distinct spam texts; at least 5 are needed"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_all_the_same() {
        let mut data = lines(5, 5).join("\n").into_bytes();
        data.extend(b"\nspam\twin \xa31000");
        assert_eq!(parse(Task::SmsSpam, &data).expect("good data").lines, 11);
    }
}
