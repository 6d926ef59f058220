//! The app service of sentiment review as a process.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use service_kit::testing::{Process, client};
use tokio::net::TcpListener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_app-service");
const PREDICT: &str = "/predict-sentiment-review";
const CONFIRM: &str = "/reviews/confirm";

/// A model that always answers like this, and the service in front of it.
async fn start_with(answer: Value, more: &[(&str, &str)]) -> Process {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let model = format!("http://{}", listener.local_addr().expect("address"));
    let answer = async move |question: axum::Json<Value>| {
        assert_eq!(question.0, json!({ "review": "<b>Lovely</b> food" }));
        let served_by = [("x-served-by", "model-service;v=canary")];
        (served_by, axum::Json(answer))
    };
    let router = Router::new().route("/v1/predict", post(answer));
    tokio::spawn(async { axum::serve(listener, router).await });
    let environment = [
        ("TASK", "review"),
        ("VERSION", "canary"),
        ("MODEL_SERVICE_URL", model.as_str()),
    ];
    Process::start(PROGRAM, &[&environment, more].concat()).expect("starts")
}

/// In front of a model that likes everything.
async fn start(more: &[(&str, &str)]) -> Process {
    let answer = json!({ "prediction": 1, "confidence": 0.8776, "classifier": "some-model" });
    start_with(answer, more).await
}

async fn post_json(app: &Process, path: &str, body: &Value) -> Response {
    post_as(app, path, "none", body).await
}

async fn post_as(app: &Process, path: &str, bucket: &str, body: &Value) -> Response {
    let request = client().expect("client").post(format!("{}{path}", app.url));
    let request = request.header("x-rollout-bucket", bucket).json(body);
    request.send().await.expect("answers")
}

async fn ask(app: &Process) -> Response {
    post_json(app, PREDICT, &json!({ "review": "<b>Lovely</b> food" })).await
}

async fn metrics(app: &Process) -> String {
    let request = client()
        .expect("client")
        .get(format!("{}/metrics", app.url));
    let response = request.send().await.expect("answers");
    response.text().await.expect("text")
}

/// Checks that an answer is a problem of this status, and returns its detail.
async fn problem(response: Response, status: StatusCode) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body: Value = response.json().await.expect("JSON");
    body["detail"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn an_answer_is_the_prediction_and_only_where_configured_the_confidence() {
    for (settings, expected) in [
        (&[][..], json!({ "prediction": 1 })),
        (&[("SHOW_CONFIDENCE", "false")], json!({ "prediction": 1 })),
        (
            &[("SHOW_CONFIDENCE", "true")],
            json!({ "prediction": 1, "prediction_confidence": 0.8776 }),
        ),
    ] {
        let response = ask(&start(settings).await).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["x-served-by"],
            "app-service;v=canary, model-service;v=canary"
        );
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body, expected, "{settings:?}");
    }
}

