//! The wasm host, with guests written by hand.

#![cfg(feature = "wasm-host")]

use harness::wasm_host::{
    Action, Headers, LogLevel, Metric, Module, Plugin, PluginOptions, Status, Vm, VmOptions, World,
};
use std::time::Duration;

/// A guest of the given imports and functions, with an allocator that only
/// grows and texts at fixed places: 0 "k", 8 "v", 16 "x-two", 32 result area.
fn guest(imports: &str, functions: &str) -> Module {
    let text = format!(
        r#"(module
            {imports}
            (memory (export "memory") 2)
            (global $next (mut i32) (i32.const 1024))
            (data (i32.const 0) "k")
            (data (i32.const 8) "v")
            (data (i32.const 16) "x-two")
            (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
                (global.get $next)
                (global.set $next (i32.add (global.get $next) (local.get $size))))
            {functions})"#
    );
    Module::new(text.as_bytes()).expect("a module")
}

fn plugin(module: &Module, world: &World) -> Plugin {
    let vm = Vm::start(module, world, VmOptions::default()).expect("a VM");
    vm.configure(PluginOptions::default()).expect("a plugin")
}

const HEADER_IMPORTS: &str = r#"
    (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))"#;

/// Logs the first `x-two` of a map, or the status of the attempt as one byte.
const LOG_TWO: &str = r#"
    (func $log_two (param $map i32)
        (local $status i32)
        (local.set $status
            (call $get (local.get $map) (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 36)))
        (if (local.get $status)
            (then
                (i32.store8 (i32.const 40) (i32.add (local.get $status) (i32.const 48)))
                (drop (call $log (i32.const 3) (i32.const 40) (i32.const 1))))
            (else
                (drop (call $log (i32.const 2) (i32.load (i32.const 32)) (i32.load (i32.const 36)))))))"#;

#[test]
fn a_read_gives_the_first_value_and_replace_collapses() {
    let module = guest(
        HEADER_IMPORTS,
        &format!(
            r#"{LOG_TWO}
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $log_two (i32.const 0))
                (call $replace (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 8) (i32.const 1)))"#
        ),
    );
    let world = World::new();
    let stream = plugin(&module, &world)
        .request([("X-Two", "1"), ("other", "o"), ("x-two", "2")])
        .expect("no trap");
    assert_eq!(world.logs(), [(LogLevel::Info, "1".to_owned())]);
    assert_eq!(
        stream.request_headers(),
        Headers::from([("other", "o"), ("x-two", "v")])
    );
    assert!(!stream.is_paused());
}

#[test]
fn request_headers_are_closed_once_the_request_went_on() {
    let module = guest(
        HEADER_IMPORTS,
        &format!(
            r#"{LOG_TWO}
            (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                (call $log_two (i32.const 0)) (call $log_two (i32.const 2)) (i32.const 0))
            (func (export "proxy_on_log") (param i32)
                (call $log_two (i32.const 0)) (call $log_two (i32.const 2)))"#
        ),
    );
    let world = World::new();
    let stream = plugin(&module, &world)
        .request([("x-two", "request")])
        .expect("no trap");
    stream.respond([(":status", "200")]).expect("no trap");
    stream.finish().expect("no trap");
    let logs: Vec<String> = world.logs().into_iter().map(|(_, text)| text).collect();
    // BadArgument for the closed map, NotFound for the missing header; the log
    // callback may read both.
    assert_eq!(logs, ["2", "1", "request", "1"]);
}

#[test]
fn a_local_response_passes_the_response_callback() {
    let module = guest(
        &format!(
            r#"{HEADER_IMPORTS}
            (import "env" "proxy_send_local_response"
                (func $send (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#
        ),
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $send (i32.const 429) (i32.const 0) (i32.const 0)
                    (i32.const 8) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8)))
                (i32.const 0))
            (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                (call $replace (i32.const 2) (i32.const 16) (i32.const 5) (i32.const 8) (i32.const 1)))"#,
    );
    let plugin = plugin(&module, &World::new());
    let stream = plugin.request([(":path", "/")]).expect("no trap");
    let local = stream.local_response().expect("a local response");
    assert_eq!(
        (local.status, local.body.as_slice(), local.grpc_status),
        (429, &b"v"[..], Some(8))
    );
    let sent = Headers::from([
        (":status", "429"),
        ("content-length", "1"),
        ("content-type", "text/plain"),
        ("x-two", "v"),
    ]);
    assert_eq!(stream.response_headers(), sent);

    let grpc = plugin
        .request([("content-type", "application/grpc+proto")])
        .expect("no trap");
    let sent = grpc.response_headers();
    assert_eq!(
        (sent.get(":status"), sent.get("grpc-status")),
        (Some("200"), Some("8"))
    );
}

