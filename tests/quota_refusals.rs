//! A refusal says which quota, and truthfully how long to wait; a push forgets nothing; observing
//! refuses nobody.

use std::time::Duration;

use harness::http::Request;
use harness::wasm_host::{Module, Plugin, Status, Vm, VmOptions, World};
use promises::{Gateway, configure, plugin, request, with_quotas};
use serde_json::{Value, json};

fn per_user(changes: Value) -> Value {
    let mut quota = json!({ "name": "per-user", "key": ["user"], "limit": 10, "period": "1m" });
    for (key, value) in changes.as_object().expect("an object") {
        quota[key] = value.clone();
    }
    with_quotas(json!([quota]))
}

/// The headers of the refusal, or `None` where the request passes.
fn refused(plugin: &Plugin, user: &str) -> Option<harness::wasm_host::Headers> {
    let stream = plugin
        .request(request(&[("x-user", user)]))
        .expect("no trap");
    let response = stream.local_response();
    stream.finish().expect("no trap");
    let response = response?;
    assert_eq!(response.status, 429);
    Some(response.headers)
}

fn count(world: &World, verdict: &str) -> Option<u64> {
    world.metric(&format!(
        "quota=.=per-user;.;verdict=.={verdict};.;lanekeeper_quota_total"
    ))
}

#[test]
fn who_waits_as_long_as_told_is_admitted_and_one_second_earlier_is_not() {
    let world = World::new();
    let plugin = plugin(&world, &per_user(json!({})));
    let second = Duration::from_secs(1);
    // Odd fractions: what is told is rounded up.
    world.advance(Duration::from_nanos(123_456_789));
    for n in 0..10 {
        assert!(refused(&plugin, "alice").is_none(), "{n}");
        world.advance(Duration::from_millis(1_370));
    }
    for _ in 0..25 {
        let headers = refused(&plugin, "alice").expect("a refusal");
        let wait = headers
            .get("retry-after")
            .expect("Retry-After")
            .parse()
            .expect("seconds");
        assert!((1..=60).contains(&wait));
        let told = Duration::from_secs(wait);
        world.advance(told - second);
        assert!(refused(&plugin, "alice").is_some(), "{wait} s less one");
        world.advance(second);
        assert!(refused(&plugin, "alice").is_none(), "{wait} s");
    }
}

#[test]
fn a_refusal_explains_itself() {
    let gateway = Gateway::start(&per_user(json!({ "limit": 1 })));
    let request = Request::get("/sms").header("X-User", "alice");
    assert_eq!(gateway.send(&request).status, 200);
    let response = gateway.send(&request);
    assert_eq!(response.status, 429);
    let header = |name: &str| response.headers.get(name).unwrap_or_default().to_owned();
    let wait: u64 = header("retry-after").parse().expect("seconds");
    assert!((59..=60).contains(&wait));
    assert_eq!(header("ratelimit"), format!("\"per-user\";r=0;t={wait}"));
    assert_eq!(header("ratelimit-policy"), "\"per-user\";q=1;w=60");
    assert_eq!(header("content-type"), "application/problem+json");
    let problem: Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(problem["violated-policies"], json!(["per-user"]));
    assert_eq!(problem["retryAfter"], wait);
    // It is an answer of the rollout like any other.
    assert!(header("set-cookie").starts_with("app-version="));
    assert_eq!(header("cache-control"), "no-store");

    let head = gateway.send(&Request::new("HEAD", "/sms").header("X-User", "alice"));
    assert_eq!((head.status, head.body.len()), (429, 0));
}

#[test]
fn grpc_callers_learn_that_their_resources_are_exhausted() {
    let gateway = Gateway::start(&per_user(json!({ "limit": 1 })));
    let call = Request::post("/sms.Checker/Check", "")
        .header("X-User", "alice")
        .header("Content-Type", "application/grpc+proto");
    gateway.send(&call);
    let response = gateway.send(&call);
    assert_eq!(response.status, 200);
    assert_eq!(response.headers.get("grpc-status"), Some("8"));
    let message = response.headers.get("grpc-message").unwrap_or_default();
    assert!(message.contains("per-user"), "{message}");
    assert!(response.headers.get("retry-after").is_some());

    // What only looks like gRPC is answered as HTTP.
    for content in [
        "application/grpc-web",
        "application/grpcx",
        "application/grpc-web+proto",
    ] {
        let call = Request::post("/sms.Checker/Check", "")
            .header("X-User", "alice")
            .header("Content-Type", content);
        assert_eq!(gateway.send(&call).status, 429, "{content}");
    }
}

