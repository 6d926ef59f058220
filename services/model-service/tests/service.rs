//! The model service as a process: what it promises to those who call it and those who run it.

use std::fs;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use service_kit::testing::{Process, check_help, client, command, refusal};

const PROGRAM: &str = env!("CARGO_BIN_EXE_model-service");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");

/// The service with a model of the SMS checker.
fn start(version: &str) -> Process {
    start_with("sms", version)
}

fn start_with(task: &str, version: &str) -> Process {
    let file = format!("{MODELS}/{task}-{version}.json");
    Process::start(PROGRAM, &[("MODEL_FILE", &file), ("VERSION", version)]).expect("starts")
}

async fn post(url: &str, path: &str, body: Value) -> Response {
    let request = client().expect("client").post(format!("{url}{path}"));
    request.json(&body).send().await.expect("answers")
}

async fn predict(url: &str, sms: &str) -> Response {
    post(url, "/predict", json!({ "sms": sms })).await
}

async fn get(url: &str, path: &str) -> Response {
    let request = Client::get(&client().expect("client"), format!("{url}{path}"));
    request.send().await.expect("answers")
}

#[tokio::test]
async fn every_model_tells_spam_from_ham() {
    for (model, classifier) in [
        ("stable", "naive-bayes"),
        ("canary", "linear-svm"),
        ("shadow", "logistic-regression"),
    ] {
        let service = start(model);
        for (sms, result) in [
            (
                "WINNER!! Claim your FREE prize now, call 09061701461 or text WIN to 80086",
                "spam",
            ),
            ("ok, see you at home after class then", "ham"),
        ] {
            let response = predict(&service.url, sms).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(
                response.headers()["x-served-by"],
                format!("model-service;v={model}")
            );
            let body: Value = response.json().await.expect("JSON");
            assert_eq!(
                body,
                json!({ "result": result, "classifier": classifier, "sms": sms })
            );
        }
    }
}

#[tokio::test]
async fn every_model_tells_praise_from_blame_and_how_sure_it_is() {
    for (version, classifier) in [
        ("stable", "naive-bayes"),
        ("canary", "nb-logistic-regression"),
        ("shadow", "logistic-regression"),
    ] {
        let service = start_with("review", version);
        for (review, prediction) in [
            ("What a wonderful place, the food was excellent!", 1),
            ("Terrible service and awful food, a waste of money.", 0),
        ] {
            let response = post(&service.url, "/v1/predict", json!({ "review": review })).await;
            assert_eq!(response.status(), StatusCode::OK);
            let body: Value = response.json().await.expect("JSON");
            assert_eq!(body["prediction"], prediction, "{version}: {review}");
            assert_eq!(body["classifier"], classifier);
            let confidence = body["confidence"].as_f64().expect("a number");
            assert!((0.7..=1.0).contains(&confidence), "{version}: {confidence}");
            assert_eq!(body.as_object().expect("an object").len(), 3, "{body}");
        }
        for review in ["?", &"x".repeat(2000), "not bad at all"] {
            let answer = post(&service.url, "/v1/predict", json!({ "review": review })).await;
            let answer: Value = answer.json().await.expect("JSON");
            let confidence = answer["confidence"].as_f64().expect("a number");
            assert!((0.5..=1.0).contains(&confidence), "{version}: {confidence}");
        }
    }
}

