//! One user, one version, in every tier.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lanekeeper_policy::slot;

use crate::cluster::Cluster;
use crate::traffic::{Connection, metric, pods_of, sms, stay, version, visitors, within_4_sigma};

const USERS: usize = 300;
const REQUESTS: usize = 10;

pub(crate) fn keep(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let mismatches_before = mismatches(cluster)?;
    let visitors = visitors(&gateway, USERS)?;
    stay(&gateway, &visitors, REQUESTS - 1)?;
    let canary = visitors.iter().filter(|visitor| visitor.given == "canary");
    let canary = canary.count();
    within_4_sigma(canary, USERS, 0.1)?;

    let mut client = Connection::new(&gateway);
    let mut named = 0;
    for number in 0..100 {
        let name = format!("user-{number}");
        let theirs = match slot("sms-checker", name.as_bytes()) {
            0..9_000 => "stable",
            _ => "canary",
        };
        for _ in 0..3 {
            let response = client.send(&sms().header("x-user", &name))?;
            ensure!(version(&response)? == theirs, "{name} is not in {theirs}");
            named += 1;
        }
    }
    let mismatches_after = mismatches(cluster)?;
    ensure!(
        mismatches_after == mismatches_before,
        "requests met a pod of another version: {mismatches_before:?} before, {mismatches_after:?} after"
    );
    Ok(vec![
        format!(
            "{USERS} visitors, {} requests: no flip, the tiers agree on each; {canary} in canary",
            USERS * REQUESTS
        ),
        format!("100 named users, {named} requests: each in the version of the user's slot"),
        format!(
            "none of {} sidecars counted a request for another version",
            mismatches_after.len()
        ),
    ])
}

/// How many requests for another version each sidecar counted.
pub(crate) fn mismatches(cluster: &dyn Cluster) -> Result<BTreeMap<String, u64>> {
    let tiers = ["app-service", "model-service"];
    let pods = tiers.iter().flat_map(|app| pods_of(cluster, app));
    let counts = pods.map(|pod| {
        let metrics = cluster.admin(&pod, "/stats/prometheus")?;
        // Defined with the policy: if it is not there, it is not the filter that is silent.
        let count = metric(
            &metrics,
            "lanekeeper_mismatch_total",
            &[("actual", &pod.version)],
        );
        Ok((pod.name.clone(), count.context(pod.name)?))
    });
    counts.collect()
}
