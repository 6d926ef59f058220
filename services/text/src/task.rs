//! What a model is asked.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Label;

/// What a model is trained for; its artefact says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Is a text message spam? Spam is the positive class.
    SmsSpam,
    /// Is a review favourable?
    ReviewSentiment,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 2] = [Self::SmsSpam, Self::ReviewSentiment];

    /// As in artefacts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SmsSpam => "sms-spam",
            Self::ReviewSentiment => "review-sentiment",
        }
    }

    /// What texts of `class` are called, in metrics and tables.
    pub fn label(self, class: Class) -> &'static str {
        match self {
            Self::SmsSpam => Label::from(class).as_str(),
            Self::ReviewSentiment => match class {
                Class::Negative => "negative",
                Class::Positive => "positive",
            },
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two answers to every task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// No: ham, or an unfavourable review.
    Negative,
    /// Yes: spam, or a favourable review.
    Positive,
}

impl Class {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Negative, Self::Positive];
}

impl From<Class> for Label {
    fn from(class: Class) -> Self {
        match class {
            Class::Negative => Self::Ham,
            Class::Positive => Self::Spam,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_written_as_it_is_called() {
        for task in Task::ALL {
            let json = serde_json::to_string(&task).expect("writable");
            assert_eq!(json, format!("\"{task}\""));
        }
    }
}