#[test]
fn a_push_with_the_same_quota_keeps_its_state() {
    let gateway = Gateway::start(&per_user(json!({})));
    let admitted = |requests: usize| {
        let request = Request::get("/").header("X-User", "alice");
        let send = |_| gateway.send(&request).status == 200;
        (0..requests).map(send).filter(|admitted| *admitted).count()
    };
    assert_eq!(admitted(8), 8);
    gateway.push(&per_user(json!({ "match": { "methods": ["GET"] } })));
    assert_eq!(admitted(8), 2);
    gateway.push(&per_user(json!({ "limit": 15 })));
    assert_eq!(admitted(8), 5);
    gateway.push_refused(r#"{ "quotas": [{}] }"#);
    assert_eq!(admitted(8), 0, "the last good policy stays in force");
    gateway.push(&with_quotas(json!([])));
    assert_eq!(admitted(8), 8);
    assert_eq!(gateway.crashes(), 0);
}

#[test]
fn observing_refuses_nobody_and_counts_what_it_would_have_refused() {
    let gateway = Gateway::start(&per_user(json!({ "enforcement": "observe" })));
    for _ in 0..25 {
        gateway.get(&[("x-user", "alice")]);
    }
    let counted = |verdict| {
        let labels = [("quota", "per-user"), ("verdict", verdict)];
        gateway.metric("lanekeeper_quota_total", &labels)
    };
    assert_eq!(
        ["admitted", "observed", "refused"].map(counted),
        [Some(10), Some(15), Some(0)]
    );
}

#[test]
fn all_workers_of_an_envoy_count_together() {
    let module = Module::filter().expect("the filter");
    let world = World::new();
    let vms = [(); 3].map(|()| Vm::start(&module, &world, VmOptions::default()).expect("a VM"));
    let policy = per_user(json!({})).to_string();
    let workers = vms.each_ref().map(|vm| configure(vm, &policy));
    let mut admitted = 0;
    for n in 0..60 {
        // Other workers are faster now and then.
        world.force_cas_conflicts(n % 4);
        admitted += usize::from(refused(&workers[n as usize % 3], "alice").is_none());
    }
    assert_eq!(admitted, 10);
    assert_eq!(count(&world, "admitted"), Some(10));
    assert_eq!(count(&world, "refused"), Some(50));
}

#[test]
fn who_loses_every_race_is_decided_by_on_contention() {
    for (on_contention, passes) in [("deny", false), ("allow", true)] {
        let world = World::new();
        let plugin = plugin(&world, &per_user(json!({ "onContention": on_contention })));
        world.force_cas_conflicts(u32::MAX);
        assert_eq!(refused(&plugin, "alice").is_none(), passes);
        world.force_cas_conflicts(0);
        let contention = "quota=.=per-user;.;lanekeeper_quota_contention_total";
        assert_eq!(world.metric(contention), Some(1));
        assert!(refused(&plugin, "alice").is_none());
    }
}

#[test]
fn a_table_that_is_full_is_counted() {
    let world = World::new();
    let plugin = plugin(&world, &per_user(json!({ "limit": 1, "capacity": 4 })));
    let users = (0..20).map(|n| format!("user-{n}"));
    let admitted = users
        .filter(|user| refused(&plugin, user).is_none())
        .count();
    assert_eq!(admitted, 5, "four have room, and the others one for all");
    let overflow = "quota=.=per-user;.;lanekeeper_quota_overflow_total";
    assert_eq!(world.metric(overflow), Some(16));
}

#[test]
fn a_clock_that_jumps_back_shuts_nobody_out_and_is_counted() {
    let world = World::new();
    let plugin = plugin(&world, &per_user(json!({})));
    for _ in 0..20 {
        refused(&plugin, "alice");
    }
    world.set_time(world.now() - Duration::from_secs(3600));
    assert!(refused(&plugin, "alice").is_none());
    assert_eq!(
        world.metric("kind=.=quota_state;.;lanekeeper_errors_total"),
        Some(1)
    );
    world.set_time(Duration::ZERO);
    assert!(refused(&plugin, "alice").is_none());
}

#[test]
fn a_host_that_fails_costs_a_count_and_no_request() {
    for (hostcall, status) in [
        ("proxy_get_property", Status::NotFound),
        ("proxy_get_property", Status::InternalFailure),
        ("proxy_get_shared_data", Status::NotFound),
        ("proxy_increment_metric", Status::NotFound),
    ] {
        let world = World::new();
        let plugin = plugin(&world, &per_user(json!({ "key": ["user", "address"] })));
        world.fail(hostcall, status);
        assert!(refused(&plugin, "alice").is_none(), "{hostcall} {status:?}");
        world.fail(hostcall, Status::Ok);
        for _ in 0..15 {
            refused(&plugin, "alice");
        }
        assert!(refused(&plugin, "alice").is_some(), "{hostcall} {status:?}");
    }
    let world = World::new();
    world.set_entropy_failure(true);
    let plugin = plugin(&world, &per_user(json!({})));
    let admitted = (0..20)
        .filter(|_| refused(&plugin, "alice").is_none())
        .count();
    assert_eq!(admitted, 10);
}

#[test]
fn a_push_frees_what_a_quota_held_that_is_gone() {
    let module = Module::filter().expect("the filter");
    let world = World::new();
    let vm = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
    let held = || {
        let shared = world.shared().into_iter();
        let states = shared.filter(|(name, _)| name.contains("/quota/"));
        states.map(|(_, value)| value.len()).sum::<usize>()
    };
    let plugin = configure(&vm, &per_user(json!({})).to_string());
    for n in 0..100 {
        assert!(refused(&plugin, &format!("user-{n}")).is_none());
    }
    let before = held();
    assert!(before > 100 * 25);
    configure(&vm, &per_user(json!({ "limit": 20 })).to_string());
    assert_eq!(held(), before, "another limit has use for it");
    configure(
        &vm,
        &per_user(json!({ "algorithm": "bucket", "burst": 1 })).to_string(),
    );
    assert_eq!(held(), 0);
}
