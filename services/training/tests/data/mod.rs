//! What the repository has.

use std::fs;
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
