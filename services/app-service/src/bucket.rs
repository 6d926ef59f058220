//! The user's bucket, for metrics by which experiments compare versions.

use axum::http::HeaderMap;
use prometheus::{IntCounterVec, Opts, Registry};

/// The label of a request that belongs to no experiment.
const NONE: &str = "none";

/// As many as the filter at the gateway tells apart.
const BUCKETS: u8 = 32;

/// The user's bucket, which the filter at the gateway stamps. Anything but 0 to 31 is `none`, so that
/// nobody can make up labels, and so is a copy of a request that somebody else answers.
pub(crate) fn bucket(headers: &HeaderMap) -> &str {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text("x-rollout-bucket")
        .filter(|text| {
            text.parse::<u8>()
                .is_ok_and(|number| number < BUCKETS && number.to_string() == *text)
        })
        .filter(|_| text("x-shadow") != Some("true"))
        .unwrap_or(NONE)
}

/// Every bucket. Series of all of them are there from the start: of one that appears with its first
/// event, Prometheus would miss that event.
pub(crate) fn labels_of_all() -> impl Iterator<Item = String> {
    let buckets = (0..BUCKETS).map(|bucket| bucket.to_string());
    buckets.chain([NONE.to_owned()])
}

/// A counter of what users were given and did, by their bucket.
pub(crate) struct Outcomes(IntCounterVec);

impl Outcomes {
    /// A counter with more labels, and the values that they have together.
    pub(crate) fn register<const N: usize>(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: &[[&str; N]],
    ) -> prometheus::Result<Self> {
        let labels = [&labels[..], &["bucket"]].concat();
        let counter = IntCounterVec::new(Opts::new(name, help), &labels)?;
        registry.register(Box::new(counter.clone()))?;
        for bucket in labels_of_all() {
            for values in values {
                counter.with_label_values(&[&values[..], &[&bucket]].concat());
            }
        }
        Ok(Self(counter))
    }

    /// Counts one of the user who sent `headers`.
    pub(crate) fn count<const N: usize>(&self, values: [&str; N], headers: &HeaderMap) {
        let values = [&values[..], &[bucket(headers)]].concat();
        self.0.with_label_values(&values).inc();
    }
}
