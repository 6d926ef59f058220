//! A host that fails is worth a counter, never a request.

use harness::wasm_host::{Module, Status, Vm, VmOptions, World};
use promises::{configure, plugin, policy, request, user_of};
use serde_json::json;

/// Hostcalls of the plugin, and what the ABI allows each of them to answer beside `Ok`.
const STATUSES: &[(&str, &[Status])] = &[
    (
        "proxy_get_property",
        &[
            Status::NotFound,
            Status::SerializationFailure,
            Status::InternalFailure,
        ],
    ),
    ("proxy_get_buffer_bytes", &[Status::NotFound]),
    ("proxy_get_header_map_value", &[Status::NotFound]),
    ("proxy_get_shared_data", &[Status::NotFound]),
    ("proxy_set_shared_data", &[Status::CasMismatch]),
    ("proxy_record_metric", &[Status::NotFound]),
    (
        "proxy_increment_metric",
        &[Status::NotFound, Status::BadArgument],
    ),
];

#[test]
fn every_failure_that_the_abi_allows_leaves_traffic_running() {
    for (hostcall, statuses) in STATUSES {
        for status in *statuses {
            let world = World::new();
            let module = Module::filter().expect("the filter");
            let vm = Vm::start(&module, &world, VmOptions::default()).expect("a VM");
            // While it is configured, and while requests run.
            world.fail(hostcall, *status);
            let plugin = configure(&vm, &policy(json!({})).to_string());
            let send = || {
                let stream = plugin
                    .request(request(&[("x-user", &user_of("canary"))]))
                    .unwrap_or_else(|trap| panic!("{hostcall} {status:?}: {trap}"));
                let version = stream
                    .request_headers()
                    .get("x-app-version")
                    .map(str::to_owned);
                stream
                    .respond([(":status", "200"), ("cache-control", "public")])
                    .unwrap_or_else(|trap| panic!("{hostcall} {status:?}: {trap}"));
                stream
                    .finish()
                    .unwrap_or_else(|trap| panic!("{hostcall} {status:?}: {trap}"));
                version
            };
            send();
            // And once it heals, everything is as it should be.
            world.fail(hostcall, Status::Ok);
            let plugin = configure(&vm, &policy(json!({})).to_string());
            let stream = plugin
                .request(request(&[("x-user", &user_of("canary"))]))
                .expect("no trap");
            assert_eq!(
                stream.request_headers().get("x-app-version"),
                Some("canary")
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
        world.metric("plugin.=.default;.lanekeeper_config_rejected"),
        Some(0)
    );
}
