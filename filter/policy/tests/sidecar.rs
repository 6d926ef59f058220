//! What leaves a pod carries the pod's version; what comes in is checked against it.

mod support;

use lanekeeper_policy::{Headers, Policy};
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
        policy
            .sidecar()
            .expect("a sidecar")
            .stamps(Headers::new(&request))
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
        sidecar
            .mismatch(Headers::new(&request), "canary")
            .map(str::to_owned)
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
