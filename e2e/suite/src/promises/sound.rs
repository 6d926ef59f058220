//! The manifests are without fault, and so is what Envoys make of them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, Pod};

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

pub(crate) fn keep(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let messages = cluster.check(None)?;
    ensure!(messages.is_empty(), "{}", messages.join("\n"));
    let mut envoys = 0;
    for pod in cluster.pods().iter().filter(|pod| pod.has_proxy) {
        let faults = faults(cluster, pod)?;
        ensure!(faults.is_empty(), "{}: {}", pod.name, faults.join("\n"));
        envoys += 1;
    }
    ensure!(envoys > 0, "no Envoy runs");
    Ok(vec![
        "validation and istioctl's analyzers say nothing".to_owned(),
        format!("{envoys} Envoys: nothing refused, nothing warming"),
    ])
}

/// What an Envoy refused or still waits for.
pub(crate) fn faults(cluster: &dyn Cluster, pod: &Pod) -> Result<Vec<String>> {
    let stats = cluster.admin(pod, "/stats")?;
    let refused = stats.lines().filter(|line| {
        let (name, value) = line.rsplit_once(": ").unwrap_or_default();
        REFUSALS.iter().any(|refusal| name.ends_with(refusal)) && value != "0"
    });
    let mut faults: Vec<_> = refused.map(str::to_owned).collect();
    let dump = cluster.admin(pod, "/config_dump?include_eds")?;
    // After a refusal it may not even be JSON.
    let dump: Value = serde_json::from_str(&dump).context("/config_dump")?;
    find(&dump, &mut faults);
    Ok(faults)
}

fn find(dump: &Value, faults: &mut Vec<String>) {
    match dump {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "error_state" || name.contains("warming") {
                    faults.push(format!("{name}: {value}"));
                }
                find(value, faults);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| find(element, faults)),
        _ => {}
    }
}
