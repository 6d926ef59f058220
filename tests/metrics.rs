//! What the filter did, by version, with labels that come out of Envoy as labels.

use harness::http::Request;
use harness::upstream::Upstream;
use promises::{Gateway, policy, user_of, versions};
use serde_json::json;

#[test]
fn requests_are_counted_by_rollout_version_and_source() {
    let gateway = Gateway::start(&policy(json!({})));
    let (stable, canary) = (user_of("stable"), user_of("canary"));
    for _ in 0..3 {
        gateway.get(&[("x-user", &stable)]);
    }
    gateway.get(&[("x-user", &canary)]);
    gateway.get(&[("cookie", "app-version=canary"), ("x-user", &stable)]);
    gateway.get(&[("x-experiment", "canary")]);
    gateway.send(&Request::get("/health"));
    for (version, source, count) in [
        ("stable", "slot", 3),
        ("canary", "slot", 1),
        ("canary", "cookie", 1),
        ("canary", "override", 1),
        ("stable", "cookie", 0),
        ("stable", "baseline", 0),
    ] {
        let labels = [
            ("rollout", "sms-checker"),
            ("version", version),
            ("source", source),
        ];
        let counted = gateway.metric("lanekeeper_requests_total", &labels);
        assert_eq!(counted, Some(count), "{version} {source}");
    }
}

#[test]
fn a_version_that_nobody_answers_for_is_counted_and_not_the_failures_of_its_service() {
    let mut gateway = Gateway::start(&policy(json!({})));
    let unserved = |gateway: &Gateway| {
        ["stable", "canary"].map(|version| {
            let labels = [("rollout", "sms-checker"), ("version", version)];
            gateway.metric("lanekeeper_unserved_total", &labels)
        })
    };
    // There before the first, or Prometheus would not see that one.
    assert_eq!(unserved(&gateway), [Some(0), Some(0)]);
    let of_canary = Request::get("/").header("x-user", user_of("canary"));
    gateway.canary.set_status(503);
    // Or Envoy would ask it again on the connection that there is.
    gateway
        .canary
        .set_response_headers([("connection", "close")]);
    assert_eq!(gateway.send(&of_canary).status, 503);
    assert_eq!(unserved(&gateway), [Some(0), Some(0)]);

    // Its port is closed now.
    gateway.canary = Upstream::start("elsewhere").expect("an upstream");
    for _ in 0..3 {
        assert_eq!(gateway.send(&of_canary).status, 503);
    }
    let of_stable = Request::get("/").header("x-user", user_of("stable"));
    assert_eq!(gateway.send(&of_stable).status, 200);
    assert_eq!(unserved(&gateway), [Some(0), Some(3)]);
}

#[test]
fn assignments_count_new_people_once() {
    let gateway = Gateway::start(&policy(json!({ "versions": versions(0, 100, "live") })));
    let minted = || {
        let labels = [("rollout", "sms-checker"), ("version", "canary")];
        gateway.metric("lanekeeper_assignments_total", &labels)
    };
    let jar = promises::cookies(&gateway.get(&[]).0);
    for _ in 0..3 {
        gateway.get(&[("cookie", &jar)]);
        gateway.get(&[("x-user", "alice")]);
    }
    assert_eq!(minted(), Some(1));
}

#[test]
fn the_slots_of_each_version_are_there_to_compare_new_people_with() {
    let gateway = Gateway::start(&policy(json!({})));
    let slots = |version| {
        let labels = [("rollout", "sms-checker"), ("version", version)];
        gateway.metric("lanekeeper_slots", &labels)
    };
    assert_eq!(["stable", "canary"].map(slots), [Some(9_000), Some(1_000)]);
    let without_canary = json!([{ "name": "stable", "weight": 100, "baseline": true }]);
    gateway.push(&policy(json!({ "versions": without_canary })));
    assert_eq!(["stable", "canary"].map(slots), [Some(10_000), Some(0)]);
    // Whoever brings the version along was given it elsewhere.
    gateway.push(&policy(json!({ "clientHeader": "accept" })));
    assert_eq!(["stable", "canary"].map(slots), [Some(0), Some(0)]);
}

#[test]
fn the_configuration_in_force_is_a_number_that_the_command_line_knows_too() {
    let document = policy(json!({}));
    let gateway = Gateway::start(&document);
    let hash = lanekeeper_policy::Policy::compile(&document, &|_| None)
        .expect("a policy")
        .hash();
    assert_eq!(gateway.gauge("lanekeeper_config_hash"), Some(hash.into()));
    assert_eq!(gateway.gauge("lanekeeper_config_rejected"), Some(0));
}

#[test]
fn clients_cannot_make_labels() {
    let gateway = Gateway::start(&policy(json!({})));
    let series = |gateway: &Gateway| {
        let text = gateway.envoy().prometheus().expect("metrics");
        text.lines()
            .filter(|line| line.starts_with("lanekeeper_"))
            .count()
    };
    let before = series(&gateway);
    for n in 0..50 {
        let made_up = format!("v{n}");
        let cookie = format!("app-version={made_up}.0.20000");
        gateway.get(&[
            ("x-experiment", &made_up),
            ("x-app-version", &made_up),
            ("cookie", &cookie),
        ]);
    }
    assert_eq!(series(&gateway), before);
}
