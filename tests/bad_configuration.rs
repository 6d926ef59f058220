//! A bad configuration never stops traffic: it is refused with every fault named, and the last good
//! policy stays in force.

use harness::wasm_host::{LogLevel, Module, Vm, VmOptions, World};
use promises::{Gateway, configure, policy, request, user_of};
use serde_json::json;

/// Three faults in three places.
fn faulty() -> String {
    policy(json!({
        "stickiness": "sometimes",
        "epoch": -1,
        "versions": [
            { "name": "stable", "weight": 90, "baseline": true },
            { "name": "canary", "weight": 9 },
        ],
    }))
    .to_string()
}

const FAULTS: [&str; 3] = [
    r#"rollouts[0].stickiness: "sometimes": one of cookie, identity"#,
    "rollouts[0].epoch: -1: a whole number from 0 to 4294967295",
    "rollouts[0].versions: weights that add up to 99.00: weights that add up to 100",
];

#[test]
fn a_running_envoy_names_all_faults_and_keeps_the_last_good_policy() {
    let gateway = Gateway::start(&policy(json!({})));
    let user = user_of("canary");
    let before = gateway.gauge("lanekeeper_config_hash");
    gateway.push_refused(&faulty());
    for fault in FAULTS {
        assert!(gateway.envoy().logs().contains(fault), "{fault}");
    }
    assert_eq!(gateway.gauge("lanekeeper_config_hash"), before);
    for _ in 0..10 {
        assert_eq!(gateway.get(&[("x-user", &user)]).1.upstream, "canary");
    }
    // The next good one is taken.
    gateway.push(&policy(
        json!({ "versions": promises::versions(100, 0, "live") }),
    ));
    assert_eq!(gateway.get(&[("x-user", &user)]).1.upstream, "stable");
}

#[test]
fn a_fresh_envoy_serves_the_baseline_and_says_so() {
    let gateway = Gateway::start_with_text(&faulty());
    let user = user_of("canary");
    let headers = [
        ("x-user", &*user),
        ("x-app-version", "canary"),
        ("x-shadow", "true"),
    ];
    let (response, echo) = gateway.get(&headers);
    assert_eq!(echo.upstream, "stable");
    assert!(echo.headers.all("x-app-version").is_empty());
    assert!(echo.headers.all("x-shadow").is_empty());
    assert!(response.headers.get("set-cookie").is_none());
    assert_eq!(gateway.gauge("lanekeeper_config_rejected"), Some(1));
    assert_eq!(gateway.gauge("lanekeeper_config_hash"), Some(0));
    for fault in FAULTS {
        assert!(gateway.envoy().logs().contains(fault), "{fault}");
    }
}

#[test]
fn what_is_no_json_at_all_is_refused_likewise() {
    for text in [
        "",
        "rollouts: []",
        "{",
        "[]",
        "null",
        "\u{0}\u{1}\u{ffff}",
        "{\"rollouts\": 1e999}",
    ] {
        let world = World::new();
        let module = Module::filter().expect("the filter");
        let vm = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
        let plugin = configure(&vm, text);
        let stream = plugin
            .request(request(&[("x-app-version", "canary")]))
            .expect("no trap");
        assert_eq!(stream.request_headers().get("x-app-version"), None);
        assert_eq!(
            world.metric("plugin=.=gateway;.;lanekeeper_config_rejected"),
            Some(1)
        );
        let errors = world
            .logs()
            .into_iter()
            .filter(|(level, _)| *level == LogLevel::Error);
        assert_eq!(errors.count(), 1, "{text}");
    }
}

#[test]
fn the_last_good_policy_outlives_its_vm_and_is_there_for_other_workers() {
    let world = World::new();
    let module = Module::filter().expect("the filter");
    let start = || Vm::start(&module, &world, VmOptions::default()).expect("a VM");
    let user = user_of("canary");
    drop(configure(&start(), &policy(json!({})).to_string()));
    let later = configure(&start(), &faulty());
    let stream = later
        .request(request(&[("x-user", &user)]))
        .expect("no trap");
    assert_eq!(
        stream.request_headers().get("x-app-version"),
        Some("canary")
    );
}

#[test]
fn a_last_good_policy_that_was_damaged_is_no_policy() {
    let world = World::new();
    let module = Module::filter().expect("the filter");
    world.set_shared("lanekeeper/1/policy/gateway", b"\xff{damaged");
    let vm = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
    let plugin = configure(&vm, &faulty());
    let stream = plugin.request(request(&[])).expect("no trap");
    assert_eq!(stream.request_headers().get("x-app-version"), None);
}

#[test]
fn plugins_of_one_envoy_do_not_take_each_others_policy() {
    let world = World::new();
    let module = Module::filter().expect("the filter");
    let vm = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
    configure(&vm, &policy(json!({})).to_string());
    let options = harness::wasm_host::PluginOptions {
        name: "other".to_owned(),
        config: b"{}".to_vec(),
        ..Default::default()
    };
    let other = vm.configure(options).expect("no trap");
    let stream = other.request(request(&[])).expect("no trap");
    assert_eq!(stream.request_headers().get("x-app-version"), None);
    assert_eq!(
        world.metric("plugin=.=other;.;lanekeeper_config_rejected"),
        Some(1)
    );
    assert_eq!(
        world.metric("plugin=.=gateway;.;lanekeeper_config_rejected"),
        Some(0)
    );
}

