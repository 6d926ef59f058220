//! In a sidecar: what leaves the pod carries the pod's version, what comes in is checked.

use harness::wasm_host::World;
use promises::plugin;
use serde_json::{Value, json};

const INBOUND: i64 = 1;
const OUTBOUND: i64 = 2;

fn policy() -> Value {
    json!({ "sidecar": {
        "serves": "own",
        "stamp": ["model-service.*"],
        "versions": ["stable", "canary"],
    }})
}

fn pod(version: &str, direction: i64) -> World {
    let world = World::new();
    world.set_property(&["xds", "node", "metadata", "LABELS", "version"], version);
    world.set_property(&["xds", "listener_direction"], direction.to_le_bytes());
    world
}

fn to(authority: &str, version: Option<&str>) -> harness::wasm_host::Headers {
    let headers: harness::wasm_host::Headers = [
        (":authority", authority),
        (":path", "/predict"),
        (":method", "POST"),
    ]
    .into();
    match version {
        Some(version) => headers.with("x-app-version", version),
        None => headers,
    }
}

#[test]
fn calls_to_listed_hosts_leave_with_the_pods_version_whatever_the_application_sent() {
    let world = pod("canary", OUTBOUND);
    let plugin = plugin(&world, &policy());
    for sent in [None, Some("stable"), Some("canary"), Some("nonsense")] {
        let stream = plugin
            .request(to("model-service:8081", sent))
            .expect("no trap");
        assert_eq!(
            stream.request_headers().all("x-app-version"),
            [b"canary"],
            "{sent:?}"
        );
    }
    let stream = plugin
        .request(to("elsewhere.example", Some("mine")))
        .expect("no trap");
    assert_eq!(stream.request_headers().get("x-app-version"), Some("mine"));
}

#[test]
fn a_request_for_another_version_is_counted_and_served() {
    let world = pod("canary", INBOUND);
    let plugin = plugin(&world, &policy());
    for version in [
        Some("canary"),
        None,
        Some("stable"),
        Some("stable"),
        Some("made-up"),
    ] {
        let stream = plugin.request(to("app-service", version)).expect("no trap");
        assert!(stream.local_response().is_none());
        assert_eq!(stream.request_headers().get("x-app-version"), version);
    }
    let counted = |expected: &str| {
        world.metric(&format!(
            "expected=.={expected};.;actual=.=canary;.;lanekeeper_mismatch_total"
        ))
    };
    assert_eq!(counted("stable"), Some(2));
    assert_eq!(counted("other"), Some(1));
    assert_eq!(counted("canary"), None);
}

#[test]
fn a_pod_without_a_usable_version_label_neither_stamps_nor_counts_and_says_so() {
    for label in ["", "Not A Label", "v1.2", "\u{ff}"] {
        let world = pod(label, OUTBOUND);
        let plugin = plugin(&world, &policy());
        let stream = plugin
            .request(to("model-service", Some("canary")))
            .expect("no trap");
        assert_eq!(
            stream.request_headers().get("x-app-version"),
            Some("canary")
        );
        assert_eq!(
            world.metric("kind=.=pod_version;.;lanekeeper_errors_total"),
            Some(1)
        );
    }
}
