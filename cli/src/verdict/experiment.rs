//! The experiment as it was declared beforehand.

use std::path::Path;
use std::time::UNIX_EPOCH;

use lanekeeper_policy::document::{Fault, Faults, Read};
use lanekeeper_policy::{is_version_name, object, text};
use serde_json::{Value, json};

use crate::{LoadError, file_name, read_document};

object! {
    /// An experiment: what is compared, how many users it takes, and what the treatment has to reach. Written before it starts, and not changed while it runs.
    pub struct Experiment {
        /// The rollout of the policy, whose new users are counted.
        rollout: Label,
        /// The version to compare with.
        control: Label,
        /// The version on trial.
        treatment: Label,
        /// Since when users, corrections and latency count.
        start: Time,
        /// How many new users, of both versions together, are waited for before the verdict; `lanekeeper sample-size` computes it.
        users: Users,
        /// By how much the correction rate has to rise at least, in percent of the control's. Default: 10.
        minimal_rise: Percent = Percent(1000),
        /// Mean and 95th percentile of latency have to rise by less than this, in percent of the control's. Default: 5.
        maximal_latency_rise: Percent = Percent(500),
        /// What the metrics are called.
        metrics: Metrics = Metrics::default(),
        /// What narrows the metrics down.
        matchers: Matchers = Matchers::default(),
    }
}

object! {
    /// What the metrics are called.
    pub struct Metrics {
        /// The filter's counter of new users. Default: `lanekeeper_assignments_total`.
        assignments: MetricName = MetricName("lanekeeper_assignments_total".to_owned()),
        /// The filter's gauge of the slots by which newcomers get a version. Default: `lanekeeper_slots`.
        slots: MetricName = MetricName("lanekeeper_slots".to_owned()),
        /// The counter of predictions. Default: `review_predictions_total`.
        predictions: MetricName = MetricName("review_predictions_total".to_owned()),
        /// The counter of predictions that users corrected. Default: `review_overrides_total`.
        corrections: MetricName = MetricName("review_overrides_total".to_owned()),
        /// The histogram of seconds to an answer, without `_bucket`. Default: `answer_duration_seconds`.
        latency: MetricName = MetricName("answer_duration_seconds".to_owned()),
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::read(&json!({}), "metrics", &mut Faults::default())
    }
}

object! {
    /// Label matchers of PromQL, where Prometheus scrapes more than one of a kind.
    pub struct Matchers {
        /// For the metrics of the filter. Default: none.
        filter: Matcher = Matcher(String::new()),
        /// For the metrics of the service, as in `namespace="sentiment"`. Default: none.
        service: Matcher = Matcher(String::new()),
    }
}

impl Default for Matchers {
    fn default() -> Self {
        Self::read(&json!({}), "matchers", &mut Faults::default())
    }
}

text! {
    /// A name of the policy.
    pub struct Label: "a name of up to 63 lower-case letters, digits and hyphens", is_version_name
}

text! {
    /// The name of a metric in Prometheus.
    pub struct MetricName: "the name of a metric: letters, digits, _ and :", is_metric_name
}

text! {
    /// Label matchers, with commas between.
    pub struct Matcher: "label matchers as in namespace=\"sentiment\", or none", is_matcher
}

impl Label {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_metric_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
    text.bytes().all(inner) && !text.is_empty() && !text.as_bytes()[0].is_ascii_digit()
}

/// What is faulty within a quoted value, Prometheus says: here it matters that the braces of the
/// selector close where they should.
fn is_matcher(text: &str) -> bool {
    let mut rest = text.trim();
    while !rest.is_empty() {
        let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, matched) = rest.split_at(name.unwrap_or(rest.len()));
        let value = ["=~", "!~", "!=", "="]
            .iter()
            .find_map(|operator| matched.trim_start().strip_prefix(operator))
            .and_then(|value| value.trim_start().strip_prefix('"'));
        let Some(value) = value.filter(|_| !name.is_empty()) else {
            return false;
        };
        let mut escaped = false;
        let end = value.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some((_, after)) = end.and_then(|end| value.split_at_checked(end + 1)) else {
            return false;
        };
        rest = match after.trim_start().strip_prefix(',') {
            Some(next) if next.trim().is_empty() => return false,
            Some(next) => next.trim_start(),
            None if after.trim().is_empty() => "",
            None => return false,
        };
    }
    true
}