/// As Envoy does with a configuration that it still holds when it is pushed again.
#[test]
fn a_refused_configuration_that_comes_back_unnoticed_leaves_the_last_good_policy_in_force() {
    let world = World::new();
    let module = Module::filter().expect("the filter");
    let vm = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
    configure(&vm, &policy(json!({})).to_string());
    let refused = configure(&vm, &faulty());
    let new = policy(json!({ "versions": promises::versions(100, 0, "live") }));
    configure(&vm, &new.to_string());
    let hash = world.metric("plugin=.=gateway;.;lanekeeper_config_hash");

    let user = user_of("canary");
    let stream = refused
        .request(request(&[("x-user", &user)]))
        .expect("no trap");
    assert_eq!(
        stream.request_headers().get("x-app-version"),
        Some("stable")
    );
    assert_eq!(
        world.metric("plugin=.=gateway;.;lanekeeper_config_hash"),
        hash
    );
    assert_eq!(
        world.metric("plugin=.=gateway;.;lanekeeper_config_rejected"),
        Some(1)
    );
}

#[test]
fn requests_under_way_finish_under_the_policy_they_began_with() {
    let world = World::new();
    let plugin = promises::plugin(&world, &policy(json!({})));
    let stream = plugin
        .request(request(&[("x-user", "alice")]))
        .expect("no trap");
    configure(
        plugin.vm(),
        &policy(json!({ "cacheControl": "leave" })).to_string(),
    );
    let response = stream.respond([(":status", "200")]).expect("no trap");
    assert_eq!(response.get("cache-control"), Some("private"));
}

#[test]
fn a_secret_comes_from_the_environment_and_its_absence_is_a_fault() {
    let by = json!({ "header": "x-experiment", "secret": { "header": "x-key", "env": "KEY" } });
    let policy = policy(json!({ "override": by })).to_string();
    let module = Module::filter().expect("the filter");
    let version = |env: Vec<(String, String)>, key: &str| {
        let world = World::new();
        let options = VmOptions {
            env,
            ..Default::default()
        };
        let vm = Vm::start(&module, &world, options).expect("a VM");
        let user = user_of("stable");
        let asked = request(&[
            ("x-user", &user),
            ("x-experiment", "canary"),
            ("x-key", key),
        ]);
        let stream = configure(&vm, &policy).request(asked).expect("no trap");
        assert!(!world.logs().iter().any(|(_, line)| line.contains("s3cret")));
        let headers = stream.request_headers();
        (
            headers.get("x-app-version").map(str::to_owned),
            headers.get("x-key").map(str::to_owned),
        )
    };
    let env = || vec![("KEY".to_owned(), "s3cret".to_owned())];
    assert_eq!(version(env(), "s3cret"), (Some("canary".to_owned()), None));
    assert_eq!(version(env(), "wrong"), (Some("stable".to_owned()), None));
    assert_eq!(version(vec![], "").0, None);

    // Gone since: the override is closed, and users keep their versions.
    let world = World::new();
    let with = VmOptions {
        env: env(),
        ..Default::default()
    };
    configure(&Vm::start(&module, &world, with).expect("a VM"), &policy);
    let later = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
    let plugin = configure(&later, &policy);
    assert_eq!(
        world.metric("plugin=.=gateway;.;lanekeeper_config_rejected"),
        Some(1)
    );
    let user = user_of("canary");
    let stream = plugin
        .request(request(&[("x-user", &user)]))
        .expect("no trap");
    assert_eq!(
        stream.request_headers().get("x-app-version"),
        Some("canary")
    );
    let user = user_of("stable");
    let asked = [
        ("x-user", &*user),
        ("x-experiment", "canary"),
        ("x-key", "s3cret"),
    ];
    let stream = plugin.request(request(&asked)).expect("no trap");
    assert_eq!(
        stream.request_headers().get("x-app-version"),
        Some("stable")
    );
}

#[test]
fn a_worker_that_lags_behind_throws_no_other_back() {
    let world = World::new();
    let module = Module::filter().expect("the filter");
    let start = || Vm::start(&module, &world, VmOptions::default()).expect("a VM");
    let (fast, slow) = (start(), start());
    let old = policy(json!({})).to_string();
    let new = policy(json!({ "versions": promises::versions(100, 0, "live") })).to_string();
    configure(&fast, &old);
    configure(&fast, &new);
    configure(&slow, &old);
    let user = user_of("canary");
    let stream = configure(&fast, &faulty())
        .request(request(&[("x-user", &user)]))
        .expect("no trap");
    assert_eq!(
        stream.request_headers().get("x-app-version"),
        Some("stable")
    );
}
