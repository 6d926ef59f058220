//! Somebody who sends requests.

use std::collections::BTreeMap;

use cookie::Cookie;
use cookie::time::{Duration, OffsetDateTime};
use hyper::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

/// A user, or strangers who are told apart by nothing.
#[derive(Debug)]
pub(crate) struct User {
    number: u32,
    known_by: KnownBy,
}

#[derive(Debug)]
enum KnownBy {
    Nothing,
    Header(HeaderName, HeaderValue),
    /// All that the server gave; the URL is always the same, so paths and domains are of no interest.
    Cookies(BTreeMap<String, String>),
}

impl User {
    /// Strangers: every request is somebody else's.
    pub(crate) fn stranger() -> Self {
        Self {
            number: 0,
            known_by: KnownBy::Nothing,
        }
    }

    /// The user of this number, who keeps cookies unless a header says the name.
    pub(crate) fn new(number: u32, header: Option<&HeaderName>) -> Self {
        let named = header.and_then(|header| {
            let name = HeaderValue::try_from(format!("user-{number}")).ok()?;
            Some(KnownBy::Header(header.clone(), name))
        });
        Self {
            number,
            known_by: named.unwrap_or_else(|| KnownBy::Cookies(BTreeMap::new())),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// What this user's next request has to say who it is.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match &self.known_by {
            KnownBy::Nothing => {}
            KnownBy::Header(header, name) => drop(headers.insert(header, name.clone())),
            KnownBy::Cookies(jar) => {
                let cookies: Vec<_> = jar.iter().map(|(k, v)| format!("{k}={v}")).collect();
                if let Ok(cookies) = HeaderValue::try_from(cookies.join("; "))
                    && !cookies.is_empty()
                {
                    headers.insert(COOKIE, cookies);
                }
            }
        }
        headers
    }

    /// Keeps the cookies of an answer, and gives up those that it takes back.
    pub(crate) fn take_cookies(&mut self, answer: &HeaderMap) {
        let KnownBy::Cookies(jar) = &mut self.known_by else {
            return;
        };
        for cookie in answer.get_all(SET_COOKIE) {
            let cookie = cookie.to_str().ok();
            let Some(cookie) = cookie.and_then(|text| Cookie::parse(text).ok()) else {
                continue;
            };
            let (name, value) = cookie.name_value();
            if is_taken_back(&cookie) {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// Whether a cookie is over when it comes. Max-Age goes before Expires (RFC 6265, 5.3).
fn is_taken_back(cookie: &Cookie<'_>) -> bool {
    match (cookie.max_age(), cookie.expires_datetime()) {
        (Some(age), _) => age <= Duration::ZERO,
        (None, Some(end)) => end <= OffsetDateTime::now_utc(),
        (None, None) => false,
    }
}
