//! What a change of a text must do to its label: most changes nothing, some must turn it.
//!
//! Models that count words know no grammar, so some relations hold for a share of the texts only. The
//! share is measured on texts that training has not seen, and what is promised of each model is in the
//! tests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use text::{Class, Model, Task};

use crate::data::Example;
use crate::metrics::rounded;

/// A way to change texts, and what is wanted of the label then.
pub struct Relation {
    /// How texts are changed.
    pub change: &'static str,
    wanted: Wanted,
    cases: fn(&[Example]) -> Vec<Case>,
}

enum Wanted {
    /// The label that the unchanged text gets.
    Same,
    /// This one.
    Class(Class),
}

struct Case {
    before: String,
    after: String,
}

/// In what share of the texts the models keep to a relation.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// How the texts are changed.
    pub change: String,
    /// The label that they must have then.
    pub wanted: String,
    /// How many texts there are.
    pub texts: usize,
    /// The share of them that get it, by version.
    pub shares: BTreeMap<String, f64>,
}

impl Relation {
    /// Changes the `examples` to which that can be done, or texts of its own, and asks the models.
    pub fn measure(
        &self,
        task: Task,
        examples: &[Example],
        models: &[(&'static str, Model)],
    ) -> Held {
        let cases = (self.cases)(examples);
        let shares = models.iter().map(|(version, model)| {
            let holds = |case: &&Case| {
                let after = model.predict(&case.after).class;
                after
                    == match self.wanted {
                        Wanted::Same => model.predict(&case.before).class,
                        Wanted::Class(class) => class,
                    }
            };
            let held = cases.iter().filter(holds).count() as f64;
            let share = rounded(held / cases.len().max(1) as f64);
            ((*version).to_owned(), share)
        });
        Held {
            change: self.change.to_owned(),
            wanted: match self.wanted {
                Wanted::Same => "the same".to_owned(),
                Wanted::Class(class) => task.label(class).to_owned(),
            },
            texts: cases.len(),
            shares: shares.collect(),
        }
    }
}

/// The relations of `task`.
pub fn relations(task: Task) -> Vec<Relation> {
    let relation = |change, wanted, cases| Relation {
        change,
        wanted,
        cases,
    };
    let mut relations = vec![
        relation("upper case", Wanted::Same, upper_case),
        relation("other spacing", Wanted::Same, other_spacing),
        relation("neutral words added", Wanted::Same, neutral_words),
    ];
    relations.extend(match task {
        Task::SmsSpam => vec![
            relation("other digits", Wanted::Same, other_digits as fn(&_) -> _),
            relation("synonyms", Wanted::Same, sms_synonyms),
            relation("a verb negated", Wanted::Same, verb_negated),
            relation(
                "ham with an offer added",
                Wanted::Class(Class::Positive),
                offer_added,
            ),
        ],
        Task::ReviewSentiment => vec![
            relation("synonyms", Wanted::Same, review_synonyms as fn(&_) -> _),
            relation("plain praise", Wanted::Class(Class::Positive), praise),
            relation("plain blame", Wanted::Class(Class::Negative), blame),
            relation(
                "praise negated",
                Wanted::Class(Class::Negative),
                praise_negated,
            ),
            relation(
                "blame negated",
                Wanted::Class(Class::Positive),
                blame_negated,
            ),
        ],
    });
    relations
}

/// Changes every text to which `change` applies.
fn changed(examples: &[Example], change: impl Fn(&str) -> Option<String>) -> Vec<Case> {
    let case = |example: &Example| {
        let before = example.text.clone();
        let after = change(&before)?;
        Some(Case { before, after })
    };
    examples.iter().filter_map(case).collect()
}

fn upper_case(examples: &[Example]) -> Vec<Case> {
    changed(examples, |text| Some(text.to_ascii_uppercase()))
}

fn other_spacing(examples: &[Example]) -> Vec<Case> {
    changed(examples, |text| {
        Some(format!(" {}\n", text.replace(' ', "  \t")))
    })
}

fn other_digits(examples: &[Example]) -> Vec<Case> {
    changed(examples, |text| {
        let other = |c: char| match c.to_digit(10) {
            Some(digit) => char::from_digit(9 - digit, 10).unwrap_or(c),
            None => c,
        };
        let after: String = text.chars().map(other).collect();
        (after != text).then_some(after)
    })
}

fn neutral_words(examples: &[Example]) -> Vec<Case> {
    const ADDED: [&str; 3] = ["on monday", "by the way", "in the afternoon"];
    let each = ADDED.iter().flat_map(|added| {
        let at_the_end = changed(examples, |text| Some(format!("{text} {added}")));
        let at_the_start = changed(examples, |text| Some(format!("{added} {text}")));
        at_the_end.into_iter().chain(at_the_start)
    });
    each.collect()
}

/// Replaces words, in lower case, which models see only.
fn words_replaced(examples: &[Example], pairs: &[(&str, &str)]) -> Vec<Case> {
    changed(examples, |text| {
        let before = format!(" {} ", text.to_lowercase());
        let replace = |text: String, (from, to): &(&str, &str)| {
            text.replace(&format!(" {from} "), &format!(" {to} "))
        };
        let after = pairs.iter().fold(before.clone(), replace);
        (after != before).then_some(after)
    })
}

fn sms_synonyms(examples: &[Example]) -> Vec<Case> {
    words_replaced(
        examples,
        &[
            ("u", "you"),
            ("ur", "your"),
            ("call", "phone"),
            ("reply", "answer"),
            ("big", "large"),
            ("tonight", "this evening"),
            ("home", "house"),
            ("buy", "purchase"),
            ("want", "wish"),
        ],
    )
}

fn review_synonyms(examples: &[Example]) -> Vec<Case> {
    words_replaced(
        examples,
        &[
            ("movie", "film"),
            ("film", "picture"),
            ("phone", "handset"),
            ("restaurant", "diner"),
            ("food", "meal"),
            ("really", "truly"),
            ("very", "extremely"),
            ("buy", "purchase"),
            ("bought", "purchased"),
            ("people", "persons"),
        ],
    )
}

fn verb_negated(examples: &[Example]) -> Vec<Case> {
    words_replaced(
        examples,
        &[
            ("is", "is not"),
            ("are", "are not"),
            ("will", "will not"),
            ("can", "cannot"),
            ("have", "have not"),
        ],
    )
}

fn offer_added(examples: &[Example]) -> Vec<Case> {
    const OFFER: &str =
        "WINNER! Claim your FREE prize of £1000 cash now, call 09061701461 or text WIN to 80086";
    let ham: Vec<_> = examples
        .iter()
        .filter(|e| e.class == Class::Negative)
        .cloned()
        .collect();
    changed(&ham, |text| Some(format!("{text} {OFFER}")))
}

const THINGS: [&str; 8] = [
    "food", "movie", "phone", "service", "battery", "acting", "place", "sound",
];
const PRAISE: [&str; 6] = [
    "good",
    "great",
    "excellent",
    "amazing",
    "wonderful",
    "fantastic",
];
const BLAME: [&str; 6] = [
    "bad",
    "terrible",
    "awful",
    "horrible",
    "poor",
    "disappointing",
];

/// Sentences of our own: those of the data set are rarely turned by one `not`.
fn sentences(adjectives: &[&str], verb: &str) -> Vec<Case> {
    let of_thing = |thing| {
        adjectives.iter().map(move |adjective| Case {
            before: format!("The {thing} was {adjective}."),
            after: format!("The {thing} {verb} {adjective}."),
        })
    };
    THINGS.iter().flat_map(of_thing).collect()
}

fn praise(_: &[Example]) -> Vec<Case> {
    sentences(&PRAISE, "was")
}

fn blame(_: &[Example]) -> Vec<Case> {
    sentences(&BLAME, "was")
}

fn praise_negated(_: &[Example]) -> Vec<Case> {
    sentences(&PRAISE, "was not")
}

fn blame_negated(_: &[Example]) -> Vec<Case> {
    sentences(&BLAME, "was not")
}
