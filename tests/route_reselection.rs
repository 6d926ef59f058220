//! The route is selected anew after the filter has set the version header; nobody has to ask for it.

use harness::http::Request;
use promises::{Gateway, policy, user_of};
use serde_json::json;

#[test]
fn the_version_that_the_filter_sets_selects_the_route() {
    let gateway = Gateway::start(&policy(json!({})));
    for version in ["stable", "canary"] {
        let (_, echo) = gateway.get(&[("x-user", &user_of(version))]);
        assert_eq!(echo.upstream, version);
    }
}

#[test]
fn so_does_the_one_that_it_replaces_and_the_one_that_it_removes() {
    let gateway = Gateway::start(&policy(json!({ "hosts": ["sms-checker.local"] })));
    // Without the filter, the client's header would select canary.
    let spoofed = |host: &str, user: &str| {
        let request = Request::get("/")
            .header("Host", host)
            .header("X-User", user)
            .header("X-App-Version", "canary");
        gateway.echo(&request).1.upstream
    };
    assert_eq!(spoofed("sms-checker.local", &user_of("stable")), "stable");
    assert_eq!(spoofed("other.local", &user_of("canary")), "stable");
}
