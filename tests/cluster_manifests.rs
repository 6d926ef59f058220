//! What stands in `istio/` and has its source elsewhere agrees with it.

use std::fs;
use std::path::Path;

use harness::build::workspace;
use serde_json::Value;

fn yaml(name: &str) -> Value {
    lanekeeper_cli::read_document(&workspace().join(name)).expect("YAML")
}

/// The labels that an Envoy without Istio makes of the filter's metric names.
fn labels() -> Vec<String> {
    let envoy = fs::read_to_string(workspace().join("envoy/gateway.yaml")).expect("a file");
    let names = envoy.lines().filter_map(|line| {
        let (name, regex) = line.split_once("tag_name: ")?.1.split_once(',')?;
        // What Istio makes of an entry of extraStatTags (envoy_bootstrap.json).
        assert!(
            regex.contains(&format!("'({name}=\\.=(.*?);\\.;)'")),
            "{line}"
        );
        Some(name.to_owned())
    });
    names.collect()
}

#[test]
fn proxies_of_a_mesh_and_of_pods_are_told_the_same() {
    let labels = labels();
    assert!(labels.len() > 5, "{labels:?}");
    let mesh = yaml("istio/mesh.yaml");
    let of_mesh = &mesh["spec"]["meshConfig"]["defaultConfig"]["extraStatTags"];
    assert_eq!(of_mesh, &Value::from(labels.clone()));
    let pod = yaml("istio/pods/pod.yaml");
    let annotations = &pod["spec"]["template"]["metadata"]["annotations"];
    let config = annotations["proxy.istio.io/config"].as_str().expect("text");
    let expiry = mesh
        .pointer("/spec/meshConfig/defaultConfig/proxyMetadata/WASM_MODULE_EXPIRY")
        .and_then(Value::as_str)
        .expect("a duration");
    let expected = format!(
        "extraStatTags: [{}]\nproxyMetadata: {{ WASM_MODULE_EXPIRY: {expiry} }}",
        labels.join(", ")
    );
    assert_eq!(config.trim_end(), expected);
}

/// What a kustomization lists.
fn listed(name: &str, field: &str) -> Vec<String> {
    let kustomization = yaml(&format!("{name}/kustomization.yaml"));
    let list = kustomization[field].as_array().expect(name).iter();
    list.map(|path| path.as_str().expect("a path").to_owned())
        .collect()
}

#[test]
fn overlays_leave_no_application_out() {
    let applications = listed("istio/applications", "resources");
    assert!(applications.len() > 1, "{applications:?}");
    let names = applications.iter().map(|path| {
        let name = path.strip_prefix("../").expect("a folder beside it");
        name.to_owned()
    });
    let names: Vec<String> = names.collect();
    for overlay in ["strict", "model-cache"] {
        let overlay = format!("istio/overlays/{overlay}");
        assert_eq!(listed(&overlay, "resources"), names, "{overlay}");
        for name in &names {
            let own = format!("{overlay}/{name}");
            assert_eq!(listed(&own, "resources"), [format!("../../../{name}")]);
            // What the component adds comes into this one.
            let namespace = &yaml(&format!("{own}/kustomization.yaml"))["namespace"];
            assert_eq!(namespace, name.as_str());
        }
    }
    let certificates: Vec<_> = names
        .iter()
        .map(|name| format!("../../{name}/tls"))
        .collect();
    assert_eq!(listed("istio/overlays/tls", "resources"), ["../strict"]);
    assert_eq!(listed("istio/overlays/tls", "components"), certificates);
}

#[test]
fn models_are_the_ones_in_the_image() {
    let models = workspace().join("services/model-service/models");
    let sums = fs::read_to_string(models.join("SHA256SUMS")).expect("SHA256SUMS");
    // Those of the components are called by their URLs.
    for (settings, location) in [
        ("istio/sms-checker", "FILE"),
        ("istio/sms-checker/model-cache", "URL"),
        ("istio/sentiment", "FILE"),
        ("istio/sentiment/model-cache", "URL"),
    ] {
        let settings = yaml(&format!("{settings}/kustomization.yaml"));
        let seen = models_named(&settings, location, &sums);
        assert_eq!(seen, 4, "stable, canary, shadow and the shadow's champion");
    }
}

