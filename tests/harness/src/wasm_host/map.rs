//! What a filter does with header maps. In Envoy, names are lower-case.

use crate::headers::Headers;

impl Headers {
    pub(super) fn in_lower_case(mut self) -> Headers {
        self.0
            .iter_mut()
            .for_each(|(name, _)| name.make_ascii_lowercase());
        self
    }

    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Repeated headers collapse into one. It moves to the end, unless it is a
    /// pseudo-header.
    pub(super) fn replace(&mut self, name: &str, value: &[u8]) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(pseudo) if name.starts_with(':') => pseudo.1 = value.to_vec(),
            _ => {
                self.remove(name);
                self.add(name, value);
            }
        }
    }

    /// The form in which the ABI hands over maps: count, sizes, then all names
    /// and values, each closed by a zero.
    pub(super) fn to_abi(&self) -> Vec<u8> {
        if self.is_empty() {
            return vec![];
        }
        let number = |n: usize| u32::try_from(n).expect("headers below 4 GB").to_le_bytes();
        let mut out = number(self.len()).to_vec();
        for (name, value) in self.iter() {
            out.extend(number(name.len()));
            out.extend(number(value.len()));
        }
        for (name, value) in self.iter() {
            out.extend([name.as_bytes(), &[0], value, &[0]].concat());
        }
        out
    }

    /// `None` if the bytes are not of the form of [`Headers::to_abi`].
    pub(super) fn from_abi(bytes: &[u8]) -> Option<Headers> {
        let mut headers = Headers::default();
        if bytes.is_empty() {
            return Some(headers);
        }
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
        };
        let count = number(0)?;
        let mut at = 4 + 8 * count;
        let mut text = |size: usize| {
            let text = bytes.get(at..at + size)?;
            at += size + 1;
            Some(text)
        };
        for n in 0..count {
            let name = text(number(4 + 8 * n)?)?;
            let value = text(number(8 + 8 * n)?)?;
            headers.add(std::str::from_utf8(name).ok()?, value);
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_collapses_and_remove_removes_all() {
        let mut headers = Headers::from([(":path", "/"), ("a", "1"), ("b", "2"), ("a", "3")]);
        headers.replace("A", b"4");
        headers.replace(":path", b"/new");
        let expected = [(":path", "/new"), ("b", "2"), ("a", "4")];
        assert_eq!(headers, Headers::from(expected));
        headers.add("b", b"5");
        headers.remove("B");
        assert_eq!(headers, Headers::from([(":path", "/new"), ("a", "4")]));
    }

    #[test]
    fn maps_survive_the_abi() {
        let headers = Headers::from([("a", b"".as_slice()), ("b", b"\xff\0\n"), ("a", b"x")]);
        assert_eq!(Headers::from_abi(&headers.to_abi()), Some(headers));
        assert_eq!(Headers::from_abi(&[]), Some(Headers::default()));
        assert_eq!(Headers::from_abi(&[1, 0, 0, 0, 9]), None);
    }
}
