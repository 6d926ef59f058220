//! A model in the shadow, judged by the one that most users have.

use std::fs;

use reqwest::StatusCode;
use serde_json::{Value, json};
use service_kit::testing::{Process, client, refusal};

const PROGRAM: &str = env!("CARGO_BIN_EXE_model-service");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");

const MESSAGES: usize = 200;

fn committed(name: &str) -> String {
    format!("{MODELS}/{name}.json")
}

fn shadow(model: &str, champion: &str) -> Process {
    let settings = [
        ("MODEL_FILE", model),
        ("CHAMPION_FILE", champion),
        ("VERSION", "shadow"),
    ];
    Process::start(PROGRAM, &settings).expect("starts")
}

/// Calls everything ham.
fn broken() -> String {
    r#"{"format":1,"name":"broken","features":"word-counts","dimensions":1,"bias":-9.0,"weights":[0.0]}"#.to_owned()
}

/// One in eight is spam, as in the data set.
fn message(number: usize) -> String {
    let people = ["mum", "the boss", "Anna", "my brother", "everybody"];
    let who = people[number % people.len()];
    match number % 8 {
        3 => format!(
            "URGENT! You have WON a £{number} prize. Call 0906{number} now to claim, txt STOP to end"
        ),
        _ => format!("Ok, I will tell {who} that we are home late, see you at {number}"),
    }
}

async fn ask(service: &Process, number: usize) -> Value {
    let response = client()
        .expect("client")
        .post(format!("{}/predict", service.url))
        .header("x-request-id", format!("request-{number}"))
        .json(&json!({ "sms": message(number) }))
        .send()
        .await
        .expect("answers");
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.expect("JSON")
}

/// The value of a series.
async fn metric(service: &Process, series: &str) -> f64 {
    let metrics = client()
        .expect("client")
        .get(format!("{}/metrics", service.url));
    let metrics = metrics
        .send()
        .await
        .expect("answers")
        .text()
        .await
        .expect("text");
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{series} is not in\n{metrics}"));
    value.parse().expect("a number")
}

