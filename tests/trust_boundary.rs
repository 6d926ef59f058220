//! What a client says about versions changes nothing, unless the policy accepts it.

use harness::http::Request;
use promises::{Gateway, policy, user_of};
use serde_json::json;

#[test]
fn a_spoofed_version_header_changes_nothing_in_any_casing_or_number() {
    let gateway = Gateway::start(&policy(json!({})));
    let user = user_of("stable");
    for names in [
        &["x-app-version"][..],
        &["X-App-Version"],
        &["X-APP-VERSION"],
        &["X-App-Version", "x-app-version", "X-aPP-vERSION"],
    ] {
        let request = names.iter().fold(
            Request::get("/").header("X-User", &user),
            |request, name| request.header(name, "canary"),
        );
        let (_, echo) = gateway.echo(&request);
        assert_eq!(echo.upstream, "stable", "{names:?}");
        assert_eq!(echo.headers.all("x-app-version"), [b"stable"], "{names:?}");
    }
}

#[test]
fn headers_that_only_the_filter_sets_do_not_pass() {
    let gateway = Gateway::start(&policy(json!({})));
    let request = Request::get("/")
        .header("X-Experiment", "canary")
        .header("X-Shadow", "true")
        .header("x-shadow", "true")
        .header("X-Rollout-Bucket", "7");
    let (_, echo) = gateway.echo(&request);
    assert!(echo.headers.all("x-shadow").is_empty());
    assert!(echo.headers.all("x-rollout-bucket").is_empty());
}

#[test]
fn a_users_bucket_is_ours_whatever_the_client_says() {
    let gateway = Gateway::start(&policy(json!({})));
    let request = Request::get("/")
        .header("X-User", "alice")
        .header("X-Rollout-Bucket", "7")
        .header("x-rollout-bucket", "8");
    let (_, echo) = gateway.echo(&request);
    assert_eq!(echo.headers.all("x-rollout-bucket"), [b"6"]);
}

#[test]
fn where_no_rollout_is_the_version_header_is_removed() {
    let gateway = Gateway::start(&policy(json!({ "hosts": ["sms-checker.local"] })));
    let request = Request::get("/")
        .header("Host", "other.local")
        .header("X-App-Version", "canary");
    let (response, echo) = gateway.echo(&request);
    assert_eq!(echo.upstream, "stable");
    assert!(echo.headers.all("x-app-version").is_empty());
    assert!(response.headers.get("set-cookie").is_none());
}

#[test]
fn the_version_header_of_a_page_is_honoured_only_where_the_policy_accepts_it() {
    let gateway = Gateway::start(&policy(json!({ "clientHeader": "accept" })));
    let user = user_of("stable");
    let sent = |values: &[&str]| {
        let request = values.iter().fold(
            Request::get("/").header("X-User", &user),
            |request, value| request.header("X-App-Version", value),
        );
        let (response, echo) = gateway.echo(&request);
        assert!(response.headers.get("set-cookie").is_none());
        assert_eq!(
            echo.headers.get("x-app-version"),
            Some(echo.upstream.as_str())
        );
        echo.upstream
    };
    assert_eq!(sent(&["canary"]), "canary");
    assert_eq!(sent(&["nonsense"]), "stable");
    assert_eq!(sent(&["canary", "canary"]), "stable");
    assert_eq!(sent(&[]), "stable");
}
