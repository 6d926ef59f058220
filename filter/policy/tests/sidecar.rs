//! What leaves a pod carries the pod's version; what comes in is checked against it; a shadow does
//! nothing twice.

mod support;

use lanekeeper_policy::{Headers, Outbound, Policy};
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn sidecar() -> Policy {
    compile(json!({ "sidecar": {
        "serves": "own",
        "stamp": ["model-service.*", "*.models.local"],
        "versions": ["stable", "canary"],
    }}))
}

#[test]
fn a_service_is_stamped_under_any_of_its_cluster_names() {
    let policy = sidecar();
    let stamped = |authority: &str| {
        let request = request("POST", authority, "/predict", &[]);
        let sidecar = policy.sidecar().expect("a sidecar");
        sidecar.outbound(Headers::new(&request)) == Outbound::Stamp
    };
    for authority in [
        "model-service",
        "model-service:8081",
        "Model-Service.sms",
        "model-service.sms.svc.cluster.local:8081",
        "a.models.local",
    ] {
        assert!(stamped(authority), "{authority}");
    }
    for authority in [
        "model-services",
        "x.model-service",
        "models.local",
        "",
        "other",
    ] {
        assert!(!stamped(authority), "{authority}");
    }
}

#[test]
fn only_a_request_for_another_version_is_a_mismatch() {
    let policy = sidecar();
    let mismatch = |headers: &[(&str, &str)]| {
        let request = get(headers);
        let sidecar = policy.sidecar().expect("a sidecar");
        let mismatch = sidecar.mismatch(Headers::new(&request), "canary");
        mismatch.map(|mismatch| mismatch.expected.to_owned())
    };
    assert_eq!(
        mismatch(&[("x-app-version", "stable")]).as_deref(),
        Some("stable")
    );
    assert_eq!(
        mismatch(&[("x-app-version", "made-up")]).as_deref(),
        Some("other")
    );
    assert_eq!(mismatch(&[("x-app-version", "canary")]), None);
    assert_eq!(mismatch(&[]), None);
}

#[test]
fn a_mismatch_is_refused_where_the_policy_says_so() {
    for (on_mismatch, refused) in [("observe", false), ("refuse", true)] {
        let policy = compile(json!({ "sidecar": { "serves": "own", "onMismatch": on_mismatch } }));
        let request = get(&[("x-app-version", "stable")]);
        let sidecar = policy.sidecar().expect("a sidecar");
        let mismatch = sidecar.mismatch(Headers::new(&request), "canary");
        assert_eq!(mismatch.expect("a mismatch").refused, refused);
    }
}

#[test]
fn a_shadow_marks_its_calls_and_makes_no_unsafe_ones() {
    let policy =
        compile(json!({ "sidecar": { "serves": "shadow", "unsafeTo": ["model-service.*"] } }));
    let sidecar = policy.sidecar().expect("a sidecar");
    for (method, host, expected) in [
        ("GET", "elsewhere.example", Outbound::Mark),
        ("HEAD", "elsewhere.example", Outbound::Mark),
        ("POST", "elsewhere.example", Outbound::Block),
        ("get", "elsewhere.example", Outbound::Block),
        ("", "elsewhere.example", Outbound::Block),
        ("POST", "model-service.sms:80", Outbound::Mark),
    ] {
        let request = request(method, host, "/", &[]);
        let outbound = sidecar.outbound(Headers::new(&request));
        assert_eq!(outbound, expected, "{method} {host}");
    }
    // It is sent copies of requests for all versions.
    let request = get(&[("x-app-version", "stable")]);
    assert_eq!(sidecar.mismatch(Headers::new(&request), "shadow"), None);
}

#[test]
fn what_makes_no_sense_together_is_a_fault() {
    assert_eq!(
        faults(
            json!({ "sidecar": { "serves": "shadow", "stamp": ["a"], "onMismatch": "refuse" } })
        ),
        [
            "sidecar.stamp: a list: nothing without serves: own",
            r#"sidecar.onMismatch: "refuse": observe (a shadow gets requests for all versions)"#,
        ]
    );
    assert_eq!(
        faults(json!({ "sidecar": { "serves": "own", "unsafeTo": ["a"] } })),
        ["sidecar.unsafeTo: a list: nothing without serves: shadow"]
    );
}
