//! The translation API as a process, with the phrases that are built in.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use service_kit::testing::{Process, check_bad_settings, check_help, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_translation-api");

fn start() -> Process {
    Process::start(PROGRAM, &[("VERSION", "green")]).expect("starts")
}

async fn get(api: &Process, path: &str) -> Response {
    let request = client().expect("client").get(format!("{}{path}", api.url));
    request.send().await.expect("answers")
}

/// Status and whole body of an answer, which must be JSON and say who answered.
async fn answer(response: Response) -> (u16, Value) {
    assert_eq!(response.headers()["x-served-by"], "translation-api;v=green");
    assert_eq!(response.headers()["content-type"], "application/json");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_phrase_is_translated_however_it_is_written() {
    let api = start();
    for (asked, phrase) in [
        ("Lol", "Lol"),
        ("LOL", "LOL"),
        ("+lol%20", " lol "),
        ("%6C%6f%6c", "lol"),
    ] {
        let path = format!("/api/v1/translate?phrase={asked}");
        let translated = json!({
            "phrase": phrase,
            "translation": "I am laughing out loud",
            "errors": [],
        });
        assert_eq!(answer(get(&api, &path).await).await, (200, translated));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said_in_these_words() {
    let api = start();
    let missing = "phrase: missing: allowed are 1 to 100 characters, as in ?phrase=Lol";
    let blank = "phrase: blank: allowed are 1 to 100 characters";
    let unknown = "phrase: no translation is known";
    let parameter = "query: an unknown parameter: allowed is phrase alone";
    let long = "x".repeat(101);
    for (query, status, phrase, errors) in [
        ("", 400, None, vec![missing]),
        ("?", 400, None, vec![missing]),
        ("?Phrase=Lol", 400, None, vec![missing, parameter]),
        ("?phrase", 400, Some(""), vec![blank]),
        ("?phrase=", 400, Some(""), vec![blank]),
        ("?phrase=%20+", 400, Some("  "), vec![blank]),
        (
            "?phrase=Lol&phrase=Brb",
            400,
            None,
            vec!["phrase: given 2 times: allowed is once"],
        ),
        ("?phrase=Lol&lang=de", 400, Some("Lol"), vec![parameter]),
        (
            &format!("?phrase={long}"),
            400,
            None,
            vec!["phrase: 101 characters: allowed are 1 to 100"],
        ),
        (
            "?phrase=%ff%FE",
            400,
            None,
            vec!["phrase: not UTF-8: allowed is UTF-8, percent-encoded"],
        ),
        ("?phrase=xyzzy", 404, Some("xyzzy"), vec![unknown]),
        ("?phrase=%3Cb%3E%22%00", 404, Some("<b>\"\0"), vec![unknown]),
        (
            &format!("?phrase={}", &long[1..]),
            404,
            Some(&long[1..]),
            vec![unknown],
        ),
    ] {
        let path = format!("/api/v1/translate{query}");
        let said = json!({ "phrase": phrase, "translation": null, "errors": errors });
        let found = answer(get(&api, &path).await).await;
        assert_eq!(found, (status, said), "{query}");
    }
}

/// The status of the answer to a request that no decent client sends.
async fn raw(api: &Process, target: &[u8]) -> u16 {
    let address = api.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("connects");
    let request = [b"GET ", target, b" HTTP/1.1\r\nhost: api\r\n\r\n"].concat();
    // It may answer before it has read everything.
    let _ = connection.write_all(&request).await;
    let mut head = [0; 12];
    connection.read_exact(&mut head).await.expect("answers");
    let head = String::from_utf8_lossy(&head);
    head.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status")
}

#[tokio::test]
async fn a_target_that_is_no_url_is_the_clients_fault() {
    let api = start();
    let path = "/api/v1/translate?phrase=";
    for phrase in [vec![0xff, 0xfe], vec![b'x'; 1_000_000], vec![0]] {
        let status = raw(&api, &[path.as_bytes(), &phrase].concat()).await;
        assert!((400..500).contains(&status), "{status}");
    }
    assert_eq!(get(&api, "/health").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn other_paths_and_methods_are_problems() {
    let api = start();
    let url = format!("{}/api/v1/translate?phrase=Lol", api.url);
    let posted = client().expect("client").post(url).send().await;
    let posted = posted.expect("answers");
    assert_eq!(posted.headers()["allow"], "GET,HEAD");
    for (response, status) in [
        (get(&api, "/api/v1/translate/").await, 404),
        (get(&api, "/api/v2/translate?phrase=Lol").await, 404),
        (posted, 405),
    ] {
        let kind = &response.headers()["content-type"];
        assert_eq!(kind, "application/problem+json");
        assert_eq!(response.status().as_u16(), status);
    }
}

#[tokio::test]
async fn it_says_its_version_and_that_it_is_well() {
    let api = start();
    let version = json!({ "version": "green", "errors": [] });
    assert_eq!(answer(get(&api, "/version").await).await, (200, version));
    assert_eq!(get(&api, "/health").await.status(), StatusCode::OK);
    get(&api, "/api/v1/translate?phrase=xyzzy").await;
    let metrics = get(&api, "/metrics").await.text().await.expect("text");
    let counted = r#"http_requests_total{method="GET",route="/api/v1/translate",status="404",version="green"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn phrases_are_not_logged() {
    let api = start();
    for path in ["?phrase=secret", "?phrase=secret&secret=1", "/secret"] {
        get(&api, &format!("/api/v1/translate{path}")).await;
    }
    let log = json!(api.stop().expect("stops")).to_string();
    assert!(
        log.contains("/api/v1/translate") && !log.contains("secret"),
        "{log}"
    );
}

#[test]
fn a_bad_setting_is_named_with_what_is_allowed() {
    let bad = [
        ("REDIS_URL", "redis:6379", "redis://host:port"),
        ("REDIS_URL", "http://:secret@redis", "redis://host:port"),
        ("REDIS_URL", "rediss://:secret@redis", "redis://host:port"),
        ("REDIS_URL", "redis://:secret@redis/x", "redis://host:port"),
        ("REDIS_URL", "redis://:secret@:6379", "redis://host:port"),
        ("REDIS_URL", "unix:///x?pass=secret", "redis://host:port"),
        (
            "REDIS_URL",
            "redis+unix:///x?pass=secret",
            "redis://host:port",
        ),
        ("REDIS_TIMEOUT", "10s", "less than REQUEST_TIMEOUT"),
        ("VERSION", "Green", "a-z, 0-9 and -"),
    ];
    check_bad_settings(PROGRAM, &[], &bad);
}

#[test]
fn help_lists_every_environment_variable_and_no_value() {
    check_help(PROGRAM, &["REDIS_URL", "REDIS_TIMEOUT"]);
}
