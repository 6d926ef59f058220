//! The user's bucket, for metrics.

use axum::http::HeaderMap;

/// The user's bucket, for the filter at the gateway to stamp, which it does not do yet: experiments
/// compare users, and users are told apart by buckets. Anything but 0 to 31 is `none`, so that clients
/// cannot make up labels.
pub(crate) fn bucket(headers: &HeaderMap) -> &str {
    headers
        .get("x-rollout-bucket")
        .and_then(|value| value.to_str().ok())
        .filter(|text| {
            text.parse::<u8>()
                .is_ok_and(|number| number < 32 && number.to_string() == *text)
        })
        .unwrap_or("none")
}
