//! What the repository has, and the data sets, which it does not.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use text::{Model, Task};
use training::metrics::Metrics;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where the committed artefacts are.
pub(crate) fn committed() -> PathBuf {
    Path::new(ROOT).join("services/model-service/models")
}

pub(crate) fn read(directory: &Path, file: &str) -> String {
    let path = directory.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn prefix(task: Task) -> &'static str {
    match task {
        Task::SmsSpam => "sms",
        Task::ReviewSentiment => "review",
    }
}

/// The committed figures.
pub(crate) fn metrics(task: Task) -> Metrics {
    let json = read(&committed(), &format!("{}-metrics.json", prefix(task)));
    serde_json::from_str(&json).expect("metrics")
}

/// The committed model.
pub(crate) fn model(task: Task, version: &str) -> Model {
    let json = read(&committed(), &format!("{}-{version}.json", prefix(task)));
    Model::from_json(json.as_bytes()).expect("a model")
}

/// The directory of the data set, where this machine has it; else the test says so and does without.
pub(crate) fn data_set(task: Task) -> Option<PathBuf> {
    let (variable, usual) = match task {
        Task::SmsSpam => ("SMS_DATA", "sms-spam-collection"),
        Task::ReviewSentiment => ("REVIEW_DATA", "sentiment-labelled-sentences"),
    };
    let usual = Path::new(ROOT).join("../shared/data").join(usual);
    match std::env::var_os(variable) {
        Some(data) => Some(PathBuf::from(data)),
        None if usual.exists() => Some(usual),
        None => {
            let reason = format!("SKIPPED: no data for {task}; let {variable} name its directory");
            // Not println!, which only shows when a test fails.
            writeln!(std::io::stderr(), "{reason}").expect("written");
            None
        }
    }
}
