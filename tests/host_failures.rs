//! A host that fails is worth a counter, never a request.

use harness::wasm_host::{Module, Status, Vm, VmOptions, World};
use promises::{configure, plugin, policy, request, user_of};
use serde_json::json;

/// Hostcalls that may fail in a running Envoy, the failures that its ABI has for them, and the
/// version that a user of canary then gets. (For others the SDK knows `Ok` only and aborts the VM on
/// anything else, which Envoy does not answer in the callbacks that use them.)
const FAILURES: &[(&str, &[Status], Option<&str>)] = &[
    (
        "proxy_get_property",
        &[
            Status::NotFound,
            Status::SerializationFailure,
            Status::InternalFailure,
        ],
        Some("canary"),
    ),
    // No configuration to be had is a bad configuration.
    ("proxy_get_buffer_bytes", &[Status::NotFound], None),
    (
        "proxy_set_shared_data",
        &[Status::CasMismatch],
        Some("canary"),
    ),
    ("proxy_record_metric", &[Status::NotFound], Some("canary")),
    (
        "proxy_increment_metric",
        &[Status::NotFound, Status::BadArgument],
        Some("canary"),
    ),
];

#[test]
fn traffic_runs_while_hostcalls_fail_and_is_as_before_once_they_heal() {
    let module = Module::filter().expect("the filter");
    for (hostcall, statuses, expected) in FAILURES {
        for status in *statuses {
            let world = World::new();
            let vm = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
            let version = || {
                let fails = format!("{hostcall} {status:?}");
                let plugin = configure(&vm, &policy(json!({})).to_string());
                let request = request(&[("x-user", &user_of("canary"))]);
                let stream = plugin.request(request).expect(&fails);
                let version = stream
                    .request_headers()
                    .get("x-app-version")
                    .map(str::to_owned);
                let response = [(":status", "200"), ("cache-control", "public")];
                stream.respond(response).expect(&fails);
                stream.finish().expect(&fails);
                version
            };
            world.fail(hostcall, *status);
            assert_eq!(version().as_deref(), *expected, "{hostcall} {status:?}");
            world.fail(hostcall, Status::Ok);
            assert_eq!(
                version().as_deref(),
                Some("canary"),
                "{hostcall} {status:?}"
            );
        }
    }
}

#[test]
fn without_a_name_a_plugin_is_called_default() {
    let world = World::new();
    world.fail("proxy_get_property", Status::NotFound);
    plugin(&world, &policy(json!({})));
    assert_eq!(
        world.metric("plugin=.=default;.;lanekeeper_config_rejected"),
        Some(0)
    );
}
