//! `lanekeeper lint` says what a policy holds, or everything that is wrong with it.

use serde_json::{Value, json};

mod run;
use run::{files, lanekeeper, policies};

const SHOP: &str = "\
rollouts:
  - name: shop
    hosts: [shop.example, '*.shop.example']
    versions:
      - { name: stable, weight: 89.75, baseline: true }
      - { name: canary, weight: 10.25 }
      - { name: old, state: draining }
";

const MANIFEST: &str = "\
apiVersion: v1
kind: Service
metadata: { name: shop }
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: { name: gateway }
spec:
  url: oci://registry.example/lanekeeper
  vmConfig: { env: [{ name: OVERRIDE_SECRET, valueFrom: HOST }] }
  pluginConfig:
    rollouts:
      - name: shop
        hosts: [shop.example]
        versions: [{ name: stable, weight: 100, baseline: true }]
        override:
          header: x-experiment
          secret: { header: x-secret, env: OVERRIDE_SECRET }
";

#[test]
fn the_policies_of_the_repository_are_good() {
    let ran = lanekeeper(
        &policies(),
        &[
            "lint",
            "gateway.yaml",
            "sms-checker-sidecar.yaml",
            "sms-checker-shadow.yaml",
        ],
        "",
    );
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with("gateway.yaml: ok: hash "),
        "{}",
        ran.out
    );
    assert!(
        lines[0].contains("stable 90% (baseline), canary 10%"),
        "{}",
        ran.out
    );
    assert!(
        lines[0].ends_with("; quota per-user: 120 a minute by user"),
        "{}",
        ran.out
    );
    assert!(
        lines[1].ends_with("; sidecar with versions stable, canary"),
        "{}",
        ran.out
    );
}

#[test]
fn a_good_policy_is_one_line() {
    let directory = files(&[("shop.yaml", SHOP)]);
    let ran = lanekeeper(directory.path(), &["lint", "shop.yaml"], "");
    let (head, rest) = ran.out.split_once("; ").unwrap();
    let hash = head.strip_prefix("shop.yaml: ok: hash ").unwrap();
    assert!(hash.parse::<u32>().is_ok(), "{hash}");
    assert_eq!(
        rest,
        "rollout shop on shop.example, *.shop.example: \
         stable 89.75% (baseline), canary 10.25%, old 0% (draining)\n"
    );
}

#[test]
fn quotas_are_said_in_words() {
    let quotas = [
        (
            "key: [user, path], limit: 5, period: 1s",
            "5 a second by user and path",
        ),
        (
            "key: ['header:x-tenant'], limit: 9, period: 90s",
            "9 in 90s by header:x-tenant",
        ),
        (
            "key: [address], limit: 500, period: 120m, algorithm: bucket, burst: 5",
            "500 in 2h by address",
        ),
        (
            "key: [user], limit: 1, period: 1d, enforcement: observe",
            "1 a day by user (observe)",
        ),
    ];
    for (quota, words) in quotas {
        let policy = format!("quotas: [{{ name: a, {quota} }}]");
        let ran = lanekeeper(files(&[]).path(), &["lint", "-"], &policy);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        let (_, said) = ran.out.split_once("; ").unwrap();
        assert_eq!(said, format!("quota a: {words}\n"));
    }
}

#[test]
fn the_hash_is_of_the_document_and_not_of_its_spelling() {
    let hash = |text: &str| {
        let directory = files(&[("policy", text)]);
        let path = directory.path().join("policy");
        lanekeeper_cli::load(&path, &|_| None).unwrap().1.hash()
    };
    let shop = hash(SHOP);
    let json = lanekeeper(files(&[]).path(), &["lint", "--print", "json", "-"], SHOP).out;
    assert_eq!(shop, hash(&json));
    assert_eq!(
        shop,
        hash(&SHOP.replace(
            "{ name: canary, weight: 10.25 }",
            "{ weight: 10.250, name: canary }"
        ))
    );
    assert_ne!(shop, hash(&SHOP.replace("shop.example,", "shop2.example,")));
    // Envoy writes a number of a google.protobuf.Struct that is whole without a fraction.
    let ten = SHOP.replace("89.75", "90").replace("10.25", "10");
    assert_eq!(hash(&ten), hash(&ten.replace("90", "90.0")));
}

