//! The app service of the SMS checker as a process, in front of models of every temper.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::post;
use reqwest::Response;
use serde_json::{Value, json};
use service_kit::testing::{Process, check_bad_settings, check_help, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const PROGRAM: &str = env!("CARGO_BIN_EXE_app-service");

/// Serves a model of the test's own; its URL.
async fn serve(model: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(async { axum::serve(listener, model).await });
    url
}

/// A model that always answers like this.
async fn model(status: StatusCode, body: Value) -> String {
    let answer = (
        status,
        [("x-served-by", "model-service;v=canary")],
        axum::Json(body),
    );
    serve(Router::new().route("/predict", post(async || answer))).await
}

async fn spam_model() -> String {
    let answer = json!({ "result": "spam", "classifier": "some-model", "sms": "as sent" });
    model(StatusCode::OK, answer).await
}

/// A model that takes so long.
async fn slow_model(time: Duration) -> String {
    let answer = axum::Json(json!({ "result": "ham", "classifier": "slow", "sms": "x" }));
    serve(Router::new().route(
        "/predict",
        post(async move || {
            tokio::time::sleep(time).await;
            answer
        }),
    ))
    .await
}

fn start(model: &str) -> Process {
    start_with(model, &[])
}

fn start_with(model: &str, more: &[(&str, &str)]) -> Process {
    let mut environment = vec![("MODEL_SERVICE_URL", model), ("VERSION", "canary")];
    environment.extend(more);
    Process::start(PROGRAM, &environment).expect("starts")
}

async fn ask(app: &Process, body: Value) -> Response {
    client()
        .expect("client")
        .post(format!("{}/sms", app.url))
        .json(&body)
        .send()
        .await
        .expect("answers")
}

async fn get(app: &Process, path: &str) -> Response {
    let request = client().expect("client").get(format!("{}{path}", app.url));
    request.send().await.expect("answers")
}

/// Checks that an answer is a problem of this status, and returns its detail.
async fn problem(response: Response, status: StatusCode) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let served_by = response.headers()["x-served-by"].to_str().expect("text");
    assert!(served_by.starts_with("app-service;v=canary"), "{served_by}");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(body["type"], "about:blank");
    assert_eq!(body["title"], status.canonical_reason().expect("standard"));
    assert_eq!(body["status"], status.as_u16());
    body["detail"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn an_answer_carries_result_guess_and_every_tier_that_took_part() {
    let app = start(&spam_model().await);
    for guess in [json!("spam"), json!("ham"), Value::Null] {
        let response = ask(&app, json!({ "sms": "<b>hi</b>", "guess": guess })).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["x-served-by"],
            "app-service;v=canary, model-service;v=canary"
        );
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(
            body,
            json!({ "classifier": "some-model", "result": "spam", "sms": "<b>hi</b>", "guess": guess })
        );
    }
    let body: Value = ask(&app, json!({ "sms": "hi" }))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(body["guess"], Value::Null);
}

#[tokio::test]
async fn a_bad_request_is_refused_with_what_is_allowed() {
    let app = start(&spam_model().await);
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    for (body, allowed) in [
        (
            json!({ "sms": "" }),
            "sms: blank: allowed are 1 to 2000 characters",
        ),
        (json!({ "sms": " \n\t" }), "1 to 2000 characters"),
        (json!({ "sms": "x".repeat(2001) }), "1 to 2000 characters"),
        (json!({ "sms": 7 }), "sms: integer `7`: allowed is a string"),
        (
            json!({ "sms": "hi", "guess": "maybe" }),
            "guess: \"maybe\": allowed are spam and ham",
        ),
        (
            json!({ "sms": "hi", "guess": 7 }),
            "guess: integer `7`: allowed is a string",
        ),
        (
            json!({ "sms": "hi", "guess": { "spam": null } }),
            "guess: map: allowed is a string",
        ),
        (
            json!({ "sms": "hi", "version": "v2" }),
            "version: unknown: allowed is sms or guess",
        ),
        (json!({}), "sms: missing: it is required"),
        (json!("hi"), "body: string \"hi\": allowed is a JSON object"),
        (
            json!(["hi", "spam"]),
            "body: sequence: allowed is a JSON object",
        ),
        (json!(null), "body: null: allowed is a JSON object"),
    ] {
        let detail = problem(ask(&app, body).await, unprocessable).await;
        assert!(detail.contains(allowed), "{detail}");
    }
}

#[tokio::test]
async fn the_readme_shows_what_a_bad_request_is_told() {
    let app = start(&spam_model().await);
    let readme = include_str!("../../README.md");
    let body = json!({ "sms": "hi", "guess": "eggs" });
    assert!(readme.contains(r#"'{"sms": "hi", "guess": "eggs"}'"#));
    let answer = ask(&app, body).await.text().await.expect("text");
    assert!(readme.contains(&answer), "{answer} is not shown");
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let app = start(&spam_model().await);
    let send = async |content_type: &str, body: Vec<u8>| {
        let request = client().expect("client").post(format!("{}/sms", app.url));
        let request = request.header("content-type", content_type).body(body);
        request.send().await.expect("answers")
    };
    let json = "application/json";
    for body in [&b""[..], b"{", b"{\"sms\": \"\xff\xfe\"}", b"sms=hi"] {
        let detail = problem(send(json, body.to_vec()).await, StatusCode::BAD_REQUEST).await;
        assert!(detail.contains("allowed is a JSON object"), "{detail}");
    }
    let hi = br#"{"sms": "hi"}"#.to_vec();
    let detail = problem(
        send("text/plain", hi).await,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
    )
    .await;
    assert!(detail.contains("application/json"), "{detail}");
    let large = vec![b'x'; 1_000_000];
    let detail = problem(send(json, large).await, StatusCode::PAYLOAD_TOO_LARGE).await;
    assert!(detail.contains("65536 bytes"), "{detail}");
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_apart() {
    let app = start(&spam_model().await);
    problem(get(&app, "/no/such").await, StatusCode::NOT_FOUND).await;
    let delete = client().expect("client").delete(format!("{}/sms", app.url));
    let response = delete.send().await.expect("answers");
    assert_eq!(response.headers()["allow"], "GET,HEAD,POST");
    let detail = problem(response, StatusCode::METHOD_NOT_ALLOWED).await;
    assert_eq!(detail, "method: allowed are GET, HEAD, POST");
}

#[tokio::test]
async fn a_model_that_is_down_is_a_502() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let free = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    let response = ask(&start(&free), json!({ "sms": "hi" })).await;
    assert_eq!(response.headers()["x-served-by"], "app-service;v=canary");
    let detail = problem(response, StatusCode::BAD_GATEWAY).await;
    assert_eq!(detail, "the model service cannot be reached");
}

#[tokio::test]
async fn a_model_that_hangs_is_a_504_within_the_deadline() {
    // It accepts connections and never says a word.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let model = format!("http://{}", listener.local_addr().expect("address"));
    let app = start_with(&model, &[("MODEL_TIMEOUT", "200ms")]);
    let start = Instant::now();
    let response = ask(&app, json!({ "sms": "hi" })).await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let detail = problem(response, StatusCode::GATEWAY_TIMEOUT).await;
    assert_eq!(detail, "the model service did not answer within 200ms");
}

#[tokio::test]
async fn whatever_else_the_model_answers_is_not_the_callers_fault() {
    let bad = StatusCode::BAD_GATEWAY;
    for (status, body, answer) in [
        (StatusCode::UNPROCESSABLE_ENTITY, json!({}), bad),
        (StatusCode::TOO_MANY_REQUESTS, json!({}), bad),
        (StatusCode::INTERNAL_SERVER_ERROR, json!({}), bad),
        (StatusCode::FOUND, json!({}), bad),
        (
            StatusCode::OK,
            json!({ "result": "eggs", "classifier": "x" }),
            bad,
        ),
        (StatusCode::OK, json!("spam"), bad),
        (
            StatusCode::GATEWAY_TIMEOUT,
            json!({}),
            StatusCode::GATEWAY_TIMEOUT,
        ),
    ] {
        let app = start(&model(status, body).await);
        let response = ask(&app, json!({ "sms": "hi" })).await;
        // The tier that failed is named all the same.
        assert_eq!(
            response.headers()["x-served-by"],
            "app-service;v=canary, model-service;v=canary"
        );
        problem(response, answer).await;
    }
}

/// The status line of the answer to a request whose body is announced and does not come.
async fn without_body(app: &Process, length: usize) -> String {
    let address = app.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("connects");
    let head = format!(
        "POST /sms HTTP/1.1\r\nhost: app\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{{"
    );
    connection.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.expect("answers");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_never_comes_is_a_408() {
    let limits = [("MODEL_TIMEOUT", "100ms"), ("REQUEST_TIMEOUT", "200ms")];
    let app = start_with(&spam_model().await, &limits);
    assert_eq!(without_body(&app, 65_536).await, "HTTP/1.1 408");
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_a_413_before_it_comes() {
    let app = start_with(&spam_model().await, &[("REQUEST_TIMEOUT", "60s")]);
    let answer = tokio::time::timeout(Duration::from_secs(10), without_body(&app, 65_537)).await;
    assert_eq!(answer.expect("does not wait for it"), "HTTP/1.1 413");
}

/// A server that tells what it is asked.
async fn recorder() -> (String, mpsc::UnboundedReceiver<(Uri, HeaderMap)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let answer = axum::Json(json!({ "result": "ham", "classifier": "recorder", "sms": "x" }));
    let record = async move |uri: Uri, headers: HeaderMap| {
        sender.send((uri, headers)).expect("the test listens");
        answer.into_response()
    };
    (serve(Router::new().fallback(record)).await, receiver)
}

#[tokio::test]
async fn trace_headers_go_on_to_the_model_and_no_version_does() {
    let (model, mut asked) = recorder().await;
    let app = start(&model);
    let trace = [
        ("x-request-id", "42-a"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("tracestate", "vendor=1"),
    ];
    let mut request = client().expect("client").post(format!("{}/sms", app.url));
    for (name, value) in trace {
        request = request.header(name, value);
    }
    let request = request
        .header("x-app-version", "canary")
        .header("cookie", "app-version=canary")
        .json(&json!({ "sms": "hi" }));
    assert_eq!(
        request.send().await.expect("answers").status(),
        StatusCode::OK
    );

    let (uri, headers) = asked.recv().await.expect("asked");
    assert_eq!(uri, "/predict");
    for (name, value) in trace {
        assert_eq!(headers[name], value);
    }
    assert!(!headers.contains_key("x-app-version") && !headers.contains_key("cookie"));
}

#[tokio::test]
async fn calls_to_the_model_go_through_the_proxy_of_the_environment() {
    for name in ["HTTP_PROXY", "http_proxy"] {
        let (proxy, mut asked) = recorder().await;
        let app = start_with("http://model.invalid:8081", &[(name, &proxy)]);
        let response = ask(&app, json!({ "sms": "hi" })).await;
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        let (_, headers) = asked.recv().await.expect("asked");
        assert_eq!(headers["host"], "model.invalid:8081");
    }
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_guesses_by_agreement() {
    let app = start(&spam_model().await);
    for (guess, bucket) in [("spam", "31"), ("ham", "7"), ("ham", "032"), ("ham", "32")] {
        let request = client().expect("client").post(format!("{}/sms", app.url));
        let request = request
            .header("x-rollout-bucket", bucket)
            .json(&json!({ "sms": "hi", "guess": guess }));
        request.send().await.expect("answers");
    }
    for path in ["/a", "/b"] {
        get(&app, path).await;
    }
    let metrics = get(&app, "/metrics").await.text().await.expect("text");
    for line in [
        r#"http_requests_total{method="POST",route="/sms",status="200",version="canary"} 4"#,
        r#"http_requests_total{method="GET",route="unmatched",status="404",version="canary"} 2"#,
        r#"sms_guesses_total{agreed="yes",bucket="31",version="canary"} 1"#,
        r#"sms_guesses_total{agreed="no",bucket="7",version="canary"} 1"#,
        r#"sms_guesses_total{agreed="no",bucket="none",version="canary"} 2"#,
        r#"sms_predictions_total{bucket="31",label="spam",version="canary"} 1"#,
        r#"sms_predictions_total{bucket="none",label="spam",version="canary"} 2"#,
        r#"sms_length_characters_bucket{version="canary",le="20"} 4"#,
        r#"answer_duration_seconds_count{bucket="7",version="canary"} 1"#,
        r#"answer_duration_seconds_count{bucket="none",version="canary"} 2"#,
        r#"predictions_unanswered_total{reason="late",version="canary"} 0"#,
        r#"predictions_in_progress{version="canary"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn what_experiments_count_is_there_from_the_start_for_every_bucket() {
    let app = start(&spam_model().await);
    let metrics = get(&app, "/metrics").await.text().await.expect("text");
    for (name, values) in [
        ("sms_predictions_total{", 2),
        ("sms_guesses_total{", 2),
        ("answer_duration_seconds_count{", 1),
    ] {
        let series = metrics.lines().filter(|line| line.starts_with(name));
        assert_eq!(series.clone().count(), values * 33, "{name}");
        assert!(series.clone().all(|line| line.ends_with(" 0")), "{name}");
    }
}

#[tokio::test]
async fn a_copy_of_a_request_belongs_to_no_experiment() {
    let app = start(&spam_model().await);
    let request = client().expect("client").post(format!("{}/sms", app.url));
    let request = request
        .header("x-rollout-bucket", "7")
        .header("x-shadow", "true")
        .json(&json!({ "sms": "hi" }));
    request.send().await.expect("answers");
    let metrics = get(&app, "/metrics").await.text().await.expect("text");
    let line = r#"sms_predictions_total{bucket="none",label="spam",version="canary"} 1"#;
    assert!(metrics.contains(line), "{line} is not in\n{metrics}");
}

#[tokio::test]
async fn metrics_show_questions_that_the_model_has_not_answered() {
    let app = start(&slow_model(Duration::from_secs(60)).await);
    let request = client().expect("client").post(format!("{}/sms", app.url));
    let asking = tokio::spawn(request.json(&json!({ "sms": "hi" })).send());
    let shows = async |line: &str| {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let metrics = get(&app, "/metrics").await.text().await.expect("text");
            if metrics.contains(line) {
                break;
            }
            assert!(Instant::now() < deadline, "{line} is not in\n{metrics}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    shows(r#"predictions_in_progress{version="canary"} 1"#).await;
    asking.abort();
    shows(r#"predictions_in_progress{version="canary"} 0"#).await;
}

#[tokio::test]
async fn why_there_is_no_prediction_is_logged_with_the_request_and_without_the_message() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let down = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    let echoing = json!({ "result": "secret", "classifier": "secret" });
    for (model, detail, reason) in [
        (
            down,
            "the model service cannot be reached",
            Some("Connection refused"),
        ),
        (
            model(StatusCode::INTERNAL_SERVER_ERROR, json!("secret")).await,
            "the model service answered 500",
            None,
        ),
        (
            model(StatusCode::OK, echoing).await,
            "the model service's answer is not a prediction",
            None,
        ),
    ] {
        let app = start(&model);
        let request = client().expect("client").post(format!("{}/sms", app.url));
        let request = request
            .header("x-request-id", "42-a")
            .json(&json!({ "sms": "secret" }));
        problem(
            request.send().await.expect("answers"),
            StatusCode::BAD_GATEWAY,
        )
        .await;
        let log = app.stop().expect("stops");
        let said = |line: &&Value| line["message"] == "no prediction";
        let said: Vec<_> = log.iter().filter(said).collect();
        assert_eq!(said.len(), 1, "{log:?}");
        assert_eq!(
            (&said[0]["detail"], &said[0]["request_id"]),
            (&json!(detail), &json!("42-a"))
        );
        let why = said[0]["reason"].as_str();
        let as_expected = reason.map_or(why.is_none(), |reason| {
            why.is_some_and(|why| why.contains(reason))
        });
        assert!(as_expected, "{why:?}");
        assert!(!json!(log).to_string().contains("secret"), "{log:?}");
    }
}

#[tokio::test]
async fn each_request_is_one_json_line_with_its_id_and_without_the_message() {
    let app = start(&spam_model().await);
    let request = client()
        .expect("client")
        .post(format!("{}/sms?q=secret", app.url));
    let request = request
        .header("x-request-id", "42-a")
        .json(&json!({ "sms": "secret", "guess": "secret" }));
    request.send().await.expect("answers");
    get(&app, "/secret").await;

    let log = app.stop().expect("stops");
    let requests: Vec<_> = log
        .iter()
        .filter(|line| line["message"] == "request")
        .collect();
    assert_eq!(requests.len(), 2);
    let first = requests[0];
    assert_eq!(
        (
            &first["method"],
            &first["route"],
            &first["status"],
            &first["request_id"]
        ),
        (&json!("POST"), &json!("/sms"), &json!(422), &json!("42-a"))
    );
    assert!(first["duration_ms"].is_number(), "{first}");
    assert!(!json!(log).to_string().contains("secret"), "{log:?}");
}

#[tokio::test]
async fn a_request_whose_client_leaves_is_logged_and_counted() {
    let app = start(&slow_model(Duration::from_secs(60)).await);
    let address = app.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("connects");
    let request = "POST /sms HTTP/1.1\r\nhost: app\r\nx-request-id: 42-a\r\n\
                   content-type: application/json\r\ncontent-length: 12\r\n\r\n{\"sms\":\"hi\"}";
    connection
        .write_all(request.as_bytes())
        .await
        .expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(connection);

    let counted =
        r#"http_requests_total{method="POST",route="/sms",status="499",version="canary"} 1"#;
    // Well before the model's deadline, which would make it a 504.
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let metrics = get(&app, "/metrics").await.text().await.expect("text");
        if metrics.contains(counted) {
            break;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = app.stop().expect("stops");
    let left = |line: &&Value| line["status"] == 499 && line["request_id"] == "42-a";
    assert_eq!(log.iter().filter(left).count(), 1, "{log:?}");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_process_ends() {
    for signal in ["TERM", "INT"] {
        let mut app = start(&slow_model(Duration::from_millis(500)).await);
        let asking = tokio::spawn({
            let request = client().expect("client").post(format!("{}/sms", app.url));
            request.json(&json!({ "sms": "hi" })).send()
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        app.signal(signal).expect("sent");
        let response = asking.await.expect("finishes").expect("answers");
        assert_eq!(response.status(), StatusCode::OK, "{signal}");
        assert!(app.wait().expect("ends").success(), "{signal}");
    }
}

#[tokio::test]
async fn the_process_ends_when_requests_in_flight_take_too_long() {
    let model = slow_model(Duration::from_secs(60)).await;
    let mut app = start_with(
        &model,
        &[
            ("MODEL_TIMEOUT", "50s"),
            ("REQUEST_TIMEOUT", "60s"),
            ("SHUTDOWN_TIMEOUT", "100ms"),
        ],
    );
    let request = client().expect("client").post(format!("{}/sms", app.url));
    tokio::spawn(request.json(&json!({ "sms": "hi" })).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    app.signal("TERM").expect("sent");
    assert!(app.wait().expect("ends").success());
}

#[tokio::test]
async fn the_process_ends_at_once_when_only_heads_are_under_way() {
    let mut app = start_with("http://model.invalid", &[("SHUTDOWN_TIMEOUT", "60s")]);
    let address = app.url.trim_start_matches("http://");
    let mut heads = Vec::new();
    for head in ["", "GET /version HTTP/1.1\r\nhost: app\r\nx-slow: "] {
        let mut connection = TcpStream::connect(address).await.expect("connects");
        connection.write_all(head.as_bytes()).await.expect("sent");
        heads.push(connection);
    }
    // The heads have arrived before this request, on a later connection, is answered.
    get(&app, "/health").await;
    app.signal("TERM").expect("sent");
    assert!(app.wait().expect("ends within ten seconds").success());
}

#[tokio::test]
async fn the_page_is_whole_in_itself_and_the_same_under_both_paths() {
    let app = start(&spam_model().await);
    let response = get(&app, "/").await;
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = response.text().await.expect("text");
    assert_eq!(get(&app, "/sms").await.text().await.expect("text"), page);
    for never in ["innerHTML", "http://", "https://", "src=", "{{"] {
        assert!(!page.contains(never), "{never}");
    }
}

#[tokio::test]
async fn it_says_that_it_is_alive_and_who_it_is() {
    let app = start("http://model.invalid");
    assert_eq!(get(&app, "/health").await.status(), StatusCode::OK);
    let version: Value = get(&app, "/version").await.json().await.expect("JSON");
    assert_eq!(
        version,
        json!({ "service": "app-service", "version": "canary" })
    );
}

#[test]
fn a_bad_setting_is_named_with_what_is_allowed() {
    let bad = [
        ("MODEL_SERVICE_URL", "model:8081", "http://host:port"),
        ("MODEL_SERVICE_URL", "https://model", "http://host:port"),
        ("MODEL_SERVICE_URL", "http://u:secret@m", "without user"),
        ("MODEL_SERVICE_URL", "https://u:secret@m", "without user"),
        ("MODEL_SERVICE_URL", "http://secret@m", "without user"),
        ("MODEL_SERVICE_URL", "http://u:secret@m:x", "without user"),
        ("MODEL_TIMEOUT", "10s", "less than REQUEST_TIMEOUT"),
        ("VERSION", "Canary", "a-z, 0-9 and -"),
        ("TASK", "translate", "possible values: sms, review"),
        (
            "SHOW_CONFIDENCE",
            "sometimes",
            "possible values: true, false",
        ),
        ("CONFIRM_WITHIN", "0s", "above zero"),
    ];
    let good = [("MODEL_SERVICE_URL", "http://model:8081")];
    check_bad_settings(PROGRAM, &good, &bad);
}

#[test]
fn help_lists_every_environment_variable_and_no_value() {
    let own = [
        "TASK",
        "MODEL_SERVICE_URL",
        "MODEL_TIMEOUT",
        "SHOW_CONFIDENCE",
        "CONFIRM_WITHIN",
    ];
    check_help(PROGRAM, &own);
}
