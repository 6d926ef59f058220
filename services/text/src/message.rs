//! A message and its label.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest message that is checked, in characters: a dozen concatenated SMS.
pub const MAX_CHARS: usize = 2000;

/// A message that can be checked: not blank, and at most [`MAX_CHARS`] characters.
///
/// It has no `Debug`, so that a message does not end up in a log by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Message(String);

impl Message {
    /// The text as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Message {
    type Error = InvalidMessage;

    fn try_from(text: String) -> Result<Self, InvalidMessage> {
        if text.trim().is_empty() {
            return Err(InvalidMessage::Blank);
        }
        match text.chars().count() {
            0..=MAX_CHARS => Ok(Self(text)),
            chars => Err(InvalidMessage::TooLong { chars }),
        }
    }
}

/// Why a text is not a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidMessage {
    /// Empty, or white space only.
    Blank,
    /// Longer than [`MAX_CHARS`].
    TooLong {
        /// Its length in characters.
        chars: usize,
    },
}

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => write!(f, "blank")?,
            Self::TooLong { chars } => write!(f, "{chars} characters")?,
        }
        write!(f, ": allowed are 1 to {MAX_CHARS} characters")
    }
}

impl std::error::Error for InvalidMessage {}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Label {
    /// Unsolicited advertising or fraud.
    Spam,
    /// Anything else.
    Ham,
}

impl Label {
    /// As in JSON and in the data set.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spam => "spam",
            Self::Ham => "ham",
        }
    }
}

impl TryFrom<String> for Label {
    type Error = InvalidLabel;

    fn try_from(text: String) -> Result<Self, InvalidLabel> {
        let label = [Self::Spam, Self::Ham]
            .into_iter()
            .find(|label| label.as_str() == text);
        label.ok_or(InvalidLabel(text))
    }
}

/// A text that is not a [`Label`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLabel(String);

impl fmt::Display for InvalidLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: allowed are spam and ham", self.0)
    }
}

impl std::error::Error for InvalidLabel {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Message, InvalidMessage> {
        Message::try_from(text.to_owned())
    }

    #[test]
    fn the_limit_counts_characters_not_bytes() {
        assert!(check(&"é".repeat(MAX_CHARS)).is_ok());
        assert_eq!(
            check(&"é".repeat(MAX_CHARS + 1)).err(),
            Some(InvalidMessage::TooLong { chars: 2001 })
        );
    }

    #[test]
    fn white_space_is_no_message() {
        for text in ["", " ", "\r\n\t", "\u{a0}"] {
            assert_eq!(check(text).err(), Some(InvalidMessage::Blank), "{text:?}");
        }
    }

    #[test]
    fn the_error_says_what_is_allowed() {
        assert_eq!(
            InvalidMessage::TooLong { chars: 2001 }.to_string(),
            "2001 characters: allowed are 1 to 2000 characters"
        );
    }
}
