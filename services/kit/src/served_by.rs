//! The header that says which version of each tier took part.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// `app-service;v=canary, model-service;v=canary`: the tiers of a response, from the edge inwards.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Puts `tier` before the tiers that the handler already passed on from further in.
pub(crate) fn put_first(tier: &HeaderValue, headers: &mut HeaderMap) {
    let further_in = headers.get_all(SERVED_BY);
    let all: Vec<_> = std::iter::once(tier)
        .chain(further_in)
        .map(HeaderValue::as_bytes)
        .collect();
    // Header values joined by a comma and a space are a header value.
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(b", ".as_slice())) {
        headers.insert(SERVED_BY, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(further_in: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in further_in {
            headers.append(SERVED_BY, HeaderValue::from_static(value));
        }
        put_first(&HeaderValue::from_static("app;v=canary"), &mut headers);
        headers
    }

    #[test]
    fn tiers_stand_in_the_order_from_the_edge() {
        assert_eq!(after(&[])[SERVED_BY], "app;v=canary");
        assert_eq!(
            after(&["api;v=v1, model;v=v2"])[SERVED_BY],
            "app;v=canary, api;v=v1, model;v=v2"
        );
    }

    #[test]
    fn repeated_headers_become_one() {
        let headers = after(&["api;v=v1", "model;v=v2"]);
        assert_eq!(headers[SERVED_BY], "app;v=canary, api;v=v1, model;v=v2");
        assert_eq!(headers.get_all(SERVED_BY).iter().count(), 1);
    }
}
