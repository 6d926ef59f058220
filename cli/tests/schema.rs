//! The JSON Schema says what the core says, as far as a schema can.

use lanekeeper_policy::Policy;
use serde_json::{Value, json};

mod run;
use run::{files, lanekeeper, policies};

fn schema() -> jsonschema::Validator {
    let ran = lanekeeper(files(&[]).path(), &["schema"], "");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn accepts_the_policies_of_the_repository() {
    let schema = schema();
    let mut seen = 0;
    for entry in std::fs::read_dir(policies()).unwrap() {
        let path = entry.unwrap().path();
        let (document, _) = lanekeeper_cli::load(&path, &|_| Some("set".to_owned())).unwrap();
        let faults: Vec<String> = schema
            .iter_errors(&document)
            .map(|e| e.to_string())
            .collect();
        assert!(faults.is_empty(), "{}: {faults:?}", path.display());
        seen += 1;
    }
    assert!(seen > 0);
}

fn full() -> Value {
    json!({
        "rollouts": [{
            "name": "shop",
            "hosts": ["shop.example", "*.shop.example"],
            "pathPrefixes": ["/api"],
            "versions": [
                { "name": "stable", "weight": 92.93, "baseline": true },
                { "name": "canary", "weight": 7.07, "state": "live" },
                { "name": "old", "state": "draining" },
            ],
            "identity": [{ "header": "x-user", "trusted": true }, { "cookie": "visitor", "mint": true }],
            "stickiness": "cookie",
            "epoch": 3,
            "cookie": { "name": "v", "maxAge": "12d", "domain": "shop.example" },
            "override": { "header": "x-e", "secret": { "header": "x-s", "env": "S" } },
            "clientHeader": "ignore",
            "onMissing": "split",
            "exempt": ["/health"],
            "cacheControl": "leave",
        }],
    })
}

fn sidecar() -> Value {
    json!({ "sidecar": { "serves": "own", "stamp": ["model.*"], "onMismatch": "observe", "versions": ["a"] } })
}

/// A policy with every field, of the kind that has what `pointer` points to.
fn policy_with(pointer: &str) -> Value {
    if pointer.starts_with("/sidecar") {
        sidecar()
    } else {
        full()
    }
}

fn core_accepts(document: &Value) -> bool {
    Policy::compile(document, &|_| Some("set".to_owned())).is_ok()
}

#[test]
fn rejects_what_the_core_rejects_in_form() {
    let schema = schema();
    for policy in [full(), sidecar()] {
        assert!(core_accepts(&policy) && schema.is_valid(&policy));
    }
    let changes = [
        ("/rollouts", json!({})),
        ("/rollouts/0/name", json!(1)),
        ("/rollouts/0/colour", json!("red")),
        ("/rollouts/0/hosts", json!("shop.example")),
        ("/rollouts/0/hosts/0", json!(null)),
        ("/rollouts/0/versions/0/weight", json!(101)),
        ("/rollouts/0/versions/0/weight", json!("92.93")),
        ("/rollouts/0/versions/0/weight", json!(92.931)),
        ("/rollouts/0/versions/0/baseline", json!("yes")),
        ("/rollouts/0/versions/1/state", json!(true)),
        ("/rollouts/0/versions/1/state", json!("dead")),
        ("/rollouts/0/versions/2/slots", json!(["a-b"])),
        ("/rollouts/0/identity/0/secure", json!(true)),
        ("/rollouts/0/stickiness", json!("glue")),
        ("/rollouts/0/epoch", json!(-1)),
        ("/rollouts/0/epoch", json!(1.5)),
        ("/rollouts/0/epoch", json!(4_294_967_296_u64)),
        ("/rollouts/0/cookie/maxAge", json!(86400)),
        ("/rollouts/0/cookie/maxAge", json!("12 days")),
        ("/rollouts/0/override/secret/value", json!("hunter2")),
        ("/rollouts/0/clientHeader", json!(true)),
        ("/sidecar/serves", json!("none")),
        ("/sidecar/stamp", json!([1])),
        ("/quota", json!([])),
    ];
    for (pointer, value) in changes {
        let mut document = policy_with(pointer);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Object(fields) => {
                fields.insert(key.to_owned(), value.clone());
            }
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
            _ => panic!("{pointer}"),
        }
        assert!(
            !core_accepts(&document),
            "the core takes {pointer}: {value}"
        );
        assert!(
            !schema.is_valid(&document),
            "the schema takes {pointer}: {value}"
        );
    }
}

#[test]
fn requires_what_the_core_requires() {
    let schema = schema();
    let mut required = 0;
    for parent in [
        "",
        "/rollouts/0",
        "/rollouts/0/versions/0",
        "/rollouts/0/identity/0",
        "/rollouts/0/cookie",
        "/rollouts/0/override",
        "/rollouts/0/override/secret",
        "/sidecar",
    ] {
        let keys: Vec<String> = policy_with(parent)
            .pointer(parent)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        for key in keys {
            let mut document = policy_with(parent);
            document
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(&key);
            let faults = Policy::compile(&document, &|_| Some("set".to_owned()))
                .err()
                .unwrap_or_default();
            // What depends on several fields (weights, the baseline) no schema of types can say.
            let missing = faults.iter().any(|fault| fault.value == "missing");
            assert_eq!(missing, !schema.is_valid(&document), "{parent}/{key}");
            required += usize::from(missing);
        }
    }
    assert_eq!(required, 8);
}

#[test]
fn takes_every_percentage_that_the_core_takes() {
    let schema = schema();
    for slots in 0..=10_000 {
        let mut document = full();
        let weight = f64::from(slots) / 100.0;
        *document
            .pointer_mut("/rollouts/0/versions/0/weight")
            .unwrap() = json!(weight);
        *document
            .pointer_mut("/rollouts/0/versions/1/weight")
            .unwrap() = json!(f64::from(10_000 - slots) / 100.0);
        assert!(core_accepts(&document), "{weight}");
        assert!(schema.is_valid(&document), "{weight}");
    }
}
