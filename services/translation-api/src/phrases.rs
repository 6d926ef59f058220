//! The phrases that are in the program.

use std::collections::BTreeMap;

/// Phrases and what they mean.
pub(crate) struct Phrases(BTreeMap<String, String>);

impl Phrases {
    /// Those of `phrases.json`.
    pub(crate) fn built_in() -> serde_json::Result<Self> {
        serde_json::from_str(include_str!("../phrases.json")).map(Self)
    }

    /// What a phrase means, by its [`name`].
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// What a phrase is kept under: `Lol`, `LOL` and ` lol ` are one.
pub(crate) fn name(phrase: &str) -> String {
    phrase.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::MAX_LENGTH;

    #[test]
    fn every_built_in_phrase_can_be_asked_for() {
        let phrases = Phrases::built_in().expect("phrases");
        // JSON does not mind a name that is there twice.
        let lines = include_str!("../phrases.json").lines().count() - 2;
        assert_eq!(phrases.all().len(), lines);
        assert!(lines >= 24, "{lines}");
        for (phrase, translation) in phrases.all() {
            assert_eq!(name(phrase), *phrase);
            assert!((1..=MAX_LENGTH).contains(&phrase.chars().count()));
            assert!(!translation.trim().is_empty(), "{phrase}");
        }
    }
}
