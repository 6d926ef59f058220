//! A policy is right, or every fault in it is named: where, what, and what is allowed.

mod support;

use lanekeeper_policy::Policy;
use serde_json::{Value, json};
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The faults of [`rollout`] with some fields changed.
fn with(changes: Value) -> Vec<String> {
    faults(json!({ "rollouts": [rollout_with(changes)] }))
}

/// The only fault of [`rollout`] with some fields changed.
fn one(changes: Value) -> String {
    let faults = with(changes);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.concat()
}

#[test]
fn all_faults_come_at_once_in_the_order_of_the_document() {
    let faults = faults(json!({
        "rollouts": [rollout_with(json!({
            "nmae": "x",
            "hosts": ["UPPER.example"],
            "versions": [
                { "name": "stable", "weight": 90, "baseline": true },
                { "name": "Canary", "weight": "ten" },
            ],
            "stickiness": "sometimes",
            "epoch": 1.5,
            "cookie": { "maxAge": "1h", "domain": "." },
            "exempt": ["healthz"],
        }))],
        "sidecar": { "serves": "everything", "stamp": "model" },
        "quota": [],
    }));
    // The weights cannot be added up, but there is a baseline, and names are used once.
    let paths: Vec<_> = faults
        .iter()
        .filter_map(|fault| fault.split(": ").next())
        .collect();
    assert_eq!(
        paths,
        [
            "quota",
            "rollouts[0].nmae",
            "rollouts[0].hosts[0]",
            "rollouts[0].versions[1].name",
            "rollouts[0].versions[1].weight",
            "rollouts[0].stickiness",
            "rollouts[0].epoch",
            "rollouts[0].cookie.maxAge",
            "rollouts[0].cookie.domain",
            "rollouts[0].exempt[0]",
            "sidecar.serves",
            "sidecar.stamp",
        ]
    );
}

