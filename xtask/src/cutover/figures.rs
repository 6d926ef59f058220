//! What the client measured, and how it compares.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// A plain Service, switched in a small cluster.
pub(super) const TO_BEAT: Measures = Measures {
    rate: 350.0,
    failures: 0,
    flicker: Duration::from_millis(10),
};

/// Of one cutover.
#[derive(Debug, PartialEq)]
pub(super) struct Figures {
    requests: u64,
    measures: Measures,
    reasons: String,
    /// The versions that answered, in the order of their first answers.
    versions: Vec<String>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measures {
    /// Requests a second.
    rate: f64,
    failures: u64,
    flicker: Duration,
}

impl Figures {
    /// Those of a summary of `lanekeeper traffic`.
    pub(super) fn of(summary: &Value) -> Result<Self> {
        let number = |field| summary[field].as_u64().context(field);
        let versions = summary["versions"].as_array().context("versions")?;
        let name = |version: &Value| version["version"].as_str().map(str::to_owned);
        let names = versions
            .iter()
            .map(|version| name(version).context("version"));
        let names = names.collect::<Result<Vec<_>>>()?;
        let flicker = match versions.as_slice() {
            [old, new] => {
                let overlap = old["last_ms"].as_f64().context("last_ms")?
                    - new["first_ms"].as_f64().context("first_ms")?;
                Duration::from_secs_f64(overlap.max(0.0) / 1e3)
            }
            _ => Duration::ZERO,
        };
        Ok(Self {
            requests: number("requests")?,
            measures: Measures {
                rate: summary["rate"].as_f64().context("rate")?,
                failures: number("failures")?,
                flicker,
            },
            reasons: summary["reasons"].to_string(),
            versions: names,
        })
    }

    /// What must not be.
    pub(super) fn fault(&self) -> Option<String> {
        let (failures, requests) = (self.measures.failures, self.requests);
        if failures > 0 {
            let reasons = &self.reasons;
            return Some(format!(
                "{failures} of {requests} requests failed: {reasons}"
            ));
        }
        let moved = self.versions == ["blue", "green"];
        (!moved).then(|| format!("not from blue to green, but {}", self.versions.join(", ")))
    }
}

impl Measures {
    fn beats(&self, other: &Self) -> bool {
        self.rate > other.rate && self.failures <= other.failures && self.flicker < other.flicker
    }

    /// Each measure by itself, in the order from the best to the worst.
    fn ranked(runs: &[Figures]) -> Vec<Self> {
        let mut rates: Vec<_> = runs.iter().map(|run| run.measures.rate).collect();
        let mut failures: Vec<_> = runs.iter().map(|run| run.measures.failures).collect();
        let mut flickers: Vec<_> = runs.iter().map(|run| run.measures.flicker).collect();
        rates.sort_by(|a, b| b.total_cmp(a));
        failures.sort_unstable();
        flickers.sort_unstable();
        let measures = rates.into_iter().zip(failures).zip(flickers);
        let measures = measures.map(|((rate, failures), flicker)| Self {
            rate,
            failures,
            flicker,
        });
        measures.collect()
    }
}

impl fmt::Display for Measures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flicker = format!("{:.1} ms", self.flicker.as_secs_f64() * 1e3);
        let Self { rate, failures, .. } = self;
        write!(f, "{rate:>10.0}{failures:>8}{flicker:>12}")
    }
}

/// A line for each of these runs, and for their median and worst.
pub(super) fn table(name: &str, runs: &[Figures]) -> Vec<String> {
    let line = |what: String, requests: String, measures: Measures| {
        let beaten = if measures.beats(&TO_BEAT) {
            "yes"
        } else {
            "no"
        };
        format!("{name:12}{what:8}{requests:>10}{measures}  {beaten}")
    };
    let run = |(index, run): (usize, &Figures)| {
        let what = format!("run {}", index + 1);
        line(what, run.requests.to_string(), run.measures)
    };
    let mut lines: Vec<_> = runs.iter().enumerate().map(run).collect();
    if let [_, _, ..] = runs {
        let ranked = Measures::ranked(runs);
        for (what, place) in [("median", runs.len() / 2), ("worst", runs.len() - 1)] {
            lines.push(line(what.to_owned(), String::new(), ranked[place]));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures(failures: u64, versions: Value) -> Figures {
        let summary = json!({
            "requests": 1000, "failures": failures, "reasons": { "status 503": failures },
            "rate": 400.0, "versions": versions,
        });
        Figures::of(&summary).expect("a summary")
    }

    #[test]
    fn the_flicker_is_how_long_both_answered() {
        let versions = |last: f64| {
            json!([
                { "version": "blue", "first_ms": 1.0, "last_ms": last },
                { "version": "green", "first_ms": 500.0, "last_ms": 900.0 },
            ])
        };
        let flicker = |last| figures(0, versions(last)).measures.flicker;
        assert_eq!(flicker(504.5), Duration::from_micros(4500));
        assert_eq!(flicker(499.0), Duration::ZERO);
    }

    #[test]
    fn a_failed_request_and_anything_but_blue_and_then_green_is_a_fault() {
        let version = |name| json!({ "version": name, "first_ms": 1.0, "last_ms": 2.0 });
        let [blue, green] = [version("blue"), version("green")];
        assert_eq!(figures(0, json!([blue, green])).fault(), None);
        let failed = figures(1, json!([blue, green])).fault().expect("a fault");
        assert!(
            failed.contains("1 of 1000") && failed.contains("503"),
            "{failed}"
        );
        for versions in [
            json!([]),
            json!([blue]),
            json!([green, blue]),
            json!([blue, green, blue]),
        ] {
            assert!(figures(0, versions.clone()).fault().is_some(), "{versions}");
        }
    }

    fn run(rate: f64, flicker: u64) -> Figures {
        let measures = Measures {
            rate,
            failures: 0,
            flicker: Duration::from_millis(flicker),
        };
        Figures {
            requests: 1000,
            measures,
            reasons: String::new(),
            versions: vec!["blue".to_owned(), "green".to_owned()],
        }
    }

    #[test]
    fn every_line_says_whether_it_beats_what_is_to_beat() {
        for (rate, flicker, beaten) in [
            (351.0, 9, "yes"),
            (350.0, 9, "no"),
            (4000.0, 10, "no"),
            (349.0, 90, "no"),
        ] {
            let lines = table("by policy", &[run(rate, flicker)]);
            assert!(
                matches!(&lines[..], [line] if line.ends_with(&format!("  {beaten}"))),
                "{lines:?}"
            );
        }
        let failed = figures(1, json!([]));
        assert!(table("by policy", &[failed])[0].ends_with("  no"));
    }

    #[test]
    fn median_and_worst_are_of_each_figure_by_itself() {
        let runs = [run(300.0, 2), run(500.0, 90), run(400.0, 4)];
        let lines = table("by Service", &runs);
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines.len(), 5);
        assert_eq!(
            words(&lines[3]).join(" "),
            "by Service median 400 0 4.0 ms yes"
        );
        assert_eq!(
            words(&lines[4]).join(" "),
            "by Service worst 300 0 90.0 ms no"
        );
        let two = table("by Service", &runs[..2]);
        assert_eq!(
            words(&two[2]).join(" "),
            "by Service median 300 0 90.0 ms no"
        );
    }
}
