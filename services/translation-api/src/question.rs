//! What was asked.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// In characters.
pub(crate) const MAX_LENGTH: usize = 100;

/// Why a question gets no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The phrase, if there is one that can be repeated.
    pub(crate) phrase: Option<String>,
    /// All that is wrong. None of it repeats what the client sent.
    pub(crate) faults: Vec<String>,
}

/// The phrase that a query asks for.
pub(crate) fn question(query: &str) -> Result<String, Refused> {
    let fields = query.split('&').filter(|field| !field.is_empty());
    let fields = fields.map(|field| field.split_once('=').unwrap_or((field, "")));
    let (asked, others): (Vec<_>, Vec<_>) =
        fields.partition(|(name, _)| decode(name).as_deref() == Some("phrase"));
    let mut faults = Vec::new();
    let mut phrase = None;
    match asked.as_slice() {
        [] => faults.push(format!(
            "phrase: missing: allowed are 1 to {MAX_LENGTH} characters, as in ?phrase=Lol"
        )),
        [(_, value)] => match decode(value) {
            None => {
                faults.push("phrase: not UTF-8: allowed is UTF-8, percent-encoded".to_owned());
            }
            Some(value) => {
                let length = value.chars().count();
                if length > MAX_LENGTH {
                    faults.push(format!(
                        "phrase: {length} characters: allowed are 1 to {MAX_LENGTH}"
                    ));
                } else {
                    if value.trim().is_empty() {
                        faults.push(format!(
                            "phrase: blank: allowed are 1 to {MAX_LENGTH} characters"
                        ));
                    }
                    phrase = Some(value);
                }
            }
        },
        more => faults.push(format!(
            "phrase: given {} times: allowed is once",
            more.len()
        )),
    }
    if !others.is_empty() {
        faults.push("query: an unknown parameter: allowed is phrase alone".to_owned());
    }
    match phrase {
        Some(phrase) if faults.is_empty() => Ok(phrase),
        phrase => Err(Refused { phrase, faults }),
    }
}

/// A name or value as forms encode it; `None` if it is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    decoded.ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_comes_as_forms_send_it() {
        for (query, phrase) in [
            ("phrase=Lol", "Lol"),
            ("phrase=on+my%20way", "on my way"),
            ("%70hrase=gr%38&", "gr8"),
            ("phrase=1%2B1=2", "1+1=2"),
            ("phrase=%C3%A9%zz", "é%zz"),
        ] {
            assert_eq!(question(query), Ok(phrase.to_owned()), "{query}");
        }
        let longest = "é".repeat(MAX_LENGTH);
        assert_eq!(question(&format!("phrase={longest}")), Ok(longest));
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let Err(refused) = question("phrase=a&lang=de&phrase=b") else {
            panic!("it is faulty");
        };
        assert_eq!((refused.phrase, refused.faults.len()), (None, 2));
        let Err(refused) = question("a=1&b=2&c=3") else {
            panic!("it is faulty");
        };
        assert_eq!(refused.faults.len(), 2, "{refused:?}");
    }
}
