//! The training command, and what it has left in the repository.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sms::{Label, Model, sha256};
use sms_training::metrics::Metrics;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const FILES: [&str; 4] = [
    "SHA256SUMS",
    "metrics.json",
    "sms-canary.json",
    "sms-stable.json",
];

fn train(data: &Path, out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sms-training"))
        .arg("--data")
        .arg(data)
        .arg("--out")
        .arg(out)
        .output()
        .expect("runs")
}

fn read(directory: &Path, file: &str) -> String {
    let path = directory.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn committed() -> PathBuf {
    Path::new(ROOT).join("services/model-service/models")
}

fn committed_metrics() -> Metrics {
    serde_json::from_str(&read(&committed(), "metrics.json")).expect("metrics")
}

/// Made-up messages: spam offers prizes, ham makes appointments.
fn made_up() -> String {
    let mut lines = String::new();
    for n in 0..20 {
        let word = "na".repeat(n + 1);
        lines += &format!("spam\tWIN a free prize {word}, call 0900{n}\n");
        lines += &format!("ham\tsee you at the {word} tonight at {n}\n");
        lines += &format!("ham\tlove you {word}\n");
    }
    lines + "ham\tLove  you na\n"
}

#[test]
fn training_twice_gives_the_same_bytes_and_models_that_work() {
    let directory = tempfile::tempdir().expect("directory");
    let data = directory.path().join("SMSSpamCollection");
    fs::write(&data, made_up()).expect("written");
    let (first, second) = (directory.path().join("1"), directory.path().join("2"));

    let output = train(directory.path(), &first);
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.starts_with("61 lines, 1 duplicates dropped; 48 messages to train on"),
        "{printed}"
    );
    assert!(train(&data, &second).status.success());
    for file in FILES {
        assert!(read(&first, file) == read(&second, file), "{file} differs");
    }
    for file in ["sms-stable.json", "sms-canary.json"] {
        let model = Model::from_json(read(&first, file).as_bytes()).expect("a model");
        assert_eq!(model.classify("you can win a prize"), Label::Spam, "{file}");
        assert_eq!(model.classify("see you tonight"), Label::Ham, "{file}");
    }
}

#[test]
fn artefacts_hold_no_words_of_messages() {
    let directory = tempfile::tempdir().expect("directory");
    let data = directory.path().join("data");
    fs::write(&data, made_up()).expect("written");
    assert!(train(&data, directory.path()).status.success());
    for file in FILES {
        let text = read(directory.path(), file);
        assert!(
            !text.contains("prize") && !text.contains("tonight"),
            "{file}"
        );
    }
}

#[test]
fn bad_data_is_an_error_that_names_file_and_line() {
    let directory = tempfile::tempdir().expect("directory");
    let data = directory.path().join("data.txt");
    fs::write(&data, "ham\tfine\neggs\tbad\n").expect("written");
    for (data, parts) in [
        (
            data,
            ["data.txt", "line 2", "\"eggs\": allowed are spam and ham"],
        ),
        ("no/such".into(), ["Error", "no/such", "No such file"]),
    ] {
        let output = train(&data, directory.path());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn committed_artefacts_match_their_checksums() {
    let sums = read(&committed(), "SHA256SUMS");
    assert_eq!(sums.lines().count(), 3);
    for line in sums.lines() {
        let (sum, file) = line.split_once("  ").expect("sum and file");
        assert_eq!(sha256(read(&committed(), file).as_bytes()), sum, "{file}");
    }
}

#[test]
fn the_model_card_has_the_figures_of_the_metrics() {
    let card = read(&committed(), "README.md");
    let metrics = committed_metrics();
    for figures in [metrics.summary(), metrics.table(), metrics.data_sha256] {
        assert!(card.contains(&figures), "the card does not say:\n{figures}");
    }
}

#[test]
fn both_models_are_good_and_canary_is_better() {
    let metrics = committed_metrics();
    let f1 = |version| {
        let mut of_version = metrics.models.iter().filter(|m| m.version == version);
        of_version.next().expect("measured").f1
    };
    assert!(f1("stable") > 0.90 && f1("canary") > f1("stable"));
}

#[test]
fn training_on_the_data_set_gives_the_committed_files() {
    let usual = Path::new(ROOT).join("../shared/data/sms-spam-collection");
    let data = match std::env::var_os("SMS_DATA") {
        Some(data) => PathBuf::from(data),
        None if usual.exists() => usual,
        None => {
            let reason = "SKIPPED: no SMS Spam Collection; let SMS_DATA name its directory";
            // Not println!, which only shows when a test fails.
            writeln!(std::io::stderr(), "{reason}").expect("written");
            return;
        }
    };
    let out = tempfile::tempdir().expect("directory");
    let output = train(&data, out.path());
    assert!(output.status.success(), "{output:?}");
    for file in FILES {
        assert!(
            read(out.path(), file) == read(&committed(), file),
            "{file} differs"
        );
    }
}
