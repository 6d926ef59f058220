//! The module itself: small, and asking its host only for what Envoy gives.

use harness::wasm_host::Module;

const KIB_250: usize = 250 * 1024;

#[test]
fn the_plugin_is_under_250_kilobytes() {
    let size = Module::filter().expect("the filter").size();
    assert!(size < 250_000.min(KIB_250), "{size} bytes");
}

#[test]
fn it_imports_the_abi_and_the_wasi_functions_that_envoy_implements() {
    let wasi = [
        "environ_get",
        "environ_sizes_get",
        "fd_write",
        "proc_exit",
        "random_get",
    ];
    for (module, name) in Module::filter().expect("the filter").imports() {
        let known = match module.as_str() {
            "env" => name.starts_with("proxy_"),
            "wasi_snapshot_preview1" => wasi.contains(&name.as_str()),
            _ => false,
        };
        assert!(known, "{module}.{name}");
    }
}