#[tokio::test]
async fn a_bad_request_is_refused_with_what_is_allowed() {
    let app = start(&[]).await;
    for (path, body, allowed) in [
        (PREDICT, json!({}), "review: missing: it is required"),
        (PREDICT, json!({ "review": " \n" }), "review: "),
        (PREDICT, json!({ "review": "" }), "1 to 2000 characters"),
        (
            PREDICT,
            json!({ "review": "x".repeat(2001) }),
            "1 to 2000 characters",
        ),
        (
            PREDICT,
            json!({ "review": 7 }),
            "review: integer `7`: allowed is a string",
        ),
        (
            PREDICT,
            json!({ "review": "x", "stars": 5 }),
            "stars: unknown: allowed is review",
        ),
        (
            PREDICT,
            json!(["x"]),
            "body: sequence: allowed is a JSON object",
        ),
        (CONFIRM, json!({}), "action: missing: it is required"),
        (
            CONFIRM,
            json!({ "action": "confirm" }),
            "originalLabel: missing: it is required",
        ),
        (
            CONFIRM,
            json!({ "action": "deny", "originalLabel": 1 }),
            "action: \"deny\": allowed are confirm and override",
        ),
        (
            CONFIRM,
            json!({ "action": { "confirm": null }, "originalLabel": 1 }),
            "action: map: allowed is a string",
        ),
        (
            CONFIRM,
            json!({ "action": "confirm", "originalLabel": 2 }),
            "originalLabel: integer `2`: allowed is 0 or 1",
        ),
        (
            CONFIRM,
            json!({ "action": "confirm", "originalLabel": -1 }),
            "originalLabel: integer `-1`: allowed is 0 or 1",
        ),
        (
            CONFIRM,
            json!({ "action": "confirm", "originalLabel": "1" }),
            "originalLabel: string \"1\": allowed is 0 or 1",
        ),
        (
            CONFIRM,
            json!({ "action": "confirm", "originalLabel": null }),
            "originalLabel: null: allowed is 0 or 1",
        ),
        (
            CONFIRM,
            json!({ "action": "confirm", "originalLabel": 1, "review": "x" }),
            "allowed is one of action, originalLabel, correctedLabel",
        ),
        (
            CONFIRM,
            json!({ "action": "confirm", "originalLabel": 1, "correctedLabel": 0 }),
            "correctedLabel: allowed with confirm is none, or the originalLabel",
        ),
        (
            CONFIRM,
            json!({ "action": "override", "originalLabel": 1 }),
            "correctedLabel: allowed with override is the label other than originalLabel",
        ),
        (
            CONFIRM,
            json!({ "action": "override", "originalLabel": 1, "correctedLabel": null }),
            "correctedLabel: allowed with override",
        ),
        (
            CONFIRM,
            json!({ "action": "override", "originalLabel": 1, "correctedLabel": 1 }),
            "correctedLabel: allowed with override",
        ),
        (
            CONFIRM,
            json!({ "action": "override", "originalLabel": 1, "correctedLabel": 3 }),
            "correctedLabel: integer `3`: allowed is 0 or 1",
        ),
    ] {
        let response = post_json(&app, path, &body).await;
        let detail = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert!(detail.contains(allowed), "{body}: {detail}");
    }
    let metrics = metrics(&app).await;
    for never in [
        "review_overrides_total{",
        "review_confirmations_total{",
        "review_predictions_total{",
    ] {
        let mut series = metrics.lines().filter(|line| line.starts_with(never));
        assert!(series.all(|line| line.ends_with(" 0")), "{metrics}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_refused_by_both_endpoints() {
    let app = start(&[]).await;
    for (path, field) in [(PREDICT, "review"), (CONFIRM, "action")] {
        let send = async |content_type: &str, body: Vec<u8>| {
            let request = client().expect("client").post(format!("{}{path}", app.url));
            let request = request.header("content-type", content_type).body(body);
            request.send().await.expect("answers")
        };
        let json = "application/json";
        let not_utf8 = [b"{\"", field.as_bytes(), b"\": \"\xff\xfe\"}"].concat();
        for body in [b"".to_vec(), b"{".to_vec(), not_utf8, b"review=x".to_vec()] {
            problem(send(json, body).await, StatusCode::BAD_REQUEST).await;
        }
        let text = send("text/plain", b"{}".to_vec()).await;
        let detail = problem(text, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
        assert!(detail.contains("application/json"), "{detail}");
        let large = send(json, vec![b'x'; 1_000_000]).await;
        let detail = problem(large, StatusCode::PAYLOAD_TOO_LARGE).await;
        assert!(detail.contains("65536 bytes"), "{detail}");
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request = client()
                .expect("client")
                .request(method, format!("{}{path}", app.url));
            let response = request.send().await.expect("answers");
            assert_eq!(response.headers()["allow"], "POST");
            problem(response, StatusCode::METHOD_NOT_ALLOWED).await;
        }
    }
}

#[tokio::test]
async fn each_application_has_its_own_endpoints_alone() {
    let app = start(&[]).await;
    let sms = post_json(&app, "/sms", &json!({ "sms": "hi" })).await;
    problem(sms, StatusCode::NOT_FOUND).await;
    let page = client().expect("client").get(&app.url).send().await;
    problem(page.expect("answers"), StatusCode::NOT_FOUND).await;
    let environment = [("MODEL_SERVICE_URL", "http://model.invalid")];
    let sms = Process::start(PROGRAM, &environment).expect("starts");
    problem(ask(&sms).await, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_verdict_is_counted_by_its_labels_and_bucket() {
    let app = start(&[]).await;
    for (bucket, verdict) in [
        ("7", json!({ "action": "confirm", "originalLabel": 1 })),
        (
            "7",
            json!({ "action": "confirm", "originalLabel": 1, "correctedLabel": null }),
        ),
        (
            "7",
            json!({ "action": "confirm", "originalLabel": 1, "correctedLabel": 1 }),
        ),
        (
            "31",
            json!({ "action": "override", "originalLabel": 1, "correctedLabel": 0 }),
        ),
        (
            "32",
            json!({ "action": "override", "originalLabel": 0, "correctedLabel": 1 }),
        ),
    ] {
        let response = post_as(&app, CONFIRM, bucket, &verdict).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{verdict}");
        assert_eq!(response.headers()["x-served-by"], "app-service;v=canary");
        assert_eq!(response.text().await.expect("text"), "");
    }
    let metrics = metrics(&app).await;
    for line in [
        r#"review_confirmations_total{bucket="7",label="positive",version="canary"} 3"#,
        r#"review_overrides_total{bucket="31",corrected="negative",original="positive",version="canary"} 1"#,
        r#"review_overrides_total{bucket="none",corrected="positive",original="negative",version="canary"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn reviews_are_counted_and_wait_until_somebody_says_what_they_are() {
    let app = start(&[]).await;
    for _ in 0..3 {
        ask(&app).await;
    }
    let before = metrics(&app).await;
    let confirm = json!({ "action": "confirm", "originalLabel": 1 });
    let overrule = json!({ "action": "override", "originalLabel": 1, "correctedLabel": 0 });
    // One more than wait.
    for verdict in [&confirm, &overrule] {
        post_json(&app, CONFIRM, verdict).await;
    }
    let after = metrics(&app).await;
    for (metrics, line) in [
        (&before, r#"reviews_submitted_total{version="canary"} 3"#),
        (
            &before,
            r#"review_predictions_total{bucket="none",label="positive",version="canary"} 3"#,
        ),
        (
            &before,
            r#"answer_duration_seconds_count{bucket="none",version="canary"} 3"#,
        ),
        (&before, r#"reviews_pending{version="canary"} 3"#),
        (&after, r#"reviews_pending{version="canary"} 1"#),
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_review_that_nobody_speaks_about_stops_waiting() {
    let app = start(&[("CONFIRM_WITHIN", "1ms")]).await;
    ask(&app).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let metrics = metrics(&app).await;
    assert!(
        metrics.contains(r#"reviews_pending{version="canary"} 0"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"reviews_submitted_total{version="canary"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_answer_that_is_no_prediction_is_a_502_and_waits_for_nothing() {
    for answer in [
        json!({ "prediction": 2, "confidence": 0.9 }),
        json!({ "prediction": true, "confidence": 0.9 }),
        json!({ "prediction": 1 }),
        json!({ "result": "spam", "classifier": "x" }),
    ] {
        let app = start_with(answer, &[]).await;
        let response = ask(&app).await;
        assert_eq!(
            response.headers()["x-served-by"],
            "app-service;v=canary, model-service;v=canary"
        );
        let detail = problem(response, StatusCode::BAD_GATEWAY).await;
        assert_eq!(detail, "the model service's answer is not a prediction");
        let metrics = metrics(&app).await;
        for line in [
            r#"reviews_pending{version="canary"} 0"#,
            r#"predictions_unanswered_total{reason="failed",version="canary"} 1"#,
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
    }
}

#[tokio::test]
async fn a_model_that_hangs_is_a_504() {
    // It accepts connections and never says a word.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let model = format!("http://{}", listener.local_addr().expect("address"));
    let settings = [
        ("TASK", "review"),
        ("MODEL_SERVICE_URL", model.as_str()),
        ("MODEL_TIMEOUT", "200ms"),
    ];
    let app = Process::start(PROGRAM, &settings).expect("starts");
    let detail = problem(ask(&app).await, StatusCode::GATEWAY_TIMEOUT).await;
    assert_eq!(detail, "the model service did not answer within 200ms");
}

#[tokio::test]
async fn nothing_that_is_typed_is_logged() {
    let app = start(&[]).await;
    for body in [
        json!({ "review": "<b>Lovely</b> food" }),
        json!({ "review": "Lovely", "Lovely": 1 }),
    ] {
        post_json(&app, PREDICT, &body).await;
    }
    post_json(
        &app,
        CONFIRM,
        &json!({ "action": "Lovely", "originalLabel": 1 }),
    )
    .await;
    let log = app.stop().expect("stops");
    let requests = log.iter().filter(|line| line["message"] == "request");
    assert_eq!(requests.count(), 3, "{log:?}");
    assert!(!json!(log).to_string().contains("Lovely"), "{log:?}");
}