async fn compared(service: &Process, champion: &str, challenger: &str) -> f64 {
    let labels = format!(r#"challenger="{challenger}",champion="{champion}",version="shadow""#);
    metric(service, &format!("model_comparison_total{{{labels}}}")).await
}

/// The rule of the README: of ten or more messages that the champion calls spam, the challenger misses
/// the half.
async fn is_exposed(shadow: &Process) -> bool {
    let seen = compared(shadow, "spam", "spam").await + compared(shadow, "spam", "ham").await;
    let series = r#"model_agreement_by_champion_ratio{champion="spam",version="shadow"}"#;
    seen >= 10.0 && metric(shadow, series).await < 0.5
}

#[tokio::test]
async fn a_broken_challenger_is_exposed_within_200_messages_and_users_see_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("broken.json");
    fs::write(&file, broken()).expect("written");
    let stable = committed("sms-stable");
    let shadow = shadow(file.to_str().expect("UTF-8"), &stable);
    let users = Process::start(PROGRAM, &[("MODEL_FILE", &stable)]).expect("starts");

    let (mut exposed_after, mut spam) = (None, 0.0);
    for number in 0..MESSAGES {
        let result = ask(&users, number).await["result"].clone();
        spam += f64::from(u8::from(result == "spam"));
        assert_eq!(ask(&shadow, number).await["result"], "ham");
        if exposed_after.is_none() && is_exposed(&shadow).await {
            exposed_after = Some(number + 1);
        }
    }
    let after = exposed_after.expect("exposed");
    println!("exposed after {after} messages");

    // What users got is what the champion is counted for.
    assert_eq!(spam, 25.0);
    assert_eq!(compared(&shadow, "spam", "ham").await, spam);
    assert_eq!(compared(&shadow, "spam", "spam").await, 0.0);
    assert_eq!(compared(&shadow, "ham", "ham").await, 200.0 - spam);
    assert_eq!(compared(&shadow, "ham", "spam").await, 0.0);
    // Over all messages it looks well: hence the share by label.
    assert_eq!(
        metric(&shadow, r#"model_agreement_ratio{version="shadow"}"#).await,
        0.875
    );
}

#[tokio::test]
async fn a_sound_challenger_is_not_exposed_and_answers_as_without_a_champion() {
    let canary = committed("sms-canary");
    let shadow = shadow(&canary, &committed("sms-stable"));
    let alone = Process::start(PROGRAM, &[("MODEL_FILE", &canary)]).expect("starts");
    for number in 0..MESSAGES {
        assert_eq!(ask(&shadow, number).await, ask(&alone, number).await);
    }
    assert!(!is_exposed(&shadow).await);
    assert!(compared(&shadow, "spam", "spam").await > 20.0);
}

#[tokio::test]
async fn disagreements_are_logged_by_request_id_within_bounds_and_never_with_the_message() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("broken.json");
    fs::write(&file, broken()).expect("written");
    let shadow = shadow(file.to_str().expect("UTF-8"), &committed("sms-stable"));
    for number in 0..MESSAGES {
        ask(&shadow, number).await;
    }
    let log = shadow.stop().expect("ends");
    let lines: Vec<_> = log
        .iter()
        .filter(|line| line["message"] == "champion and challenger disagree")
        .collect();
    assert_eq!(lines.len(), 10, "of 25 disagreements");
    for (line, number) in lines.iter().zip((3..).step_by(8)) {
        assert_eq!(line["request_id"], format!("request-{number}"));
        assert_eq!(
            (&line["champion"], &line["challenger"]),
            (&json!("spam"), &json!("ham"))
        );
        assert!(line["champion_confidence"].as_f64().expect("a number") > 0.5);
        assert_eq!(line["challenger_confidence"], 0.9999);
        assert_eq!(line["unlogged"], 0);
    }
    let all = format!("{log:?}");
    for typed in ["prize", "URGENT", "mum", "home late"] {
        assert!(!all.contains(typed), "{typed} was logged");
    }
}

#[tokio::test]
async fn there_is_no_share_before_the_first_message() {
    let shadow = shadow(&committed("sms-shadow"), &committed("sms-stable"));
    assert!(
        metric(&shadow, r#"model_agreement_ratio{version="shadow"}"#)
            .await
            .is_nan()
    );
    assert_eq!(compared(&shadow, "ham", "spam").await, 0.0);
}

#[tokio::test]
async fn a_shadow_names_the_two_models_that_it_compares() {
    let shadow = shadow(&committed("sms-shadow"), &committed("sms-stable"));
    for (gauge, model, classifier) in [
        ("model_info", "sms-shadow", "logistic-regression"),
        ("model_champion_info", "sms-stable", "naive-bayes"),
    ] {
        let sum = text::sha256(&fs::read(committed(model)).expect("committed"));
        let named = format!(r#"classifier="{classifier}",sha256="{sum}",task="sms-spam""#);
        let series = format!(r#"{gauge}{{{named},version="shadow"}}"#);
        assert_eq!(metric(&shadow, &series).await, 1.0);
    }
}

#[test]
fn a_champion_that_cannot_be_compared_with_stops_the_start() {
    let stable = committed("sms-stable");
    let review = committed("review-stable");
    let wrong = "0".repeat(64);
    for (champion, said) in [
        (
            vec![("CHAMPION_FILE", review.as_str())],
            "the champion's task is review-sentiment; allowed is sms-spam, the model's",
        ),
        (
            vec![("CHAMPION_FILE", "/no/such.json")],
            "champion artefact /no/such.json",
        ),
        (
            vec![
                ("CHAMPION_FILE", stable.as_str()),
                ("CHAMPION_SHA256", wrong.as_str()),
            ],
            wrong.as_str(),
        ),
    ] {
        let mut settings = champion;
        settings.push(("MODEL_FILE", stable.as_str()));
        let error = refusal(PROGRAM, &settings);
        assert!(error.contains(said), "{error}");
    }
}
