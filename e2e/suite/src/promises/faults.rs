//! Manifests with a fault each, in `e2e/faults`.

use std::fs;

use anyhow::{Result, ensure};

use crate::mesh::Mesh;

/// What the check says of each.
const FAULTS: [(&str, &str); 17] = [
    (
        "01-unknown-field",
        "unknown fields [spec.http[0].mirorPercentage]",
    ),
    ("02-missing-subset", "not found: \"app-service+blue\""),
    ("03-bad-port-name", "Port name app-http"),
    ("04-missing-gateway", "gateway not found: \"sms-chekcer\""),
    (
        "05-wasm-bad-phase",
        "spec.phase: Unsupported value: \"AUTHNN\"",
    ),
    ("06-negative-weight", "weight -5 < 0"),
    (
        "07-missing-host",
        "host not found: \"nobody.sms-checker.svc.cluster.local\"",
    ),
    (
        "08-gateway-selector",
        "selector not found: \"istio=ingresgateway\"",
    ),
    ("09-unreachable-rule", "rule \"canary\" not used"),
    ("10-duplicate-subset", "duplicate subset names: shadow"),
    ("11-envoyfilter-type", "could not resolve Any message type"),
    (
        "12-subset-without-pods",
        "Subset canary defined in the DestinationRule does not select any pods",
    ),
    (
        "13-wasm-bad-url",
        "spec.url: Invalid value: \"ftp://registry.example/lanekeeper.wasm\"",
    ),
    ("14-missing-short-host", "host not found: \"app-servcie\""),
    ("15-unknown-principal", "app-servcie: no pod"),
    ("16-unknown-port", "port 8080: no container"),
    (
        "17-unknown-service-account",
        "service account sms-checker/app-servcie: no pod",
    ),
];

pub(crate) fn keep(mesh: &mut Mesh) -> Result<Vec<String>> {
    let dir = harness::build::workspace().join("e2e/faults");
    let mut facts = Vec::new();
    for (name, expected) in FAULTS {
        let manifest = fs::read_to_string(dir.join(format!("{name}.yaml")))?;
        let messages = mesh.check("istio", Some(&manifest))?;
        let telling = messages.iter().find(|message| message.contains(expected));
        ensure!(
            telling.is_some(),
            "{name}: nothing about {expected:?}, but {messages:?}"
        );
        facts.push(format!(
            "{name}: {}",
            telling.map(|m| m.trim()).unwrap_or_default()
        ));
    }
    Ok(facts)
}
