//! In a sidecar: what leaves the pod carries the pod's version, what comes in is checked.

use harness::wasm_host::World;
use promises::{Gateway, plugin};
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

#[test]
fn a_request_for_another_version_is_refused_where_the_policy_says_so() {
    let world = pod("canary", INBOUND);
    let mut refusing = policy();
    refusing["sidecar"]["onMismatch"] = json!("refuse");
    let plugin = plugin(&world, &refusing);
    let answer = |version| {
        let stream = plugin.request(to("app-service", version)).expect("no trap");
        stream.local_response()
    };
    assert!(answer(Some("canary")).is_none());
    assert!(answer(None).is_none());
    let refusal = answer(Some("stable")).expect("a refusal");
    assert_eq!(refusal.status, 421);
    assert_eq!(refusal.headers.get("x-version-mismatch"), Some("canary"));
    let problem: Value = serde_json::from_slice(&refusal.body).expect("JSON");
    let detail = "The request is for version stable, and this pod is canary.";
    assert_eq!(problem["detail"], detail);
    assert_eq!(
        world.metric("expected=.=stable;.;actual=.=canary;.;lanekeeper_mismatch_total"),
        Some(1)
    );
}

#[test]
fn the_gateway_makes_502_of_a_mismatch_and_leaves_other_421_alone() {
    let gateway = Gateway::start(&promises::policy(json!({})));
    let user = promises::user_of("stable");
    let status = || gateway.get(&[("x-user", &user)]).0;
    gateway.stable.set_status(421);
    assert_eq!(status().status, 421);
    gateway
        .stable
        .set_response_headers([("x-version-mismatch", "canary")]);
    let response = status();
    assert_eq!(response.status, 502);
    assert_eq!(response.headers.get("x-version-mismatch"), None);

    // Of a gRPC call that is refused, Envoy makes this.
    gateway.stable.set_status(200);
    let response = status();
    assert_eq!(response.status, 200);
    assert_eq!(response.headers.get("x-version-mismatch"), None);
}

#[test]
fn a_shadow_marks_what_it_sends_and_does_nothing_twice() {
    let world = World::new();
    world.set_property(&["xds", "listener_direction"], OUTBOUND.to_le_bytes());
    let policy = json!({ "sidecar": { "serves": "shadow", "unsafeTo": ["model-service.*"] } });
    let plugin = plugin(&world, &policy);
    let send = |host| plugin.request(to(host, None)).expect("no trap");
    let allowed = send("model-service:8081");
    assert_eq!(allowed.request_headers().get("x-shadow"), Some("true"));
    let blocked = send("orders").local_response().expect("a refusal");
    assert_eq!(blocked.status, 403);
    assert_eq!(world.metric("lanekeeper_shadow_blocked_total"), Some(1));
    assert_eq!(
        world.metric("kind=.=pod_version;.;lanekeeper_errors_total"),
        Some(0)
    );
}
