//! Manifests with a fault each, in `e2e/faults`.

use std::fs;

use anyhow::{Result, ensure};

use crate::mesh::Mesh;

/// What the check says of each.
const FAULTS: [(&str, &str); 14] = [
    ("01-unknown-field", "mirorPercentage"),
    ("02-missing-subset", "IST0101"),
    ("03-bad-port-name", "IST0118"),
    ("04-missing-gateway", "IST0101"),
    ("05-wasm-bad-phase", "AUTHNN"),
    ("06-negative-weight", "weight -5 < 0"),
    ("07-missing-host", "IST0101"),
    ("08-gateway-selector", "IST0101"),
    ("09-unreachable-rule", "IST0130"),
    ("10-duplicate-subset", "duplicate subset names"),
    ("11-envoyfilter-type", "could not resolve Any message type"),
    ("12-subset-without-pods", "IST0173"),
    ("13-wasm-bad-url", "url"),
    ("14-missing-short-host", "IST0101"),
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
