//! The training command, and what it has left in the repository.

mod data;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use text::{Class, Model, Task, sha256};
use training::candidates::VERSIONS;
use training::data::{find, held_out};
use training::metrics::{Figures, TOLERANCE};

use data::{committed, metrics, model, read};

const TASKS: [(Task, &str); 2] = [(Task::SmsSpam, "sms"), (Task::ReviewSentiment, "review")];

fn train(task: Task, data: &Path, out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_training"))
        .args(["--task", task.as_str(), "--data"])
        .arg(data)
        .arg("--out")
        .arg(out)
        .output()
        .expect("runs")
}

fn error(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What training for one task writes.
fn files(prefix: &str) -> Vec<String> {
    let artefacts = VERSIONS.map(|version| format!("{prefix}-{version}.json"));
    let others = [format!("{prefix}-metrics.json"), "SHA256SUMS".to_owned()];
    artefacts.into_iter().chain(others).collect()
}

/// Made-up messages: spam offers prizes, ham makes appointments. With `confusion`, every second one is
/// labelled at random.
fn made_up(confusion: bool) -> String {
    let mut lines = String::new();
    for n in 0..40 {
        let word = "na".repeat(n + 1);
        let [spam, ham] = match confusion && n % 2 == 0 {
            true => ["ham", "spam"],
            false => ["spam", "ham"],
        };
        lines += &format!("{spam}\tWIN {word} a free prize {word}i, call {word}o 0900{n}\n");
        lines += &format!("{ham}\tsee you {word}u at the {word} tonight {word}e at {n}\n");
        lines += &format!("ham\tlove {word}a to all {word}\n");
    }
    lines + "ham\tLove  naa to all NA\n"
}

fn write_sms(directory: &Path, lines: &str) {
    fs::write(directory.join("SMSSpamCollection"), lines).expect("written");
}

#[test]
fn training_twice_gives_the_same_bytes_and_models_that_work() {
    let data = tempfile::tempdir().expect("directory");
    write_sms(data.path(), &made_up(false));
    let (first, second) = (data.path().join("1"), data.path().join("2"));

    let output = train(Task::SmsSpam, data.path(), &first);
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.starts_with(
            "sms-spam: 121 lines, 1 duplicates dropped; 96 texts to train on (32 spam), \
             24 to measure on (8 spam)"
        ),
        "{printed}"
    );
    assert!(
        printed.contains("| naive-bayes | words, 4096 buckets | stable | 1.0000 ± 0.0000 |"),
        "{printed}"
    );
    assert!(train(Task::SmsSpam, data.path(), &second).status.success());
    for file in files("sms") {
        assert!(
            read(&first, &file) == read(&second, &file),
            "{file} differs"
        );
    }
    for version in VERSIONS {
        let file = read(&first, &format!("sms-{version}.json"));
        let model = Model::from_json(file.as_bytes()).expect("a model");
        let class = |text| model.predict(text).class;
        assert_eq!(class("you can win a prize"), Class::Positive, "{version}");
        assert_eq!(class("see you tonight"), Class::Negative, "{version}");
        assert!(
            !file.contains("prize") && !file.contains("tonight"),
            "words of messages"
        );
    }
}

#[test]
fn a_model_that_is_worse_than_the_one_before_is_not_written() {
    let data = tempfile::tempdir().expect("directory");
    let out = data.path().join("out");
    write_sms(data.path(), &made_up(false));
    assert!(train(Task::SmsSpam, data.path(), &out).status.success());
    let before: Vec<_> = files("sms").iter().map(|file| read(&out, file)).collect();

    write_sms(data.path(), &made_up(true));
    let error = error(&train(Task::SmsSpam, data.path(), &out));
    assert!(error.contains("nothing was written"), "{error}");
    for version in VERSIONS {
        assert!(error.contains(&format!("{version}: F1 0.")), "{error}");
    }
    assert!(error.contains("allowed is 0.9800 or more"), "{error}");
    for (file, before) in files("sms").iter().zip(before) {
        assert!(read(&out, file) == before, "{file} has changed");
    }
}

