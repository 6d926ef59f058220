//! Judges an experiment by what Prometheus counted: is the treatment better than the control?
//!
//! The method and its sources are in this directory's README.md. [`Progress`] and [`judge()`] are pure:
//! the command feeds them what Prometheus says, tests what they make up.

mod always_valid;
mod experiment;
mod jackknife;
mod judge;
mod observe;
mod progress;
mod prometheus;
mod report;
mod sample_ratio;
mod sample_size;
mod sums;

pub use experiment::{
    Experiment, Label, Matcher, Matchers, MetricName, Metrics, Percent, Time, Users,
};
pub use jackknife::LogRatio;
pub use judge::{Figure, Judgement, Of, Verdict, judge};
pub use observe::{RESOLUTION, counts, outcome};
pub use progress::{Counter, Counts, Progress, Series, Slots};
pub use prometheus::{Address, Prometheus};
pub use report::{json, text};
pub use sample_ratio::SampleRatio;
pub use sample_size::{Expected, Misses};
pub use sums::{BUCKETS, Outcome, Sums};