/// How many artefacts the settings name, each with its checksum.
fn models_named(settings: &Value, location: &str, sums: &str) -> usize {
    let maps = settings["configMapGenerator"].as_array().expect("a list");
    let mut seen = 0;
    for map in maps {
        let literals = map["literals"].as_array().expect("a list");
        let literal = |name: &str| {
            let of = |text: &Value| Some(text.as_str()?.strip_prefix(name)?.to_owned());
            literals.iter().find_map(of)
        };
        for role in ["MODEL", "CHAMPION"] {
            if let Some(file) = literal(&format!("{role}_{location}=")) {
                let name = Path::new(&file).file_name().and_then(|name| name.to_str());
                let sum = literal(&format!("{role}_SHA256=")).expect("a checksum");
                let line = format!("{sum}  {}", name.expect("a name"));
                assert!(sums.lines().any(|known| known == line), "{line}");
                seen += 1;
            }
        }
    }
    seen
}

/// The objects of a file of `istio/blue-green`.
fn blue_green(file: &str) -> Vec<Value> {
    let file = workspace().join("istio/blue-green").join(file);
    lanekeeper_cli::read_documents(&file).expect("YAML")
}

fn the_one(objects: &[Value], kind: &str, name: &str) -> Value {
    let is_it = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
    objects.iter().find(is_it).expect(name).clone()
}

#[test]
fn a_cutover_changes_the_colour_and_nothing_else() {
    let blue = blue_green("01-blue.yaml");
    let own = ["Service", "Deployment"].map(|kind| the_one(&blue, kind, "translation-api-blue"));
    let green = own
        .each_ref()
        .map(|object| object.to_string().replace("blue", "green"));
    let second = blue_green("02-green.yaml");
    assert!(second.iter().map(Value::to_string).eq(green), "{second:?}");

    let [switched] = &blue_green("03-switch.yaml")[..] else {
        panic!("one object");
    };
    let mut service = the_one(&blue, "Service", "translation-api");
    assert_eq!(service["spec"]["selector"]["version"], "blue");
    service["spec"]["selector"]["version"] = "green".into();
    assert_eq!(*switched, service);

    let [retired] = &blue_green("04-retire.yaml")[..] else {
        panic!("one object");
    };
    let [_, mut first] = own;
    assert_ne!(first["spec"]["replicas"], 0);
    first["spec"]["replicas"] = 0.into();
    assert_eq!(*retired, first);
}

/// They are applied one by one, without kustomize, and so have by themselves what all pods have.
#[test]
fn blue_and_green_are_pods_like_all_others() {
    fn holds(all: &Value, expected: &Value, path: &str) {
        match (all, expected) {
            (Value::Object(all), Value::Object(expected)) => {
                for (name, expected) in expected {
                    holds(&all[name], expected, &format!("{path}/{name}"));
                }
            }
            (Value::Array(all), Value::Array(expected)) if path.ends_with("/containers") => {
                holds(&all[0], &expected[0], &format!("{path}/0"));
            }
            (Value::Array(all), Value::Array(expected)) if path.ends_with("/env") => {
                assert!(expected.iter().all(|one| all.contains(one)), "{path}");
            }
            _ => assert_eq!(all, expected, "{path}"),
        }
    }
    let mut expected = yaml("istio/pods/pod.yaml")["spec"].clone();
    let annotations = &mut expected["template"]["metadata"]["annotations"];
    // There is no filter in these pods whose metrics would need labels.
    let annotations = annotations.as_object_mut().expect("annotations");
    assert!(annotations.remove("proxy.istio.io/config").is_some());
    let blue = the_one(
        &blue_green("01-blue.yaml"),
        "Deployment",
        "translation-api-blue",
    );
    holds(&blue["spec"], &expected, "spec");
}
