//! Somebody who sends requests.

use std::collections::BTreeMap;

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
            let Ok(cookie) = cookie.to_str() else {
                continue;
            };
            let mut fields = cookie.split(';').map(str::trim);
            let Some((name, value)) = fields.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let over = |field: &str| {
                let age = field
                    .split_once('=')
                    .filter(|(name, _)| name.eq_ignore_ascii_case("max-age"));
                age.is_some_and(|(_, age)| age.parse::<i64>().is_ok_and(|age| age <= 0))
            };
            if fields.any(over) {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}
