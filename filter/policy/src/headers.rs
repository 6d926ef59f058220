//! The headers of a request or response as the host hands them over: bytes, nothing proved.

/// Header fields in order, repeated ones included.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(&'a [(String, Vec<u8>)]);

impl<'a> Headers<'a> {
    /// Looks at `fields`; names are compared without case (RFC 9110, 5.1).
    pub fn new(fields: &'a [(String, Vec<u8>)]) -> Self {
        Self(fields)
    }

    /// All values of a header, in order.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// The first value of a header.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The value of a header that is present exactly once: of two values, nobody can say which one
    /// the next reader would take.
    pub fn once(self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// Whether a header is present.
    pub fn contains(self, name: &str) -> bool {
        self.first(name).is_some()
    }
}
