//! A page of one host calls the API of another: with the version that it was served with, which page,
//! API and model then all have.

use harness::http::{self, Request, Response};
use harness::sentiment::{API, ORIGIN, is_of_one_version, page, review};
use promises::{Sentiment, cookies};

/// Where the page may be: the host is known, the port is whatever leads to the gateway.
const PAGES: [&str; 4] = [
    ORIGIN,
    "https://app-frontend.k8s.local",
    "http://app-frontend.k8s.local:8080",
    "https://app-frontend.k8s.local:34567",
];
/// What only looks like it.
const OTHERS: [&str; 5] = [
    "http://app-frontend.k8s.local.evil.example",
    "http://evil.example",
    "http://app-frontendxk8s.local",
    "http://app-frontend.k8s.local:80x",
    "null",
];

fn send(app: &Sentiment, request: &Request) -> Response {
    http::send(&app.gateway(), request).expect("a response")
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers.get(name).unwrap_or_default()
}

#[test]
fn page_api_and_model_are_of_one_version() {
    let app = Sentiment::start(|_| ());
    for version in ["stable", "canary"] {
        let header = ("x-experiment", version);
        is_of_one_version(&app.gateway(), header, version).expect("one version");
    }
    // Without a page.
    for request in [review("nonsense", ORIGIN), review("", ORIGIN)] {
        let answer = send(&app, &request);
        assert_eq!(
            header(&answer, "x-served-by"),
            "app-service;v=stable, model-service;v=stable"
        );
    }
}

#[test]
fn a_visitor_keeps_the_page_and_both_hosts_get_the_cookies() {
    let app = Sentiment::start(|_| ());
    let first = send(&app, &page());
    let set = first.headers.all("set-cookie");
    assert_eq!(set.len(), 2, "{set:?}");
    for cookie in set {
        let cookie = String::from_utf8_lossy(cookie);
        assert!(cookie.contains("; Domain=k8s.local"), "{cookie}");
    }
    let jar = cookies(&first);
    for _ in 0..10 {
        let again = send(&app, &page().header("Cookie", &jar));
        assert_eq!(header(&again, "x-served-by"), header(&first, "x-served-by"));
        assert!(again.headers.get("set-cookie").is_none());
    }
}

#[test]
fn a_preflight_says_what_the_page_may_send_and_mints_nothing() {
    let app = Sentiment::start(|_| ());
    let preflight = |origin: &str| {
        let request = Request::new("OPTIONS", "/reviews/confirm")
            .header("Host", API)
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header(
                "Access-Control-Request-Headers",
                "content-type,x-app-version",
            );
        send(&app, &request)
    };
    for origin in PAGES {
        let answer = preflight(origin);
        assert_eq!(answer.status, 200);
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "POST"),
            (
                "access-control-allow-headers",
                "content-type, x-app-version",
            ),
        ] {
            assert_eq!(header(&answer, name), value);
        }
        assert!(answer.headers.get("set-cookie").is_none());
    }
    for origin in OTHERS {
        let answer = preflight(origin);
        assert_eq!(
            header(&answer, "access-control-allow-origin"),
            "",
            "{origin}"
        );
    }
}

#[test]
fn the_page_may_read_who_answered_and_how_long_to_wait() {
    let app = Sentiment::start(Sentiment::one_review_a_minute);
    let send = |origin| send(&app, &review("canary", origin));
    let answer = send(ORIGIN);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let exposed = "x-served-by, retry-after, ratelimit, ratelimit-policy";
    assert_eq!(header(&answer, "access-control-expose-headers"), exposed);
    assert_eq!(header(&answer, "access-control-allow-origin"), ORIGIN);
    assert_eq!(header(&answer, "access-control-allow-credentials"), "true");

    for origin in PAGES {
        let refusal = send(origin);
        assert_eq!(refusal.status, 429);
        assert_eq!(header(&refusal, "access-control-allow-origin"), origin);
        assert_eq!(header(&refusal, "access-control-allow-credentials"), "true");
        let exposed = header(&refusal, "access-control-expose-headers");
        assert!(exposed.contains("retry-after"), "{exposed}");
        let wait: u64 = header(&refusal, "retry-after").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    for origin in OTHERS {
        let other = send(origin);
        assert_eq!(other.status, 429);
        assert_eq!(
            header(&other, "access-control-allow-origin"),
            "",
            "{origin}"
        );
    }
}
