//! What is wrong with a configuration, and where.

use std::fmt;

use serde_json::Value;

/// A longer value is cut in messages.
const SHOWN: usize = 60;

/// One fault of a configuration. Displayed as `path: value: what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as in `rollouts[0].versions[1].weight`.
    pub path: String,
    /// What stands there, as compact JSON, cut after 60 characters.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path, self.value, self.allowed)
    }
}

/// All faults of one configuration: those of single fields in the order of the document, then those
/// that only show between several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault of a value that stands in the document.
    pub fn add(&mut self, path: &str, value: &Value, allowed: &str) {
        // Who writes the secret itself instead of its variable's name shall not read it in a log.
        if path.ends_with(".secret") {
            self.add_text(path, "a secret", allowed);
        } else {
            self.add_text(path, &shown(value), allowed);
        }
    }

    /// Adds a fault of a string that stands in the document.
    pub fn add_string(&mut self, path: &str, value: &str, allowed: &str) {
        self.add(path, &Value::from(value), allowed);
    }

    /// Adds a fault of a number, or one that is in no single value: `value` says what is found.
    pub fn add_text(&mut self, path: &str, value: &str, allowed: &str) {
        self.0.push(Fault {
            path: path.to_owned(),
            value: value.to_owned(),
            allowed: allowed.to_owned(),
        });
    }

    /// True where nothing at `path` or below it is wrong: a check over several fields only makes
    /// sense where each of them could be read.
    pub(crate) fn none_under(&self, path: &str) -> bool {
        !self.0.iter().any(|fault| {
            let below = fault.path.strip_prefix(path);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// True where the value at `path` itself is what it should be, whatever is wrong below it.
    pub(crate) fn none_at(&self, path: &str) -> bool {
        !self.0.iter().any(|fault| fault.path == path)
    }

    /// True where nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

/// A value in a message.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((at, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(at);
        text.push('…');
    }
    text
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