#[test]
fn the_best_there_was_is_what_models_are_measured_against() {
    let data = tempfile::tempdir().expect("directory");
    let out = data.path().join("out");
    write_sms(data.path(), &made_up(false));
    assert!(train(Task::SmsSpam, data.path(), &out).status.success());
    let written = read(&out, "sms-metrics.json");
    // As if canary had been better once: by a little, and by too much.
    let once = |f1: &str| {
        let before = written.replacen(r#""canary": 1.0"#, &format!(r#""canary": {f1}"#), 1);
        fs::write(out.join("sms-metrics.json"), &before).expect("written");
        before
    };
    let better = once("1.019");
    assert_ne!(better, written);
    for _ in 0..2 {
        assert!(train(Task::SmsSpam, data.path(), &out).status.success());
        assert_eq!(read(&out, "sms-metrics.json"), better);
    }
    once("1.021");
    let error = error(&train(Task::SmsSpam, data.path(), &out));
    assert!(error.contains("the best so far, 1.0210"), "{error}");
}

#[test]
fn data_that_is_not_fit_is_not_trained_on() {
    let data = tempfile::tempdir().expect("directory");
    let out = data.path().join("out");
    for (lines, said) in [
        (
            "ham\tfine\neggs\tbad\n".to_owned(),
            "SMSSpamCollection: line 2",
        ),
        (
            made_up(false).repeat(2),
            "duplicates: lines whose text had occurred before: 50.4 %; allowed is up to 10.0 %",
        ),
        (
            made_up(false)
                .replace("ham\tlove", "spam\tlove")
                .replace("ham\tLove", "spam\tLove"),
            "balance: spam",
        ),
    ] {
        write_sms(data.path(), &lines);
        let error = error(&train(Task::SmsSpam, data.path(), &out));
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("cross-validation"), "it had begun: {error}");
    }
    let error = error(&train(Task::ReviewSentiment, Path::new("no/such"), &out));
    assert!(
        error.contains("no/such/amazon_cells_labelled.txt"),
        "{error}"
    );
    assert!(!out.exists());
}

#[test]
fn committed_artefacts_match_their_checksums() {
    let sums = read(&committed(), "SHA256SUMS");
    let listed: Vec<_> = sums
        .lines()
        .map(|line| line.split_once("  ").expect("sum and file"))
        .collect();
    assert_eq!(
        listed.len(),
        2 * 4,
        "three artefacts and metrics for each task"
    );
    for (sum, file) in listed {
        assert_eq!(sha256(read(&committed(), file).as_bytes()), sum, "{file}");
    }
}

#[test]
fn the_model_card_has_the_figures_of_the_metrics() {
    let card = read(&committed(), "README.md");
    for (task, _) in TASKS {
        let metrics = metrics(task);
        let report = metrics.report();
        for part in report.split("\n\n").filter(|part| part.starts_with('|')) {
            assert!(
                card.contains(part.trim_end()),
                "the card does not say:\n{part}"
            );
        }
        let summary = report.lines().next().expect("a summary");
        assert!(card.contains(summary), "the card does not say:\n{summary}");
        for (file, sum) in metrics.files {
            assert!(
                card.contains(&format!("| `{file}` | `{sum}` |")),
                "{file}: {sum}"
            );
        }
    }
}

#[test]
fn canary_is_the_best_by_cross_validation_and_all_beat_the_majority() {
    for (task, _) in TASKS {
        let metrics = metrics(task);
        let of = |version: &str| {
            let mut candidates = metrics.candidates.iter();
            let of_version = candidates.find(|c| c.version.as_deref() == Some(version));
            of_version.expect("compared")
        };
        let best = metrics
            .candidates
            .iter()
            .map(|c| c.f1.mean)
            .fold(0.0, f64::max);
        assert_eq!(of("canary").f1.mean, best, "{task}");
        assert_eq!(of("stable").model, "naive-bayes", "{task}");
        let majority = metrics.candidates.iter().find(|c| c.model == "majority");
        let majority = majority.expect("compared").accuracy.mean;
        for version in VERSIONS {
            assert!(
                of(version).accuracy.mean > majority + 0.05,
                "{task}: {version}"
            );
        }
    }
}

#[test]
fn committed_models_are_as_good_as_the_card_says_on_texts_they_have_not_seen() {
    for (task, _) in TASKS {
        let Some(texts) = held_out(task).expect("good data") else {
            continue;
        };
        for version in VERSIONS {
            let figures = Figures::measure(version, &model(task, version), &texts);
            let card = metrics(task);
            let card = card.of(version).expect("measured");
            assert!(figures.f1 >= card.f1 - TOLERANCE, "{task}: {figures:?}");
            assert_eq!(&figures, card, "{task}");
        }
    }
}

#[test]
fn training_on_the_data_sets_gives_the_committed_files() {
    let out = tempfile::tempdir().expect("directory");
    for (task, prefix) in TASKS {
        let Some(directory) = find(task) else {
            continue;
        };
        // They keep the best there was.
        let metrics = format!("{prefix}-metrics.json");
        fs::copy(committed().join(&metrics), out.path().join(&metrics)).expect("copied");
        let output = train(task, &directory, out.path());
        assert!(output.status.success(), "{output:?}");
        for file in files(prefix).iter().filter(|file| *file != "SHA256SUMS") {
            assert!(
                read(out.path(), file) == read(&committed(), file),
                "{file} differs"
            );
        }
    }
}
