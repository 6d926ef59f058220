//! Cookies (RFC 6265).

use crate::headers::Headers;

/// Seconds of a day.
pub(crate) const DAY: u64 = 24 * 60 * 60;

/// All values of the cookie `name` in the request, in the order sent. Parsed as a server must: any
/// bytes may come, pairs without a name are passed over (RFC 6265, 5.4 and 4.2.2).
pub(crate) fn values<'a>(headers: Headers<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .all("cookie")
        .flat_map(|header| header.split(|b| *b == b';'))
        .filter_map(move |pair| {
            let equals = pair.iter().position(|b| *b == b'=')?;
            let (key, value) = pair.split_at_checked(equals)?;
            (key.trim_ascii() == name.as_bytes())
                .then(|| value.get(1..).unwrap_or_default().trim_ascii())
        })
}

/// The value of a cookie that is present exactly once.
pub(crate) fn once<'a>(headers: Headers<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = values(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether a value may be written back into a Set-Cookie header as it came (cookie-octet).
pub(crate) fn is_cookie_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(b))
}

/// What the version cookie says: `<version>.<epoch>.<day of issue>`, or a bare `<version>`, which
/// counts as epoch 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionCookie<'a> {
    pub(crate) version: &'a str,
    pub(crate) epoch: u32,
    /// Days since 1970-01-01 UTC; `None` in a bare cookie.
    pub(crate) day: Option<u64>,
}

impl<'a> VersionCookie<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok()?;
        let text = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        let mut parts = text.split('.');
        let version = parts.next()?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => Some(Self {
                version,
                epoch: 0,
                day: None,
            }),
            (Some(epoch), Some(day), None) => Some(Self {
                version,
                epoch: number(epoch)?.try_into().ok()?,
                day: Some(number(day)?),
            }),
            _ => None,
        }
    }

    /// Whether the cookie is due for renewal at `now`: it is bare, older than half of `max_age`
    /// counted from the beginning of its day of issue, or issued in the future.
    pub(crate) fn is_due(&self, now: u64, max_age: u64) -> bool {
        let Some(day) = self.day else { return true };
        let issued = day.saturating_mul(DAY);
        match now.checked_sub(issued) {
            Some(age) => age > max_age / 2,
            // A clock that is ahead a little is no reason; a forged day is.
            None => issued - now > DAY,
        }
    }
}

/// The value of the version cookie issued at `now`.
pub(crate) fn version_value(version: &str, epoch: u32, now: u64) -> String {
    format!("{version}.{epoch}.{}", now / DAY)
}

fn number(digits: &str) -> Option<u64> {
    let plain = (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}
