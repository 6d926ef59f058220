//! The library reads what the command reads.

use std::path::Path;

use serde_json::json;

mod run;
use lanekeeper_cli::{LoadError, load, read_document};
use run::{files, policies};

#[test]
fn reads_one_document() {
    let directory = files(&[
        (
            "a.yaml",
            "# why\nname: a\nlist: [1, 2.50, 3.0, '4', null]\n",
        ),
        (
            "a.json",
            "{\n\t\"name\": \"a\", \"list\": [1, 2.5, 3, \"4\", null]\n}\n",
        ),
        ("two.yaml", "a: 1\n---\nb: 2\n"),
        ("none.yaml", "# nothing\n"),
    ]);
    let read = |name: &str| read_document(&directory.path().join(name));
    let expected = json!({ "name": "a", "list": [1, 2.5, 3, "4", null] });
    assert_eq!(read("a.yaml").unwrap(), expected);
    assert_eq!(read("a.json").unwrap(), expected);
    for (name, count) in [("two.yaml", 2), ("none.yaml", 0)] {
        let message = read(name).unwrap_err().to_string();
        assert!(
            message.ends_with(&format!(
                "{name}: {count} documents: a file with one document"
            )),
            "{message}"
        );
    }
}

#[test]
fn loads_a_policy_with_its_document() {
    let path = policies().join("gateway.yaml");
    let (document, policy) = load(&path, &|_| None).unwrap();
    assert_eq!(document, read_document(&path).unwrap());
    assert_eq!(policy.rollouts()[0].name(), "sms-checker");
    assert_eq!(
        policy.rollouts()[0].identity().next(),
        Some(("header", "x-user"))
    );
    assert_eq!(policy.rollouts()[0].versions()[1].state(), "live");
}

#[test]
fn a_faulty_policy_comes_back_with_all_faults() {
    let directory = files(&[(
        "bad.yaml",
        "colour: red\nrollouts: 1\nsidecar: { serves: all }\n",
    )]);
    let Err(LoadError::Faulty { faults, .. }) = load(&directory.path().join("bad.yaml"), &|_| None)
    else {
        panic!("it loads");
    };
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["colour", "rollouts", "sidecar.serves"]);
    assert!(load(Path::new("absent.yaml"), &|_| None).is_err());
}