/// Counts its failures to write the shared key: each callback writes "v" with
/// the cas it was given as the number of headers, and pauses with the status.
const SHARED: (&str, &str) = (
    r#"(import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))"#,
    r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
            (i32.eqz (call $define (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 32))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (call $set (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 1) (local.get 1))
                (then (drop (call $increment (i32.load (i32.const 32)) (i64.const 1)))))
            (i32.const 0))"#,
);

#[test]
fn hostcalls_fail_as_told() {
    let world = World::new();
    let plugin = plugin(&guest(SHARED.0, SHARED.1), &world);
    let failures = || world.metric("v").expect("a metric");
    let write = || plugin.request([("cas", "1")]).map(drop).expect("no trap");
    world.fail_times("proxy_set_shared_data", Status::InternalFailure, 2);
    write();
    write();
    assert_eq!((failures(), world.shared().len()), (2, 0));
    write();
    assert_eq!(
        (failures(), world.shared()["k"].as_slice()),
        (2, b"v".as_slice())
    );
    world.set_shared("k", b"by another worker");
    write();
    assert_eq!(
        (failures(), world.shared()["k"].as_slice()),
        (3, b"by another worker".as_slice())
    );
    world.fail("proxy_increment_metric", Status::BadArgument);
    write();
    world.fail("proxy_increment_metric", Status::Ok);
    assert_eq!(world.metrics()["v"], Metric::Counter(3));
}

#[test]
fn workers_share_one_world() {
    let (world, module) = (World::new(), guest(SHARED.0, SHARED.1));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let worker = plugin(&module, &world);
            scope.spawn(move || {
                for _ in 0..50 {
                    worker
                        .request([("cas", "u32::MAX, in effect")])
                        .map(drop)
                        .expect("no trap");
                }
            });
        }
    });
    // cas 1 fits the first write only, and creates the key before that.
    assert_eq!(world.metric("v"), Some(198));
}

#[test]
fn a_trap_is_reported_and_the_vm_stays_dead() {
    let module = guest(
        r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))"#,
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $log (i32.const 5) (i32.const 16) (i32.const 5))) unreachable)"#,
    );
    let plugin = plugin(&module, &World::new());
    let trap = plugin
        .request([(":path", "/")])
        .expect_err("a trap")
        .to_string();
    assert!(
        trap.contains("proxy_on_request_headers") && trap.contains("unreachable"),
        "{trap}"
    );
    assert!(trap.ends_with("x-two"), "what the guest said last: {trap}");
    let again = plugin.stream().expect_err("a dead VM").to_string();
    assert!(
        again.contains("the VM is dead") && again.contains("unreachable"),
        "{again}"
    );
}

#[test]
fn an_endless_loop_ends() {
    let module = guest(
        "",
        r#"(func (export "proxy_on_tick") (param i32) (loop (br 0)))"#,
    );
    let trap = plugin(&module, &World::new())
        .tick()
        .expect_err("a trap")
        .to_string();
    assert!(trap.contains("fuel"), "{trap}");
}

#[test]
fn unknown_imports_are_refused_by_name() {
    let module = r#"(module (import "wasi_snapshot_preview1" "path_open" (func)))"#;
    let error = Module::new(module.as_bytes())
        .expect_err("not provided")
        .to_string();
    assert!(
        error.contains("wasi_snapshot_preview1.path_open"),
        "{error}"
    );
}

#[test]
fn a_paused_request_waits_for_its_call() {
    let module = guest(
        r#"(import "env" "proxy_grpc_call" (func $call
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))"#,
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
                (i32.eqz (call $period (i32.const 250))))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $call (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)
                    (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)
                    (i32.const 8) (i32.const 1) (i32.const 20) (i32.const 32)))
                (i32.const 1))
            (func (export "proxy_on_grpc_receive") (param i32 i32 i32)
                (drop (call $continue (i32.const 0))))"#,
    );
    let plugin = plugin(&module, &World::new());
    assert!(plugin.accepted());
    assert_eq!(plugin.tick_period(), Duration::from_millis(250));
    let first = plugin.stream().expect("no trap");
    assert_eq!(
        first
            .on_request_headers([("a", "b")], true)
            .expect("no trap"),
        Action::Pause
    );
    let second = plugin.request([("a", "b")]).expect("no trap");

    let calls = plugin.vm().grpc_calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (calls[0].cluster.as_str(), calls[0].message.as_slice()),
        ("k", &b"v"[..])
    );
    assert_eq!(calls[0].timeout, Duration::from_millis(20));
    plugin
        .vm()
        .answer_grpc(calls[0].token, Ok(b"yes"))
        .expect("no trap");
    assert!(!first.is_paused() && second.is_paused());
    second.finish().expect("no trap");
    assert!(
        plugin.vm().grpc_calls().is_empty(),
        "cancelled with its stream"
    );
}