#[test]
fn all_faults_are_told_at_once() {
    let text = "\
rollouts:
  - name: shop
    hosts: [shop.example:80]
    versions: [{ name: stable, weight: 100, baseline: true }]
    colour: red
    epoch: -1
";
    let expected = [
        "rollouts[0].colour: \"red\": unknown field; allowed: name, hosts, ",
        "rollouts[0].hosts[0]: \"shop.example:80\": a host name in lower case without a port",
        "rollouts[0].epoch: -1: a whole number from 0 to 4294967295",
    ];
    let directory = files(&[("bad.yaml", text), ("shop.yaml", SHOP)]);
    let ran = lanekeeper(directory.path(), &["lint", "bad.yaml", "shop.yaml"], "");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out.starts_with("shop.yaml: ok: "),
        "the good one is told too"
    );
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{}", ran.err);
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("bad.yaml: {start}")), "{line}");
    }

    let ran = lanekeeper(directory.path(), &["lint", "-"], text);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.starts_with("<stdin>: rollouts[0].colour: "),
        "{}",
        ran.err
    );
    assert_eq!(ran.err.lines().count(), 3);
}

#[test]
fn off_needs_no_quotes() {
    let text = "\
rollouts:
  - name: shop
    hosts: [shop.example]
    versions:
      - { name: stable, weight: 100, baseline: true }
      - { name: canary, state: off }
";
    let ran = lanekeeper(files(&[]).path(), &["lint", "-"], text);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn what_is_no_policy_is_said_with_its_place() {
    let cases = [
        (
            "twice.yaml",
            "rollouts:\n  - name: a\n    name: b\n",
            "twice.yaml:3:5: not YAML: duplicate mapping key `name` is not allowed here",
        ),
        (
            "twice.json",
            "{\n\t\"sidecar\": {},\n\t\"sidecar\": {}\n}",
            "twice.json:3:2: not YAML: duplicate mapping key `sidecar` is not allowed here",
        ),
        (
            "open.yaml",
            "rollouts: [}\n",
            "open.yaml:1:11: not YAML: mismatched bracket '[' closed by '}'",
        ),
        (
            "tab.yaml",
            "rollouts:\n\t- a\n",
            "tab.yaml:2:2: not YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            "empty.yaml",
            "# nothing\n---\n",
            "empty.yaml: policy: empty: a policy or a WasmPlugin manifest",
        ),
        (
            "text.yaml",
            "hello\n",
            "text.yaml: policy: \"hello\": an object with the fields rollouts, quotas, sidecar",
        ),
        (
            "none.yaml",
            "rollouts: []\n",
            "none.yaml: policy: neither: rollouts or quotas, for a gateway; or sidecar, for the sidecar of a pod",
        ),
        (
            "service.yaml",
            "kind: Service\n",
            "service.yaml: kind: \"Service\": WasmPlugin, or a policy without kind",
        ),
        (
            "beta.yaml",
            "kind: WasmPlugin\napiVersion: extensions.istio.io/v1\n",
            "beta.yaml (WasmPlugin): apiVersion: \"extensions.istio.io/v1\": extensions.istio.io/v1alpha1",
        ),
        (
            "bare.yaml",
            "kind: WasmPlugin\napiVersion: extensions.istio.io/v1alpha1\n",
            "bare.yaml (WasmPlugin): spec.pluginConfig: missing: a policy",
        ),
    ];
    let directory = files(&cases.map(|(name, text, _)| (name, text)));
    for (name, _, message) in cases {
        let ran = lanekeeper(directory.path(), &["lint", name], "");
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{name}");
        assert_eq!(ran.err.trim_end(), message);
    }
    std::fs::write(directory.path().join("bytes.yaml"), b"a: b\nc: \xff\n").unwrap();
    let ran = lanekeeper(
        directory.path(),
        &["lint", "bytes.yaml", "absent.yaml", "."],
        "",
    );
    assert_eq!(ran.code, Some(1));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.err);
    assert_eq!(lines[0], "bytes.yaml:2: not text: a byte that is not UTF-8");
    assert!(
        lines[1].starts_with("absent.yaml: cannot be read: "),
        "{}",
        lines[1]
    );
    assert!(lines[2].starts_with(".: cannot be read: "), "{}", lines[2]);
}