#[test]
fn a_fault_says_where_what_and_what_is_allowed() {
    for (changes, fault) in [
        (
            json!({ "stickiness": "sometimes" }),
            r#"rollouts[0].stickiness: "sometimes": one of cookie, identity"#,
        ),
        (
            json!({ "epoch": -1 }),
            "rollouts[0].epoch: -1: a whole number from 0 to 4294967295",
        ),
        (
            json!({ "epoch": "1" }),
            r#"rollouts[0].epoch: "1": a whole number from 0 to 4294967295"#,
        ),
        (
            json!({ "cookie": { "maxAge": "1d" } }),
            r#"rollouts[0].cookie.maxAge: "1d": a duration from 2d to 400d: a whole number and s, m, h or d"#,
        ),
        (
            json!({ "cookie": 3 }),
            "rollouts[0].cookie: 3: an object with the fields name, maxAge, domain",
        ),
        (
            json!({ "override": {} }),
            "rollouts[0].override.header: missing: this field is required",
        ),
        (
            json!({ "override": { "header": "X-Experiment" } }),
            r#"rollouts[0].override.header: "X-Experiment": a header name in lower case"#,
        ),
        (
            json!({ "override": { "header": "x-app-version" } }),
            r#"rollouts[0].override.header: "x-app-version": a header name in lower case"#,
        ),
        (
            json!({ "identity": [{}] }),
            "rollouts[0].identity[0]: neither: either a header or a cookie",
        ),
        (
            json!({ "identity": [{ "header": "a", "cookie": "b" }] }),
            "rollouts[0].identity[0]: both: either a header or a cookie",
        ),
        (
            json!({ "identity": [{ "header": "a", "mint": true }] }),
            "rollouts[0].identity[0].mint: true: true only for a cookie that is not trusted",
        ),
        (
            json!({ "identity": [{ "cookie": "a", "mint": true }, { "cookie": "b", "mint": true }] }),
            "rollouts[0].identity[1].mint: true: true only once",
        ),
        (
            json!({ "identity": [{ "cookie": "app-version" }] }),
            r#"rollouts[0].identity[0].cookie: "app-version": another name than the version cookie's"#,
        ),
        (
            json!({ "identity": [] }),
            "rollouts[0].identity: []: a list of at least one",
        ),
        (
            json!({ "hosts": [] }),
            "rollouts[0].hosts: []: a list of at least one",
        ),
        (
            json!({ "hosts": ["a:80"] }),
            r#"rollouts[0].hosts[0]: "a:80": a host name in lower case without a port, *.suffix, name.* or *"#,
        ),
        (
            json!({ "pathPrefixes": ["/a/../b"] }),
            r#"rollouts[0].pathPrefixes[0]: "/a/../b": a path that begins with /, in normal form"#,
        ),
        (
            json!({ "exempt": ["/%61"] }),
            r#"rollouts[0].exempt[0]: "/%61": a path that begins with /, in normal form"#,
        ),
        (
            json!({ "cookie": { "domain": "other.local" } }),
            r#"rollouts[0].cookie.domain: "other.local": a domain that every host of the rollout belongs to (browsers drop the cookie on sms-checker.local)"#,
        ),
        (
            json!({ "hosts": ["name.*"] }),
            r#"rollouts[0].hosts[0]: "name.*": a host name, *.suffix or * (name.* is for sidecars)"#,
        ),
        (
            json!({ "hosts": ["a.b", "a.b"] }),
            "rollouts[0].hosts: a.b /: hosts and paths that are listed once",
        ),
        (
            json!({ "exempt": ["/"] }),
            r#"rollouts[0].exempt[0]: "/": a path below /"#,
        ),
        (
            json!({ "stickiness": "identity", "onMissing": "baseline" }),
            r#"rollouts[0].onMissing: "baseline": split (stickiness identity assigns by slot alone)"#,
        ),
        (
            json!({ "cookie": { "name": "__Host-v" } }),
            r#"rollouts[0].cookie.name: "__Host-v": a name without the prefixes __Host- and __Secure-"#,
        ),
        (
            json!({ "identity": [{ "cookie": "__Secure-v" }] }),
            r#"rollouts[0].identity[0].cookie: "__Secure-v": a name without the prefixes"#,
        ),
        (
            json!({ "override": { "header": "x-user" } }),
            r#"rollouts[0].override.header: "x-user": another header than that of identity[0].header"#,
        ),
        (
            json!({ "versions": null }),
            "rollouts[0].versions: null: a list",
        ),
    ] {
        let found = one(changes);
        assert!(found.starts_with(fault), "{found}\n{fault}");
    }
}

#[test]
fn a_fault_hides_no_other() {
    let found = with(json!({
        "versionss": [],
        "epoch": -1,
        "versions": [
            { "name": "Stable", "weight": 90, "colour": "red" },
            { "name": "canary", "weight": 20, "state": "drainin" },
            { "name": "canary", "weight": 0 },
        ],
    }));
    let paths: Vec<_> = found
        .iter()
        .filter_map(|fault| fault.split(": ").next())
        .collect();
    assert_eq!(
        paths,
        [
            "rollouts[0].versionss",
            "rollouts[0].versions[0].colour",
            "rollouts[0].versions[0].name",
            "rollouts[0].versions[1].state",
            "rollouts[0].epoch",
            "rollouts[0].versions[2].name",
            "rollouts[0].versions",
            "rollouts[0].versions",
        ],
        "{found:#?}"
    );
    assert!(found[6].contains("exactly one version with baseline: true"));
    assert!(found[7].contains("weights that add up to 110.00"));
}

#[test]
fn the_api_of_a_page_with_stickiness_identity_may_fall_back_to_the_baseline() {
    let changes = json!({
        "stickiness": "identity", "clientHeader": "accept", "onMissing": "baseline",
    });
    assert_eq!(with(changes), [""; 0]);
}

#[test]
fn a_long_value_is_cut() {
    let fault = one(json!({ "stickiness": "x".repeat(10_000) }));
    assert!(fault.len() < 150, "{fault}");
    // Also between the bytes of a character.
    let fault = one(json!({ "stickiness": "é".repeat(10_000) }));
    assert!(fault.contains("é…"), "{fault}");
}

