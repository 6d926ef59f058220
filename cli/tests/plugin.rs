//! `lanekeeper plugin` prints the WasmPlugin of a policy, or says why it does not.

use lanekeeper_cli::{Image, WasmPlugin};
use serde_json::{Value, json};

mod run;
use run::{Ran, files, lanekeeper};

const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const GATEWAY: &str = "\
# Who gets what.
rollouts:
  - name: shop            # salts the hash
    hosts: [shop.example]
    versions: [{ name: stable, weight: 100, baseline: true }]

    override:
      header: x-experiment
      secret: { header: x-secret, env: OVERRIDE_SECRET }
";
const SIDECAR: &str = "sidecar: { serves: own, stamp: [orders.*] }\n";
const SHADOW: &str = "sidecar: { serves: shadow }\n";

fn plugin(text: &str, args: &[&str]) -> Ran {
    let directory = files(&[("policy.yaml", text)]);
    let image = format!("registry.example/lanekeeper@{DIGEST}");
    let mut all = vec!["plugin", "--policy", "policy.yaml"];
    all.extend(args);
    if !args.contains(&"--image") {
        all.extend(["--image", &image]);
    }
    lanekeeper(directory.path(), &all, "")
}

/// The manifest, once `lint` finds it good.
fn manifest(ran: &Ran) -> Value {
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let directory = files(&[("manifest.yaml", ran.out.as_str())]);
    let lint = lanekeeper(directory.path(), &["lint", "manifest.yaml"], "");
    assert_eq!(lint.code, Some(0), "{}{}", lint.err, ran.out);
    lanekeeper_cli::read_document(&directory.path().join("manifest.yaml")).unwrap()
}

#[test]
fn the_gateway_gets_its_policy_as_it_is_written() {
    let ran = plugin(GATEWAY, &[]);
    assert!(ran.out.contains("\n    # Who gets what.\n"), "{}", ran.out);
    assert!(ran.out.contains("name: shop            # salts the hash"));
    assert_eq!(
        manifest(&ran),
        json!({
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": { "name": "lanekeeper", "namespace": "istio-system" },
            "spec": {
                "selector": { "matchLabels": { "istio": "ingressgateway" } },
                "url": format!("oci://registry.example/lanekeeper@{DIGEST}"),
                "phase": "AUTHZ",
                "priority": 10,
                "failStrategy": "FAIL_OPEN",
                "vmConfig": { "env": [{ "name": "OVERRIDE_SECRET", "valueFrom": "HOST" }] },
                "pluginConfig": {
                    "rollouts": [{
                        "name": "shop",
                        "hosts": ["shop.example"],
                        "versions": [{ "name": "stable", "weight": 100, "baseline": true }],
                        "override": {
                            "header": "x-experiment",
                            "secret": { "header": "x-secret", "env": "OVERRIDE_SECRET" },
                        },
                    }],
                },
            },
        })
    );
}

#[test]
fn sidecars_get_one_for_each_direction() {
    for (role, mode) in [("outbound", "CLIENT"), ("inbound", "SERVER")] {
        let manifest = manifest(&plugin(SIDECAR, &["--role", role]));
        let name = format!("lanekeeper-{role}");
        assert_eq!(manifest["metadata"], json!({ "name": name }));
        let spec = &manifest["spec"];
        assert_eq!(spec["match"], json!([{ "mode": mode }]));
        assert_eq!(spec["selector"]["matchLabels"], json!({ "serves": "own" }));
        assert_eq!(spec["failStrategy"], "FAIL_OPEN");
    }
}

#[test]
fn a_shadow_without_its_plugin_calls_nobody() {
    let manifest = manifest(&plugin(SHADOW, &[]));
    let spec = &manifest["spec"];
    assert_eq!(spec["failStrategy"], "FAIL_CLOSE");
    assert_eq!(
        spec["selector"]["matchLabels"],
        json!({ "serves": "shadow" })
    );
}

#[test]
fn where_it_goes_can_be_said() {
    let args = [
        "--name",
        "on",
        "--namespace",
        "shop",
        "--selector",
        "app=shop",
        "--selector",
        "example.com/tier=1",
    ];
    let manifest = manifest(&plugin(GATEWAY, &args));
    assert_eq!(
        manifest["metadata"],
        json!({ "name": "on", "namespace": "shop" })
    );
    assert_eq!(
        manifest["spec"]["selector"]["matchLabels"],
        json!({ "app": "shop", "example.com/tier": "1" })
    );
}

#[test]
fn a_registry_may_ask_for_credentials() {
    let manifest = manifest(&plugin(GATEWAY, &["--pull-secret", "registry"]));
    assert_eq!(manifest["spec"]["imagePullSecret"], "registry");
}

