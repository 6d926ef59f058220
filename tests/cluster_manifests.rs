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
fn istio_makes_the_same_labels_of_metric_names() {
    let labels = labels();
    assert!(labels.len() > 5, "{labels:?}");
    let mesh = yaml("istio/mesh.yaml");
    let of_mesh = &mesh["spec"]["meshConfig"]["defaultConfig"]["extraStatTags"];
    assert_eq!(of_mesh, &Value::from(labels.clone()));
    let pod = yaml("istio/pods/pod.yaml");
    let annotations = &pod["spec"]["template"]["metadata"]["annotations"];
    let config = annotations["proxy.istio.io/config"].as_str().expect("text");
    let expected = format!("extraStatTags: [{}]", labels.join(", "));
    assert_eq!(config.trim_end(), expected);
}

#[test]
fn models_are_the_ones_in_the_image() {
    let models = workspace().join("services/model-service/models");
    let sums = fs::read_to_string(models.join("SHA256SUMS")).expect("SHA256SUMS");
    // Those of the overlay are called by their URLs.
    for (settings, location) in [
        ("istio/sms-checker", "FILE"),
        ("istio/sentiment", "FILE"),
        ("istio/overlays/model-cache", "URL"),
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
