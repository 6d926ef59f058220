//! What `kubectl apply -k monitoring` applies, by the schemas of Prometheus' operator; and the
//! dashboards, by Grafana's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{build, monitoring, process};
use serde_json::{Value, json};

/// Whose CRDs, and what puts a kustomization together.
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
const KUSTOMIZE: &str = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1";
/// The types of Grafana 11.6, by Grafana.
const GRAFANA: &str = "grafana-foundation-sdk==1769699379!11.6.0";

fn tools() -> PathBuf {
    build::target_dir().join("tools")
}

/// The objects of the kustomization.
fn applied() -> Vec<Value> {
    let mut install = Command::new("go");
    install.args(["install", KUSTOMIZE]);
    install.env("GOBIN", tools()).current_dir(tools());
    process::run(&mut install, "Building kustomize").expect("kustomize");
    let mut kustomize = Command::new(tools().join("kustomize"));
    kustomize.arg("build").arg(monitoring::file(""));
    let text = process::run(&mut kustomize, "kustomize build").expect("a kustomization");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("applied.yaml");
    fs::write(&file, text).expect("a file");
    lanekeeper_cli::read_documents(&file).expect("YAML")
}

/// The operator's schema of a kind, by the plural of its name. The server of a cluster prunes unknown
/// fields, so that what is misspelt does nothing: here it is a fault.
fn schema(plural: &str) -> jsonschema::Validator {
    let mut download = Command::new("go");
    download.args(["mod", "download", "-json", OPERATOR]);
    download.current_dir(tools());
    let module = process::run(&mut download, "Fetching the operator's CRDs").expect("a module");
    let module: Value = serde_json::from_str(&module).expect("JSON");
    let dir = Path::new(module["Dir"].as_str().expect("a directory"));
    let file = format!("example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml");
    let crd = lanekeeper_cli::read_document(&dir.join(file)).expect("a CRD");
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    refuse_unknown_fields(&mut schema);
    jsonschema::validator_for(&schema).expect("a schema")
}

fn refuse_unknown_fields(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let open = [
                "additionalProperties",
                "x-kubernetes-preserve-unknown-fields",
            ];
            let closed = fields.get("type") == Some(&json!("object"))
                && fields.contains_key("properties")
                && !open.iter().any(|open| fields.contains_key(*open));
            if closed {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(refuse_unknown_fields);
        }
        Value::Array(items) => items.iter_mut().for_each(refuse_unknown_fields),
        _ => {}
    }
}

fn faults(schema: &jsonschema::Validator, object: &Value) -> Vec<String> {
    let errors = schema.iter_errors(object);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_operator_takes_monitors_and_rules() {
    fs::create_dir_all(tools()).expect("a directory");
    let objects = applied();
    let of_kind = |kind: &str| {
        let objects = objects.iter().filter(|object| object["kind"] == kind);
        objects.collect::<Vec<_>>()
    };
    let kinds = [
        ("PodMonitor", "podmonitors", 2),
        ("ServiceMonitor", "servicemonitors", 1),
        ("PrometheusRule", "prometheusrules", 1),
    ];
    for (kind, plural, count) in kinds {
        let (schema, found) = (schema(plural), of_kind(kind));
        assert_eq!(found.len(), count, "{kind}");
        for object in found {
            assert_eq!(faults(&schema, object), [""; 0], "{kind}");
            // The schema finds what it is for.
            let mut broken = object.clone();
            broken["spec"]["unknown"] = json!(true);
            assert_eq!(faults(&schema, &broken).len(), 1, "{kind}");
        }
    }
    let [dashboards] = of_kind("ConfigMap")[..] else {
        panic!("one ConfigMap");
    };
    assert_eq!(dashboards["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(
        dashboards["data"].as_object().map(|data| data.len()),
        Some(3)
    );
    let [alertmanager] = of_kind("Secret")[..] else {
        panic!("one Secret");
    };
    assert!(alertmanager["data"]["alertmanager.yaml"].is_string());
    // One namespace, by which nothing of istio/ is touched.
    let elsewhere = |object: &&Value| object["metadata"]["namespace"] != "monitoring";
    assert_eq!(objects.iter().find(elsewhere), None);
    assert_eq!(objects.len(), 6);
}

/// Runs grafana_schema.py on dashboards; what it says.
fn unknown_to_grafana(dashboards: &[PathBuf]) -> String {
    let sdk = tools().join(GRAFANA);
    if !sdk.is_dir() {
        // On the same file system, so that the rename is atomic.
        fs::create_dir_all(tools()).expect("a directory");
        let temp = tempfile::tempdir_in(tools()).expect("a directory");
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        pip.args([
            "--root-user-action=ignore",
            "--no-deps",
            "--only-binary=:all:",
            GRAFANA,
        ]);
        pip.arg("--target").arg(temp.path().join("sdk"));
        process::run(&mut pip, "Fetching Grafana's types").expect("a package");
        fs::rename(temp.path().join("sdk"), &sdk).expect("a directory");
    }
    let mut check = Command::new("python3");
    check.arg(build::workspace().join("tests/grafana_schema.py"));
    check.args(dashboards).env("PYTHONPATH", sdk);
    process::run(&mut check, "Reading dashboards as Grafana does").expect("an answer")
}

#[test]
fn grafana_knows_every_field_of_the_dashboards() {
    let dashboards = monitoring::files("dashboards", "json").expect("dashboards");
    assert_eq!(unknown_to_grafana(&dashboards), "");
    // It finds what it is for.
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("broken.json");
    let text = fs::read_to_string(&dashboards[0]).expect("a dashboard");
    fs::write(&file, text.replace("\"unit\"", "\"untit\"")).expect("a file");
    assert!(unknown_to_grafana(&[file]).contains("/untit: unknown"));
}