#[tokio::test]
async fn the_endpoint_of_another_task_does_not_exist() {
    for (task, own, other) in [
        ("sms", "/predict", "/v1/predict"),
        ("review", "/v1/predict", "/predict"),
    ] {
        let service = start_with(task, "stable");
        let body = json!({ "sms": "hello", "review": "hello" });
        let unknown = post(&service.url, "/nowhere", body.clone()).await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        let answer = post(&service.url, other, body.clone()).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            answer.text().await.expect("text"),
            unknown.text().await.expect("text")
        );
        // It is there, and knows one field only.
        let answer = post(&service.url, own, body).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn a_review_that_is_not_one_is_refused_with_what_is_allowed() {
    let service = start_with("review", "canary");
    for (body, said) in [
        (
            json!({ "review": " " }),
            "review: blank: allowed are 1 to 2000 characters",
        ),
        (
            json!({ "review": "x".repeat(2001) }),
            "1 to 2000 characters",
        ),
        (
            json!({ "review": 1 }),
            "review: integer `1`: allowed is a string",
        ),
        (
            json!({ "review": "x", "sms": "x" }),
            "sms: unknown: allowed is review",
        ),
        (json!(["x"]), "a JSON object"),
    ] {
        let answer = post(&service.url, "/v1/predict", body).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let text = answer.text().await.expect("text");
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn the_readme_shows_what_the_model_answers() {
    let service = start("stable");
    let readme = include_str!("../../README.md");
    for (sms, result) in [
        ("Claim your FREE prize now", "spam"),
        ("see you at home", "ham"),
    ] {
        let body: Value = predict(&service.url, sms).await.json().await.expect("JSON");
        assert_eq!(body["result"], result, "{sms}");
        let shown = |line: &str| {
            let answer: Value = serde_json::from_str(line.trim()).unwrap_or_default();
            ["sms", "result", "classifier"]
                .iter()
                .all(|key| answer[key] == body[key])
        };
        assert!(readme.lines().any(shown), "{body} is not shown");
    }
    let service = start_with("review", "stable");
    let question = json!({ "review": "The food was excellent!" });
    assert!(readme.contains(r#"{"review": "The food was excellent!"}"#));
    let answer = post(&service.url, "/v1/predict", question).await;
    let answer = answer.text().await.expect("text");
    assert!(readme.contains(&answer), "{answer} is not shown");
}

#[tokio::test]
async fn a_message_up_to_the_limit_is_classified_whatever_it_is_written_in() {
    let service = start("canary");
    for sms in [
        "é".repeat(2000),
        "\u{1F600}".repeat(2000),
        "?".to_owned(),
        "\u{0}x".to_owned(),
    ] {
        assert_eq!(predict(&service.url, &sms).await.status(), StatusCode::OK);
    }
    for sms in ["x".repeat(2001), String::new(), " \n".to_owned()] {
        let response = predict(&service.url, &sms).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            response
                .text()
                .await
                .expect("text")
                .contains("1 to 2000 characters")
        );
    }
}

#[tokio::test]
async fn predictions_are_counted_by_label_and_version() {
    for (task, path, label, other) in [
        ("sms", "/predict", "ham", "spam"),
        ("review", "/v1/predict", "positive", "negative"),
    ] {
        let service = start_with(task, "stable");
        for _ in 0..3 {
            let field = if task == "sms" { "sms" } else { "review" };
            post(&service.url, path, json!({ field: "we love it" })).await;
        }
        let metrics = get(&service.url, "/metrics").await;
        let metrics = metrics.text().await.expect("text");
        let file = fs::read(format!("{MODELS}/{task}-stable.json")).expect("committed");
        let sum = text::sha256(&file);
        let named = if task == "sms" {
            "sms-spam"
        } else {
            "review-sentiment"
        };
        for line in [
            format!(r#"model_predictions_total{{label="{label}",version="stable"}} 3"#),
            format!(r#"model_predictions_total{{label="{other}",version="stable"}} 0"#),
            format!(r#"model_confidence_count{{label="{label}",version="stable"}} 3"#),
            r#"model_inference_seconds_count{version="stable"} 3"#.to_owned(),
            format!(
                r#"model_info{{classifier="naive-bayes",sha256="{sum}",task="{named}",version="stable"}} 1"#
            ),
            format!(
                r#"http_requests_total{{method="POST",route="{path}",status="200",version="stable"}} 3"#
            ),
            format!(
                r#"http_request_duration_seconds_count{{method="POST",route="{path}",version="stable"}} 3"#
            ),
        ] {
            assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
        }
        assert!(
            !metrics.contains("model_comparison"),
            "there is no champion"
        );
    }
}

#[tokio::test]
async fn it_says_that_it_is_ready_and_who_it_is() {
    let service = start("canary");
    assert_eq!(get(&service.url, "/health").await.status(), StatusCode::OK);
    let version: Value = get(&service.url, "/version")
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(
        version,
        json!({ "service": "model-service", "version": "canary" })
    );
}

#[test]
fn a_bad_artefact_stops_the_start_with_an_error_that_names_file_and_cause() {
    let directory = tempfile::tempdir().expect("directory");
    for (artefact, cause) in [
        ("", "not a model artefact"),
        (r#"{"format":7}"#, "format 7; this service reads format 1"),
        (
            r#"{"format":1,"name":"x","features":"word-counts","dimensions":9,"bias":0,"weights":[1]}"#,
            "1 weights for 9 dimensions",
        ),
    ] {
        let file = directory.path().join("model.json");
        fs::write(&file, artefact).expect("written");
        let file = file.to_str().expect("UTF-8");
        let error = refusal(PROGRAM, &[("MODEL_FILE", file)]);
        assert!(error.contains(file) && error.contains(cause), "{error}");
    }
    let error = refusal(PROGRAM, &[("MODEL_FILE", "/no/such.json")]);
    assert!(
        error.contains("/no/such.json") && error.contains("No such file"),
        "{error}"
    );
    assert!(refusal(PROGRAM, &[]).contains("--model-file"));
}

#[tokio::test]
async fn it_starts_only_with_the_artefact_that_the_checksum_names() {
    let file = format!("{MODELS}/sms-stable.json");
    let right = text::sha256(&fs::read(&file).expect("committed"));
    let service = Process::start(PROGRAM, &[("MODEL_FILE", &file), ("MODEL_SHA256", &right)])
        .expect("starts");
    assert_eq!(get(&service.url, "/health").await.status(), StatusCode::OK);

    let wrong = "0".repeat(64);
    let error = refusal(PROGRAM, &[("MODEL_FILE", &file), ("MODEL_SHA256", &wrong)]);
    assert!(
        error.contains(&right) && error.contains(&wrong) && error.contains(&file),
        "{error}"
    );
}

#[test]
fn a_bad_setting_is_named_with_what_is_allowed() {
    let file = format!("{MODELS}/sms-stable.json");
    for (name, value, allowed) in [
        ("VERSION", "Not A Label", "a-z, 0-9 and -"),
        ("REQUEST_TIMEOUT", "0s", "500ms or 5s"),
        ("LISTEN_ADDR", "here", "socket address"),
    ] {
        let error = refusal(PROGRAM, &[("MODEL_FILE", &file), (name, value)]);
        assert!(error.contains(value) && error.contains(allowed), "{error}");
    }
}

#[test]
fn help_lists_every_environment_variable_and_no_value() {
    check_help(
        PROGRAM,
        &[
            "MODEL_FILE",
            "MODEL_URL",
            "MODEL_SHA256",
            "MODEL_CACHE",
            "MODEL_FETCH_TIMEOUT",
            "CHAMPION_FILE",
            "CHAMPION_URL",
            "CHAMPION_SHA256",
        ],
    );
}

#[test]
fn the_program_tells_whether_a_running_one_is_well() {
    let mut service = start("stable");
    let address = service.url.trim_start_matches("http://").to_owned();
    let check = || {
        command(
            PROGRAM,
            &[("MODEL_FILE", "unread"), ("LISTEN_ADDR", &address)],
        )
        .arg("--healthcheck")
        .output()
        .expect("runs")
    };
    assert!(check().status.success());
    service.signal("TERM").expect("a signal");
    service.wait().expect("ends");
    let ill = check();
    assert_eq!(ill.status.code(), Some(1));
    assert!(!ill.stderr.is_empty());
}
