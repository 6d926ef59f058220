//! A user who was given a version stays in that version.

mod crowd;

use harness::http::Request;
use harness::promise::within_4_sigma;
use harness::upstream::Echo;
use promises::{Gateway, cookies, policy, user_of, versions};
use serde_json::json;

#[test]
fn of_two_thousand_users_with_twenty_requests_each_nobody_flips() {
    let gateway = Gateway::start(&policy(json!({})));
    let request = Request::get("/");
    let visitors =
        crowd::stays_in_one_version(gateway.address(), 1_000, 20, &request, |response| {
            let echo = Echo::of(response).expect("an echo");
            // The route follows the header that the filter set.
            let version = echo.headers.get("x-app-version");
            assert_eq!(version, Some(echo.upstream.as_str()));
            echo.upstream
        });
    let canary = visitors.iter().filter(|version| *version == "canary");
    within_4_sigma(canary.count(), 1_000, 0.1).expect("as many as the weight says");
    assert_eq!(gateway.crashes(), 0);
}

#[test]
fn cookie_holders_stay_when_the_weight_moves_from_10_to_30() {
    let gateway = Gateway::start(&policy(json!({})));
    let holders: Vec<(String, String)> = (0..200)
        .map(|_| {
            let (response, echo) = gateway.get(&[]);
            (cookies(&response), echo.upstream)
        })
        .collect();
    gateway.push(&policy(json!({ "versions": versions(70, 30, "live") })));
    for (cookies, version) in &holders {
        let (response, echo) = gateway.get(&[("cookie", cookies)]);
        assert_eq!(&echo.upstream, version);
        assert!(response.headers.get("set-cookie").is_none());
    }
}

#[test]
fn with_stickiness_identity_exactly_those_move_whose_slot_changed_hands() {
    let of = |stable, canary| {
        policy(json!({
            "stickiness": "identity",
            "versions": versions(stable, canary, "live"),
        }))
    };
    let gateway = Gateway::start(&of(90, 10));
    let version = |user: &str| gateway.get(&[("x-user", user)]).1.upstream;
    let users: Vec<String> = (0..300).map(|n| format!("user-{n}")).collect();
    let before: Vec<String> = users.iter().map(|user| version(user)).collect();
    gateway.push(&of(70, 30));
    for (user, before) in users.iter().zip(before) {
        let slot = lanekeeper_policy::slot("sms-checker", user.as_bytes());
        let moves = (7_000..9_000).contains(&slot);
        let expected = if moves { "canary" } else { &before };
        assert_eq!(version(user), expected, "slot {slot}");
    }
}

#[test]
fn a_draining_canary_keeps_its_holders_and_takes_nobody_new() {
    let gateway = Gateway::start(&policy(json!({})));
    let user = user_of("canary");
    let holder = cookies(&gateway.get(&[("x-user", &user)]).0);
    gateway.push(&policy(json!({ "versions": versions(90, 10, "draining") })));
    assert_eq!(gateway.get(&[("cookie", &holder)]).1.upstream, "canary");
    assert_eq!(gateway.get(&[("x-user", &user)]).1.upstream, "stable");
}

#[test]
fn holders_of_a_canary_that_is_off_are_on_stable_at_their_next_request_and_stay_there() {
    let gateway = Gateway::start(&policy(json!({})));
    let user = user_of("canary");
    let holder = cookies(&gateway.get(&[("x-user", &user)]).0);
    gateway.push(&policy(json!({ "versions": versions(90, 10, "off") })));
    let (response, echo) = gateway.get(&[("x-user", &user), ("cookie", &holder)]);
    assert_eq!(echo.upstream, "stable");
    let holder = cookies(&response);
    assert!(holder.starts_with("app-version=stable.0."), "{holder}");
    // Also when canary comes back.
    gateway.push(&policy(json!({})));
    let back = [("x-user", &*user), ("cookie", &holder)];
    assert_eq!(gateway.get(&back).1.upstream, "stable");
}

#[test]
fn an_override_reaches_canary_and_does_not_stick() {
    let gateway = Gateway::start(&policy(json!({})));
    let user = user_of("stable");
    let (response, echo) = gateway.get(&[("X-User", &user), ("X-Experiment", "canary")]);
    assert_eq!(echo.upstream, "canary");
    assert!(response.headers.get("set-cookie").is_none());
    assert_eq!(gateway.get(&[("X-User", &user)]).1.upstream, "stable");
}

#[test]
fn a_preflight_mints_nothing() {
    let gateway = Gateway::start(&policy(json!({})));
    let preflight = Request::new("OPTIONS", "/sms")
        .header("Origin", "http://page.local")
        .header("Access-Control-Request-Method", "POST");
    let (response, echo) = gateway.echo(&preflight);
    assert_eq!(echo.upstream, "stable");
    assert!(response.headers.get("set-cookie").is_none());
    let minted = [("rollout", "sms-checker"), ("version", "stable")];
    assert_eq!(
        gateway.metric("lanekeeper_assignments_total", &minted),
        Some(0)
    );
}
