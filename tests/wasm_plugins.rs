//! The manifests in `wasm-plugins/` are what `lanekeeper plugin` prints for the policies.

use std::path::PathBuf;

use lanekeeper_cli::{Image, Role, WasmPlugin};
use serde_json::Value;

/// Manifest, policy, role, namespace where it is not the role's.
const PLUGINS: [(&str, &str, Role, Option<&str>); 7] = [
    ("gateway.yaml", "gateway.yaml", Role::Gateway, None),
    (
        "sms-checker-outbound.yaml",
        "sms-checker-sidecar.yaml",
        Role::Outbound,
        Some("sms-checker"),
    ),
    (
        "sms-checker-inbound.yaml",
        "sms-checker-sidecar.yaml",
        Role::Inbound,
        Some("sms-checker"),
    ),
    (
        "sms-checker-shadow.yaml",
        "sms-checker-shadow.yaml",
        Role::Shadow,
        Some("sms-checker"),
    ),
    (
        "sentiment-outbound.yaml",
        "sentiment-sidecar.yaml",
        Role::Outbound,
        Some("sentiment"),
    ),
    (
        "sentiment-inbound.yaml",
        "sentiment-sidecar.yaml",
        Role::Inbound,
        Some("sentiment"),
    ),
    (
        "sentiment-shadow.yaml",
        "sentiment-shadow.yaml",
        Role::Shadow,
        Some("sentiment"),
    ),
];

fn folder() -> PathBuf {
    harness::build::workspace().join("wasm-plugins")
}

fn yaml(name: &str) -> Value {
    lanekeeper_cli::read_document(&folder().join(name)).expect("YAML")
}

#[test]
fn a_wasm_plugin_is_what_its_policy_makes_of_it() {
    for (name, policy, role, namespace) in PLUGINS {
        let committed = std::fs::read_to_string(folder().join(name)).expect(name);
        let url = yaml(name)["spec"]["url"]
            .as_str()
            .expect("a URL")
            .to_owned();
        let policy = lanekeeper_cli::find_one(&folder().join("policies").join(policy))
            .expect("a policy file");
        let (roles, _) = Role::of_policy(&policy.document);
        assert!(roles.contains(&role), "{name}");
        let mut plugin = WasmPlugin::new(role, Image::parse(&url, false).expect("an image"));
        plugin.namespace = namespace.map(str::to_owned);
        let variables = policy.needs().expect("a policy without faults");
        assert_eq!(
            committed,
            plugin.manifest(&policy, &variables),
            "{name}: print it anew, wasm-plugins/README.md says how"
        );
        // Said once more without the code that prints it.
        assert_eq!(
            yaml(name)["spec"]["pluginConfig"],
            policy.document,
            "{name}"
        );
    }
}

#[test]
fn every_manifest_is_checked_and_applied() {
    let files = std::fs::read_dir(folder()).expect("the folder");
    let mut files: Vec<String> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
        .collect();
    files.sort();
    let mut checked = PLUGINS.map(|(name, ..)| name.to_owned());
    checked.sort();
    assert_eq!(files, checked);
    let applied = yaml("kustomization.yaml");
    let mut applied: Vec<&str> = applied["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    applied.sort_unstable();
    assert_eq!(files, applied);
}
