//! The frontend as a process.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use service_kit::testing::{Process, check_bad_settings, check_help, client};

const PROGRAM: &str = env!("CARGO_BIN_EXE_app-frontend");

fn start() -> Process {
    let environment = [
        ("API_URL", "https://api.example:8443"),
        ("VERSION", "canary"),
    ];
    Process::start(PROGRAM, &environment).expect("starts")
}

async fn send(app: &Process, method: Method, path: &str) -> Response {
    let url = format!("{}{path}", app.url);
    let request = client().expect("client").request(method, url);
    request.send().await.expect("answers")
}

async fn get(app: &Process, path: &str) -> Response {
    send(app, Method::GET, path).await
}

#[tokio::test]
async fn the_page_knows_its_version_and_where_the_api_is() {
    let app = start();
    let response = get(&app, "/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    assert_eq!(response.headers()["x-served-by"], "app-frontend;v=canary");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    let page = response.text().await.expect("text");
    for setting in [
        r#"<meta name="api-url" content="https://api.example:8443">"#,
        r#"<meta name="app-version" content="canary">"#,
    ] {
        assert!(page.contains(setting), "{setting}");
    }
    assert!(!page.contains("{{"), "a placeholder is left");
}

#[tokio::test]
async fn the_page_is_whole_in_itself_and_may_call_nobody_but_the_api() {
    let response = get(&start(), "/").await;
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    assert!(
        policy.starts_with("default-src 'none'; connect-src https://api.example:8443;"),
        "{policy}"
    );
    let page = response.text().await.expect("text");
    let page = page.replace("https://api.example:8443", "");
    for never in [
        "innerHTML",
        "http://",
        "https://",
        "src=",
        "javascript:",
        "onclick",
        "onload",
        "onsubmit",
    ] {
        assert!(!page.contains(never), "{never}");
    }
}

#[tokio::test]
async fn it_says_that_it_is_alive_who_it_is_and_what_it_did() {
    let app = start();
    assert_eq!(get(&app, "/health").await.status(), StatusCode::OK);
    let version: Value = get(&app, "/version").await.json().await.expect("JSON");
    let expected = json!({ "service": "app-frontend", "version": "canary" });
    assert_eq!(version, expected);
    get(&app, "/").await;
    let metrics = get(&app, "/metrics").await.text().await.expect("text");
    let page = r#"http_requests_total{method="GET",route="/",status="200",version="canary"} 1"#;
    assert!(metrics.contains(page), "{metrics}");
}

#[tokio::test]
async fn wrong_paths_and_methods_are_problems() {
    let app = start();
    for (method, path, status) in [
        (
            Method::GET,
            "/predict-sentiment-review",
            StatusCode::NOT_FOUND,
        ),
        (Method::GET, "/%3Cscript%3E", StatusCode::NOT_FOUND),
        (Method::POST, "/", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let response = send(&app, method, path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body = response.text().await.expect("text");
        assert!(!body.contains("script"), "{body}");
    }
}

#[test]
fn a_bad_setting_is_named_with_what_is_allowed() {
    let origin = "http://host or https://host";
    let bad = [
        ("API_URL", "app-service:8080", origin),
        ("API_URL", "http://api.example/v1", origin),
        ("API_URL", "http://\"><script>", origin),
        ("VERSION", "Canary", "a-z, 0-9 and -"),
    ];
    check_bad_settings(PROGRAM, &[("API_URL", "http://api.example")], &bad);
}

#[test]
fn help_lists_every_environment_variable_and_no_value() {
    check_help(PROGRAM, &["API_URL"]);
}