#[test]
fn versions_must_add_up() {
    let of = |versions: Value| one(json!({ "versions": versions }));
    let v = |name: &str, weight: f64| json!({ "name": name, "weight": weight });
    let base = json!({ "name": "b", "weight": 90, "baseline": true });
    for (versions, fault) in [
        (
            json!([base, v("c", 9.0)]),
            "rollouts[0].versions: weights that add up to 99.00: weights that add up to 100",
        ),
        (
            json!([base, v("c", 10.5)]),
            "rollouts[0].versions: weights that add up to 100.50: ",
        ),
        (
            json!([v("a", 50.0), v("c", 50.0)]),
            "rollouts[0].versions: none: exactly one version with baseline: true",
        ),
        (
            json!([{ "name": "a", "baseline": true, "weight": 10 }, base]),
            "rollouts[0].versions: several: exactly one version with baseline: true",
        ),
        (
            json!([base, v("b", 10.0)]),
            r#"rollouts[0].versions[1].name: "b": a name used only once"#,
        ),
        (
            json!([base, v("c", 10.001)]),
            "rollouts[0].versions[1].weight: 10.001: a percentage from 0 to 100 with at most two decimals",
        ),
        (
            json!([base, v("c", -10.0)]),
            "rollouts[0].versions[1].weight: -10.0: a percentage",
        ),
        (
            json!([base, { "name": "c", "slots": ["9000-9999"] }]),
            "rollouts[0].versions: weight and slots: either weights or slots, the same for all versions",
        ),
        (
            json!([{ "name": "b", "weight": 90, "baseline": true, "state": "off" }, v("c", 10.0)]),
            "rollouts[0].versions[0].state: a baseline that is not live: live (the baseline always is)",
        ),
        (
            json!([{ "name": "b", "baseline": true }, { "name": "c", "slots": ["1-0"] }]),
            r#"rollouts[0].versions[1].slots[0]: "1-0": slots as in 0-8999 or 42"#,
        ),
        (
            json!([{ "name": "b", "baseline": true }, { "name": "c", "slots": ["0-10000"] }]),
            r#"rollouts[0].versions[1].slots[0]: "0-10000": slots as in"#,
        ),
        (
            json!([{ "name": "b", "baseline": true, "slots": ["0-9"] }, { "name": "c", "slots": ["5-12"] }]),
            r#"rollouts[0].versions[1].slots[0]: "5-12": slots that nobody else owns (0-9 belongs to versions[0])"#,
        ),
        (
            json!([]),
            "rollouts[0].versions: []: a list of at least one",
        ),
    ] {
        let found = of(versions);
        assert!(found.starts_with(fault), "{found}\n{fault}");
    }
}

#[test]
fn a_version_that_is_not_live_needs_no_weight_and_may_keep_it() {
    for (stable, canary) in [
        (
            json!({ "slots": ["0-9999"] }),
            json!({ "slots": ["9000-9999", 42], "state": "off" }),
        ),
        (
            json!({ "weight": 90 }),
            json!({ "weight": 10, "state": "off" }),
        ),
        (
            json!({ "weight": 100 }),
            json!({ "weight": 10, "state": "off" }),
        ),
        (
            json!({ "weight": 100 }),
            json!({ "weight": 0, "state": "draining" }),
        ),
        (json!({ "weight": 100 }), json!({ "state": "draining" })),
    ] {
        assert_eq!(
            with(json!({ "versions": versions(stable, canary) })),
            [""; 0]
        );
    }
}

#[test]
fn off_may_be_the_false_that_yaml_makes_of_it() {
    let versions = versions(
        json!({ "weight": 90 }),
        json!({ "weight": 10, "state": false }),
    );
    let policy = policy(json!({ "versions": versions }));
    assert_eq!(policy.rollouts()[0].versions()[1].state(), "off");
    assert!(one(json!({ "stickiness": false })).ends_with(": false: one of cookie, identity"));
}