/// A point in time, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

impl std::str::FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = humantime::parse_rfc3339(text).ok();
        let seconds = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        seconds
            .map(|seconds| Self(seconds.as_secs()))
            .ok_or_else(|| format!("allowed is {A_TIME}"))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = UNIX_EPOCH + std::time::Duration::from_secs(self.0);
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

const A_TIME: &str = "a time in UTC as in 2026-11-02T08:00:00Z";

impl Read for Time {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let time = value.as_str().and_then(|text| text.parse().ok());
        time.unwrap_or_else(|| {
            faults.add(path, value, A_TIME);
            Self::stand_in()
        })
    }

    fn stand_in() -> Self {
        Self(0)
    }

    fn schema() -> Value {
        json!({ "type": "string", "format": "date-time", "description": A_TIME })
    }
}

/// A number of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users(pub u32);

impl Users {
    /// As few can be planned.
    pub(super) const FEWEST: u32 = 100;
    /// As many can be planned.
    pub(super) const MOST: u32 = 1_000_000_000;
}

impl Read for Users {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (Self::FEWEST..=Self::MOST).contains(number)) {
            Some(number) => Self(number),
            None => {
                let (fewest, most) = (Self::FEWEST, Self::MOST);
                let allowed = format!("a whole number from {fewest} to {most}");
                faults.add(path, value, &allowed);
                Self::stand_in()
            }
        }
    }

    fn stand_in() -> Self {
        Self(Self::FEWEST)
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": Self::FEWEST, "maximum": Self::MOST })
    }
}

/// A rise, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u32);

impl Percent {
    const MOST: f64 = 1000.0;

    /// As a fraction: 0.1 for 10 %.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl Read for Percent {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let hundredths = value.as_f64().map(|percent| percent * 100.0);
        // What decimal fractions lose in binary.
        let whole = |number: &f64| {
            (0.0..=Self::MOST * 100.0).contains(number) && (number - number.round()).abs() < 1e-6
        };
        match hundredths.filter(whole) {
            Some(number) => Self(number.round() as u32),
            None => {
                let allowed = "a percentage from 0 to 1000 with at most two decimals";
                faults.add(path, value, allowed);
                Self::stand_in()
            }
        }
    }

    fn stand_in() -> Self {
        Self(0)
    }

    fn schema() -> Value {
        json!({ "type": "number", "minimum": 0, "maximum": Self::MOST, "multipleOf": 0.01 })
    }
}

impl Experiment {
    /// Reads the experiment of a file (YAML or JSON; `-` is the standard input).
    ///
    /// # Errors
    /// The file cannot be read, or holds an experiment with faults.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::compile(&read_document(path)?).map_err(|faults| LoadError::Faulty {
            file: file_name(path),
            faults: faults.iter().map(explain).collect(),
        })
    }

    /// Reads an experiment from its document.
    ///
    /// # Errors
    /// All faults.
    pub fn compile(document: &Value) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let experiment = Self::read(document, "", &mut faults);
        if faults.is_empty() && experiment.control == experiment.treatment {
            let allowed = "another version than the control";
            faults.add_string("treatment", experiment.treatment.as_str(), allowed);
        }
        match faults.is_empty() {
            true => Ok(experiment),
            false => Err(faults),
        }
    }

    /// The JSON Schema of an experiment.
    pub fn schema() -> Value {
        let mut schema = <Self as Read>::schema();
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["title"] = "Experiment".into();
        schema
    }

    /// Control and treatment, in this order, as everywhere.
    pub fn versions(&self) -> [&str; 2] {
        [self.control.as_str(), self.treatment.as_str()]
    }

    /// How many users are planned.
    pub fn planned(&self) -> u64 {
        self.users.0.into()
    }
}

/// The fault of a document that is no object stands at no field.
fn explain(fault: &Fault) -> Fault {
    let mut explained = fault.clone();
    if explained.path == "policy" {
        explained.path = "experiment".to_owned();
    }
    explained
}
