//! The manifests in `wasm-plugins/` say what the policies say.

use std::path::PathBuf;

fn file(name: &str) -> PathBuf {
    harness::build::workspace().join("wasm-plugins").join(name)
}

#[test]
fn a_wasm_plugin_carries_its_policy_word_for_word() {
    let manifest = lanekeeper_cli::read_document(&file("sms-checker-gateway.yaml")).expect("YAML");
    let (policy, _) = lanekeeper_cli::load(&file("policies/sms-checker-gateway.yaml"), &|_| None)
        .expect("a policy");
    assert_eq!(manifest["kind"], "WasmPlugin");
    assert_eq!(manifest["spec"]["pluginConfig"], policy);
}