#[test]
fn a_manifest_is_checked_where_its_policy_stands() {
    let directory = files(&[("plugin.yaml", MANIFEST)]);
    let ran = lanekeeper(directory.path(), &["lint", "plugin.yaml"], "");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.starts_with("plugin.yaml: ok: hash "), "{}", ran.out);

    let bad = MANIFEST.replace("weight: 100", "weight: 101");
    let ran = lanekeeper(directory.path(), &["lint", "-"], &bad);
    assert_eq!(
        ran.err,
        "<stdin>: spec.pluginConfig.rollouts[0].versions[0].weight: 101: \
         a percentage from 0 to 100 with at most two decimals\n"
    );

    let bad = MANIFEST.replace("name: OVERRIDE_SECRET", "name: OTHER");
    let ran = lanekeeper(directory.path(), &["lint", "-"], &bad);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.starts_with(
            "<stdin>: spec.pluginConfig.rollouts[0].override.secret.env: \"OVERRIDE_SECRET\": a variable"
        ),
        "{}",
        ran.err
    );
}

#[test]
fn several_plugins_in_a_file_are_told_apart() {
    let sidecar = "\
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: { name: sidecar }
spec: { pluginConfig: { sidecar: { serves: all } } }
";
    let ran = lanekeeper(
        files(&[]).path(),
        &["lint", "-"],
        &format!("{MANIFEST}{sidecar}"),
    );
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out.starts_with("<stdin> (WasmPlugin gateway): ok: "),
        "{}",
        ran.out
    );
    assert_eq!(
        ran.err,
        "<stdin> (WasmPlugin sidecar): spec.pluginConfig.sidecar.serves: \"all\": one of own, shadow\n"
    );
}

#[test]
fn a_secret_need_not_be_set_for_a_policy_by_itself() {
    let policy = format!(
        "{SHOP}    override: {{ header: x-e, secret: {{ header: x-s, env: UNSET_HERE }} }}\n"
    );
    let ran = lanekeeper(files(&[]).path(), &["lint", "-"], &policy);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn prints_json_on_one_line_for_each_policy() {
    let ran = lanekeeper(
        files(&[]).path(),
        &["lint", "--print", "json", "-"],
        MANIFEST,
    );
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.out.lines().count(), 1);
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        printed.pointer("/rollouts/0/versions/0/weight"),
        Some(&json!(100))
    );
    assert!(
        lanekeeper_policy::Policy::from_json(ran.out.as_bytes(), &|_| Some("s".to_owned())).is_ok()
    );

    let ran = lanekeeper(
        files(&[]).path(),
        &["lint", "--print", "json", "-"],
        "rollouts: {}",
    );
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
}

#[test]
fn usage_errors_end_with_2() {
    for args in [
        &["lint"][..],
        &["lint", "--print", "yaml", "x"],
        &["frobnicate"],
        &[],
    ] {
        let ran = lanekeeper(files(&[]).path(), args, "");
        assert_eq!(ran.code, Some(2), "{args:?}");
        assert!(
            ran.err.contains("Usage: ") || ran.err.contains("[possible values: json]"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn help_has_examples() {
    for command in ["lint", "schema", "assign", "verdict", "sample-size"] {
        let ran = lanekeeper(files(&[]).path(), &[command, "--help"], "");
        assert_eq!(ran.code, Some(0));
        assert!(
            ran.out.contains(&format!("lanekeeper {command}")),
            "{}",
            ran.out
        );
        assert!(ran.out.contains("Example"), "{}", ran.out);
    }
}