#[test]
fn a_manifest_that_somebody_changed_gets_another_policy_and_image() {
    let files = files(&[("shadow.yaml", SHADOW), ("gateway.yaml", GATEWAY)]);
    let find = |name: &str| lanekeeper_cli::find_one(&files.path().join(name)).unwrap();
    let image = Image::parse(&format!("r.test/other@{DIGEST}"), false).unwrap();
    let printed = plugin(SIDECAR, &["--role", "outbound"]).out;
    let changed = printed.replace("FAIL_OPEN", "FAIL_CLOSE");
    let renewed = WasmPlugin::renew(&changed, &image, &find("shadow.yaml"), &[]).unwrap();
    let of_registry = format!("oci://registry.example/lanekeeper@{DIGEST}");
    let expected = changed
        .replace(&of_registry, &image.to_string())
        .replace(SIDECAR, SHADOW);
    assert_eq!(renewed, expected);

    let gateway = find("gateway.yaml");
    let variables = gateway.needs().unwrap();
    let renew = |printed: &str| WasmPlugin::renew(printed, &image, &gateway, &variables);
    let why = renew(&changed).unwrap_err();
    assert!(why.contains("lacks OVERRIDE_SECRET"), "{why}");
    assert!(renew(&plugin(GATEWAY, &[]).out).is_ok());
    assert!(renew("kind: WasmPlugin\n").is_err());
}

#[test]
fn other_ways_to_write_a_policy_mean_the_same() {
    let expected = &manifest(&plugin(SIDECAR, &["--role", "inbound"]))["spec"]["pluginConfig"];
    for text in [
        "---\nsidecar:\n  serves: own\n  stamp:\n  - orders.*\n...\n",
        r#"{"sidecar":{"serves":"own","stamp":["orders.*"]}}"#,
        "%YAML 1.2\n---\nsidecar: { serves: own, stamp: [orders.*] }\n",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nspec:\n  pluginConfig:\n    \
         sidecar: { serves: own, stamp: [orders.*] }\n",
    ] {
        let manifest = manifest(&plugin(text, &["--role", "inbound"]));
        assert_eq!(&manifest["spec"]["pluginConfig"], expected, "{text}");
    }
}

#[test]
fn an_image_is_named_by_its_digest() {
    for (image, why) in [
        ("registry.example/lanekeeper:1.0", "has no digest"),
        ("registry.example/lanekeeper", "has no digest"),
        ("registry.example/lanekeeper@sha256:00", "is no digest"),
        ("lanekeeper", "an image such as"),
        ("registry.example/a b", "an image such as"),
        ("https://registry.example/plugin.wasm", "an image such as"),
    ] {
        let ran = plugin(GATEWAY, &["--image", image]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{image}");
        assert!(ran.err.contains(why), "{image}: {}", ran.err);
        assert!(ran.err.contains("Usage: lanekeeper plugin"), "{}", ran.err);
    }
    let ran = plugin(GATEWAY, &["--image", "r.test:5000/lanekeeper:1.0"]);
    let better = "Name it as r.test:5000/lanekeeper@sha256:<";
    assert!(ran.err.contains(better), "{}", ran.err);
    let tagged = [
        "--allow-tag",
        "--image",
        "oci://localhost:5000/lanekeeper:1.0",
    ];
    let manifest = manifest(&plugin(GATEWAY, &tagged));
    assert_eq!(
        manifest["spec"]["url"],
        "oci://localhost:5000/lanekeeper:1.0"
    );
}

#[test]
fn a_policy_must_fit_its_role() {
    for (text, args, why) in [
        (GATEWAY, vec!["--role", "inbound"], "a policy for gateway"),
        (
            SIDECAR,
            vec!["--role", "gateway"],
            "a policy for outbound or inbound",
        ),
        (SIDECAR, vec![], "say --role outbound or --role inbound"),
        (SHADOW, vec!["--role", "outbound"], "a policy for shadow"),
        (
            "sidecar: { serves: own }",
            vec!["--role", "outbound"],
            "it stamps nothing",
        ),
    ] {
        let ran = plugin(text, &args);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (Some(2), ""),
            "{text} {args:?}"
        );
        assert!(ran.err.contains(why), "{}", ran.err);
    }
}

#[test]
fn a_faulty_policy_is_refused_with_all_its_faults() {
    let ran = plugin("rollouts: []\nquotas: [{ name: x }]\nwhat: 1\n", &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let faults = ran.err.lines().count();
    assert!(faults >= 4, "{}", ran.err);
    assert!(
        ran.err
            .lines()
            .all(|line| line.starts_with("policy.yaml: "))
    );
}
