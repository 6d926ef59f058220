//! Headers, as they go over the wire.

/// Ordered; names may repeat, values are bytes. Look-ups ignore case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub(crate) Vec<(String, Vec<u8>)>);

impl Headers {
    /// Appends a header: for headers that mix text and bytes.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Headers {
        self.0.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// The value of a header; `None` if absent, a panic if it is repeated (use
    /// [`Headers::all`]) or no UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(
            all.len() < 2,
            "{name} is there {} times: {all:?}",
            all.len()
        );
        all.first()
            .map(|value| std::str::from_utf8(value).expect("a header in UTF-8"))
    }

    /// All values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let same = self.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value).collect()
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Headers {
        let pairs = pairs.into_iter();
        Headers(
            pairs
                .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_vec()))
                .collect(),
        )
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(pairs: [(N, V); COUNT]) -> Headers {
        pairs.into_iter().collect()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> From<&[(N, V)]> for Headers {
    fn from(pairs: &[(N, V)]) -> Headers {
        pairs.iter().map(|(name, value)| (name, value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_ignore_case_and_see_repetitions() {
        let headers = Headers::from([("X-A", "1"), ("x-b", "2"), ("x-A", "3")]);
        assert_eq!(headers.all("X-a"), [b"1", b"3"]);
        assert_eq!(headers.get("X-B"), Some("2"));
        assert_eq!(headers.get("x-c"), None);
    }

    #[test]
    #[should_panic(expected = "2 times")]
    fn get_does_not_hide_a_repetition() {
        Headers::from([("a", "1"), ("A", "2")]).get("a");
    }
}