#[test]
fn draining_needs_stickiness_cookie() {
    let fault = one(json!({
        "stickiness": "identity",
        "versions": versions(json!({ "weight": 100 }), json!({ "state": "draining" })),
    }));
    assert!(fault.starts_with(r#"rollouts[0].versions[1].state: "draining": live or off"#));
}

#[test]
fn rollouts_of_one_name_must_not_put_a_user_into_two_versions() {
    let other = rollout_with(json!({
        "hosts": ["api.sms-checker.local"],
        "versions": versions(json!({ "weight": 80 }), json!({ "weight": 20 })),
        "epoch": 1,
        "cookie": { "name": "other" },
    }));
    let found = faults(json!({ "rollouts": [rollout(), other] }));
    let expected = ["versions", "epoch", "cookie.name"].map(|field| {
        format!(
            "rollouts[1].{field}: different: the same as rollouts[0].{field} (both are sms-checker)"
        )
    });
    assert_eq!(found, expected);
}

#[test]
fn rollouts_of_one_name_that_both_split_must_know_a_user_by_the_same() {
    let by_cookie = |more: Value| {
        let mut other = rollout_with(json!({
            "hosts": ["api.sms-checker.local"],
            "identity": [{ "cookie": "visitor" }],
        }));
        other
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        faults(json!({ "rollouts": [rollout(), other] })).concat()
    };
    assert!(by_cookie(json!({})).starts_with("rollouts[1].identity: different: "));
    assert_eq!(by_cookie(json!({ "clientHeader": "accept" })), "");
    assert_eq!(by_cookie(json!({ "onMissing": "baseline" })), "");
}

#[test]
fn two_rollouts_cannot_have_the_same_host_and_path() {
    let other = rollout_with(json!({ "name": "other" }));
    let found = faults(json!({ "rollouts": [rollout(), other] }));
    let expected =
        "rollouts[1].hosts: sms-checker.local /: a host and path that rollouts[0] does not have";
    assert_eq!(found, [expected]);
}

#[test]
fn a_policy_that_says_nothing_is_a_fault() {
    let either = "rollouts or quotas, for a gateway; or sidecar, for the sidecar of a pod";
    assert_eq!(faults(json!({})), [format!("policy: neither: {either}")]);
    let both = json!({ "rollouts": [rollout()], "sidecar": { "serves": "own" } });
    assert_eq!(faults(both), [format!("policy: both: {either}")]);
    assert!(faults(json!([]))[0].starts_with("policy: []: an object with the fields rollouts"));
    assert!(faults(json!(null))[0].starts_with("policy: null: an object"));
}

#[test]
fn what_is_not_json_is_a_fault_and_no_more() {
    for text in [&b""[..], b"{", b"rollouts:\n", b"\xff", &[b'['; 100_000]] {
        let faults = Policy::from_json(text, &|_| None)
            .expect_err("no JSON")
            .to_string();
        assert!(faults.starts_with("policy: "), "{faults}");
        assert!(faults.ends_with(": a policy as JSON"), "{faults}");
    }
}

#[test]
fn numbers_may_be_doubles_as_in_a_protobuf_struct() {
    let changes = json!({
        "epoch": 3.0,
        "versions": versions(json!({ "weight": 90.0 }), json!({ "weight": 10.0 })),
    });
    assert_eq!(with(changes), [""; 0]);
}

#[test]
fn equal_documents_have_equal_hashes_whatever_the_order_of_their_keys() {
    let hash = |text: &str| {
        Policy::from_json(text.as_bytes(), &|_| None)
            .expect("a policy")
            .hash()
    };
    let one = hash(r#"{ "sidecar": { "serves": "own", "stamp": ["a"] } }"#);
    assert_eq!(one, hash(r#"{"sidecar":{"stamp":["a"],"serves":"own"}}"#));
    assert_ne!(one, hash(r#"{"sidecar":{"stamp":["b"],"serves":"own"}}"#));
}

#[test]
fn the_schema_names_every_field_and_says_what_it_is_for() {
    fn check(schema: &Value, path: &str) {
        let text = schema["description"].as_str().or(schema["title"].as_str());
        assert!(
            text.is_some_and(|text| !text.is_empty()),
            "{path} is not described"
        );
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            check(field, &format!("{path}.{name}"));
        }
        if schema["items"]["properties"].is_object() {
            check(&schema["items"], &format!("{path}[]"));
        }
    }
    let schema = Policy::schema();
    check(&schema, "");
    let rollout = &schema["properties"]["rollouts"]["items"];
    assert_eq!(rollout["required"], json!(["name", "hosts", "versions"]));
    assert_eq!(rollout["additionalProperties"], json!(false));
    assert!(rollout["properties"]["onMissing"]["enum"] == json!(["split", "baseline"]));
}

#[test]
fn a_quota_says_every_fault() {
    let faults = faults(json!({ "quotas": [
        { "name": "per-user", "key": ["user"], "limit": 100_000, "period": "1m", "burst": 5 },
        { "name": "per-user", "key": [], "limit": 10, "period": "1m", "pathTemplates": ["/a/*"] },
        {
            "name": "B", "key": ["usr", "header:X-Key", "header:cookie"], "limit": 0, "period": "1w",
            "algorithm": "buckets", "capacity": 0, "maxMemory": "1Gi", "enforcement": "maybe",
            "match": { "hosts": ["a.*"], "pathPrefixes": ["a"], "methods": ["get"] },
        },
        { "name": "c", "key": ["path"], "limit": 100, "period": "1m", "algorithm": "bucket" },
        {
            "name": "d", "key": ["path"], "limit": 100, "period": "1m", "algorithm": "bucket",
            "burst": 101, "capacity": 1_000_000,
        },
    ]}));
    assert_eq!(
        faults,
        [
            r#"quotas[2].name: "B": 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit (a DNS-1123 label)"#,
            r#"quotas[2].key[0]: "usr": user, path, address or header:<name in lower case>"#,
            r#"quotas[2].key[1]: "header:X-Key": user, path, address or header:<name in lower case>"#,
            r#"quotas[2].key[2]: "header:cookie": user, path, address or header:<name in lower case>"#,
            r#"quotas[2].period: "1w": a duration from 1s to 1d: a whole number and s, m, h or d"#,
            r#"quotas[2].match.pathPrefixes[0]: "a": a path that begins with /, in normal form: no query, fragment, empty or dot segments, unreserved characters not percent-encoded, percent-encodings in upper case"#,
            r#"quotas[2].match.methods[0]: "get": a method in upper case, as in POST"#,
            r#"quotas[2].algorithm: "buckets": one of window, bucket"#,
            r#"quotas[2].maxMemory: "1Gi": an amount from 64Ki to 256Mi: a whole number and Ki or Mi"#,
            r#"quotas[2].enforcement: "maybe": one of enforce, observe, off"#,
            r#"quotas[1].name: "per-user": a name used only once"#,
            "quotas[0].limit: 100000: a whole number from 1 to 128 (more with algorithm: bucket)",
            "quotas[0].burst: 5: nothing without algorithm: bucket",
            "quotas[1].key: []: at least one of user, path, address, header:<name>",
            r#"quotas[2].match.hosts[0]: "a.*": a host name, *.suffix or * (name.* is for sidecars)"#,
            "quotas[2].capacity: 0: a whole number from 1 to 493447 (maxMemory is 16777216 bytes)",
            "quotas[3].burst: missing: a whole number from 1 to the limit, 100",
            "quotas[4].burst: 101: a whole number from 1 to the limit, 100",
            "quotas[4].capacity: 1000000: a whole number from 1 to 493447 (maxMemory is 16777216 bytes)",
        ]
    );
}

#[test]
fn quotas_need_no_rollout_and_numbers_may_be_doubles() {
    let quota =
        json!({ "name": "a", "key": ["path"], "limit": 10.0, "period": "1m", "capacity": 5.0 });
    assert!(faults(json!({ "quotas": [quota.clone()] })).is_empty());
    let sidecar = json!({ "sidecar": { "serves": "own" }, "quotas": [quota] });
    assert_eq!(
        faults(sidecar),
        ["policy: both: rollouts or quotas, for a gateway; or sidecar, for the sidecar of a pod"]
    );
}
