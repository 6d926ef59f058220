//! Where the API is.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

/// Scheme, host and, if it is not the usual one, port: `https://api.example`. It has only characters
/// that mean nothing in HTML or in a header, so it can be written into both as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str =
            "allowed is http://host or https://host, with a port if need be, and nothing after it";
        let uri: Uri = text.parse().map_err(|_| ALLOWED)?;
        let scheme = uri.scheme_str().filter(|s| ["http", "https"].contains(s));
        let (Some(scheme), Some(authority)) = (scheme, uri.authority()) else {
            return Err(ALLOWED);
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        let whole = authority.as_str().bytes().all(plain) && uri.path() == "/";
        if !whole || authority.host().is_empty() || uri.query().is_some() {
            return Err(ALLOWED);
        }
        // As browsers write it.
        let authority = authority.as_str().to_ascii_lowercase();
        Ok(Self(format!("{scheme}://{authority}")))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_nothing_else() {
        for (text, origin) in [
            (
                "http://app-service.k8s.local",
                "http://app-service.k8s.local",
            ),
            ("https://API.example:8443/", "https://api.example:8443"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(
                text.parse::<Origin>().map(|o| o.to_string()),
                Ok(origin.into())
            );
        }
        for bad in [
            "",
            "api.example",
            "/api",
            "ftp://api.example",
            "http://",
            "http://api.example/v1",
            "http://api.example/?x",
            "http://user:secret@api.example",
            "http://a\"onload=alert(1)",
            "http://a;b",
            "http://a'b",
            "http://a b",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }
}
