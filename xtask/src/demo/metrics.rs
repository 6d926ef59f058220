//! What the filter at the gateway says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use harness::http;

/// Whoever waits for metrics does nothing else meanwhile.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The filter's metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// The hash of the policy in force.
    pub(crate) hash: Option<u32>,
    /// Whether the last policy that was pushed was refused.
    pub(crate) rejected: bool,
    /// Requests by their version, and by what it was decided by.
    pub(crate) sources: BTreeMap<String, BTreeMap<String, u64>>,
    /// Requests by the quota that was for them, and by its verdict.
    pub(crate) quotas: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Metrics {
    /// Asks the admin API of an Envoy.
    pub(crate) fn ask(admin: &str) -> Result<Self> {
        let url = format!("http://{admin}/stats/prometheus?filter=lanekeeper_");
        Ok(Self::parse(&http::get_within(TIMEOUT, &url)?.text()))
    }

    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<u64>() else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                "lanekeeper_config_hash" => metrics.hash = value.try_into().ok(),
                "lanekeeper_config_rejected" => metrics.rejected = value != 0,
                "lanekeeper_requests_total" => {
                    add(&mut metrics.sources, labels, ["version", "source"], value);
                }
                "lanekeeper_quota_total" => {
                    add(&mut metrics.quotas, labels, ["quota", "verdict"], value);
                }
                _ => {}
            }
        }
        metrics
    }
}

/// Adds to what is counted by two labels.
fn add(
    counts: &mut BTreeMap<String, BTreeMap<String, u64>>,
    labels: &str,
    names: [&str; 2],
    value: u64,
) {
    if let [Some(outer), Some(inner)] = names.map(|name| label(labels, name)) {
        let counts = counts.entry(outer).or_default();
        *counts.entry(inner).or_default() += value;
    }
}

/// The value of a label, of a kind that needs no escapes.
fn label(labels: &str, name: &str) -> Option<String> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_read() {
        let metrics = Metrics::parse(
            "# TYPE lanekeeper_requests_total counter\n\
             lanekeeper_requests_total{rollout=\"a\",version=\"stable\",source=\"slot\"} 3\n\
             lanekeeper_requests_total{rollout=\"a\",version=\"canary\",source=\"slot\"} 4\n\
             lanekeeper_requests_total{rollout=\"a\",version=\"canary\",source=\"cookie\"} 5\n\
             lanekeeper_quota_total{quota=\"per-user\",verdict=\"refused\"} 6\n\
             lanekeeper_config_hash{plugin=\"gateway\"} 4294967295\n\
             lanekeeper_config_rejected{plugin=\"gateway\"} 1\n",
        );
        let sources = |version: &str, source: &str| metrics.sources[version].get(source).copied();
        assert_eq!(sources("stable", "slot"), Some(3));
        assert_eq!(sources("stable", "cookie"), None);
        assert_eq!(sources("canary", "slot"), Some(4));
        assert_eq!(sources("canary", "cookie"), Some(5));
        assert_eq!(metrics.quotas["per-user"]["refused"], 6);
        assert_eq!((metrics.hash, metrics.rejected), (Some(u32::MAX), true));
        assert_eq!(Metrics::parse(""), Metrics::default());
    }
}
