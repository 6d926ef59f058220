//! Behind the gateway, every tier answers in the user's version: real services, a real sidecar
//! beside each version, and an application that knows nothing of versions.

mod crowd;

use harness::http::{Request, Response};
use promises::{SmsChecker, user_of};

fn sms() -> Request {
    Request::post("/sms", r#"{"sms": "see you at the station at six"}"#)
        .header("Content-Type", "application/json")
}

/// The versions that took part: `app-service;v=canary, model-service;v=canary`.
fn tiers(response: &Response) -> (String, String) {
    assert_eq!(response.status, 200, "{}", response.text());
    let served_by = response.headers.get("x-served-by").expect("x-served-by");
    let of = |service: &str| {
        let mut parts = served_by.split(", ");
        let found = parts.find_map(|part| part.strip_prefix(service)?.strip_prefix(";v="));
        found
            .unwrap_or_else(|| panic!("no {service} in {served_by}"))
            .to_owned()
    };
    (of("app-service"), of("model-service"))
}

#[test]
fn users_and_visitors_stay_in_one_version_in_both_tiers() {
    let checker = SmsChecker::start();
    crowd::stays_in_one_version(&checker.gateway(), 200, 5, &sms(), |response| {
        let (app, model) = tiers(response);
        assert_eq!(app, model);
        app
    });
    assert_eq!(checker.mismatches(), 0);
}

#[test]
fn an_override_reaches_canary_in_both_tiers_and_a_spoofed_version_in_none() {
    let checker = SmsChecker::start();
    let address = checker.gateway();
    let user = user_of("stable");
    let request = sms()
        .header("X-User", &user)
        .header("X-Experiment", "canary");
    let response = harness::http::send(&address, &request).expect("a response");
    assert_eq!(tiers(&response), ("canary".to_owned(), "canary".to_owned()));
    // What the client claims does not go through two tiers either.
    let request = sms()
        .header("X-User", &user)
        .header("X-App-Version", "canary");
    let response = harness::http::send(&address, &request).expect("a response");
    assert_eq!(tiers(&response), ("stable".to_owned(), "stable".to_owned()));
}

#[test]
fn a_request_that_reaches_the_wrong_pod_is_counted_by_its_sidecar() {
    let checker = SmsChecker::start();
    let request = sms().header("X-App-Version", "stable");
    let response = harness::http::send(&checker.sidecar("canary"), &request).expect("a response");
    // It is served, and goes on in the pod's own version.
    assert_eq!(tiers(&response), ("canary".to_owned(), "canary".to_owned()));
    assert_eq!(checker.mismatches(), 1);
}
