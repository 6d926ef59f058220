//! The manifests are without fault, and so is what Envoys make of them.

use anyhow::{Context, Result, ensure};
use lanekeeper_cli::read_document;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::mesh::Mesh;

/// What is counted when an Envoy does not take what it is sent.
const REFUSALS: [&str; 7] = [
    "update_rejected",
    "update_failure",
    "config_fail",
    "config_reload_fails",
    "create_vm_fail",
    "runtime_fail",
    "remote_load_fetch_failures",
];

/// The plain set-up, its overlays, and what is to be said of them: certificates are for people to bring.
const MANIFESTS: [(&str, &[&str]); 5] = [
    ("istio", &[]),
    ("istio/overlays/strict", &[]),
    (
        "istio/overlays/tls",
        &[
            "Referenced credentialName not found: \"sms-checker\"",
            "Referenced credentialName not found: \"sentiment\"",
        ],
    ),
    ("istio/overlays/model-cache", &[]),
    ("istio/overlays/model-cache-single-node", &[]),
];

/// Applied file by file. A test without a cluster says that the other files change these only a little.
const BLUE_GREEN: &str = "istio/blue-green";

/// What validation and analysis say of the manifests.
pub(crate) fn manifests(mesh: &mut Mesh) -> Result<Vec<String>> {
    for (istio, expected) in MANIFESTS {
        let mut messages = mesh.check(istio, None)?;
        for expected in expected {
            let found = messages
                .iter()
                .position(|message| message.contains(expected));
            messages.remove(found.with_context(|| format!("{istio}: not {expected:?}"))?);
        }
        ensure!(messages.is_empty(), "{istio}: {}", messages.join("\n"));
    }
    let file =
        |name| std::fs::read_to_string(harness::build::workspace().join(BLUE_GREEN).join(name));
    let both = [file("01-blue.yaml")?, file("02-green.yaml")?].join("---\n");
    let messages = mesh.check("istio", Some(&both))?;
    ensure!(messages.is_empty(), "{BLUE_GREEN}: {}", messages.join("\n"));
    Ok(vec![
        "validation and istioctl's analyzers say nothing, but of TLS that certificates are to be brought"
            .to_owned(),
    ])
}

/// What the Envoys made of them.
pub(crate) fn envoys(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let (mut envoys, mut plugins) = (0, 0);
    for pod in cluster.pods().iter().filter(|pod| pod.has_proxy) {
        let dump = cluster.admin(pod, "/config_dump?include_eds")?;
        // After a refusal it may not even be JSON.
        let dump: Value = serde_json::from_str(&dump).context("/config_dump")?;
        let mut faults = refused(&cluster.admin(pod, "/stats")?);
        waits_for(&dump, &mut faults);
        ensure!(faults.is_empty(), "{}: {}", pod.name, faults.join("\n"));
        envoys += 1;

        // One policy has the rollouts of all applications behind the gateway.
        let (policy, expected) = match pod.app.as_str() {
            "istio-ingressgateway" => ("gateway".to_owned(), 1),
            "model-shadow" => (format!("{}-shadow", pod.namespace), 1),
            // Inbound and outbound.
            _ => (format!("{}-sidecar", pod.namespace), 2),
        };
        let file = format!("wasm-plugins/policies/{policy}.yaml");
        let policy = read_document(&harness::build::workspace().join(&file))?;
        let arrived = policies(&dump);
        ensure!(
            arrived.len() == expected && arrived.iter().all(|arrived| *arrived == policy),
            "{}: not {expected} times {file}, but {arrived:?}",
            pod.name
        );
        plugins += arrived.len();
    }
    ensure!(envoys > 0, "no Envoy runs");
    Ok(vec![
        format!("{envoys} Envoys: nothing refused, nothing warming"),
        format!("{plugins} plugins: each has its policy, word for word"),
    ])
}

fn refused(stats: &str) -> Vec<String> {
    let refused = stats.lines().filter(|line| {
        let (name, value) = line.rsplit_once(": ").unwrap_or_default();
        REFUSALS.iter().any(|refusal| name.ends_with(refusal)) && value != "0"
    });
    refused.map(str::to_owned).collect()
}

fn waits_for(dump: &Value, faults: &mut Vec<String>) {
    match dump {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "error_state" || name.contains("warming") {
                    faults.push(format!("{name}: {value}"));
                }
                waits_for(value, faults);
            }
        }
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| waits_for(element, faults)),
        _ => {}
    }
}

/// The configurations of all plugins.
fn policies(dump: &Value) -> Vec<Value> {
    let configs = dump["configs"].as_array().into_iter().flatten();
    let filters = configs.filter_map(|config| config["ecds_filters"].as_array());
    let texts = filters.flatten().filter_map(|filter| {
        filter
            .pointer("/ecds_filter/typed_config/config/configuration/value")?
            .as_str()
    });
    texts
        .filter_map(|text| serde_json::from_str(text).ok())
        .collect()
}
