//! One user, one version, in every tier.

use anyhow::{Result, ensure};
use harness::http::Client;
use lanekeeper_policy::slot;

use crate::cluster::Cluster;
use crate::traffic::{metric, sms, stay, version, visitors, within_4_sigma};

const USERS: usize = 300;
const REQUESTS: usize = 10;

pub(crate) fn keep(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let visitors = visitors(&gateway, USERS)?;
    stay(&gateway, &visitors, REQUESTS - 1)?;
    let canary = visitors.iter().filter(|visitor| visitor.given == "canary");
    let canary = canary.count();
    within_4_sigma(canary, USERS, 0.1)?;

    let mut client = Client::connect(&gateway)?;
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
    let mut mismatches = 0;
    for pod in cluster.pods().iter().filter(|pod| pod.has_proxy) {
        let metrics = cluster.admin(pod, "/stats/prometheus")?;
        mismatches += metric(&metrics, "lanekeeper_mismatch_total", &[]);
    }
    ensure!(mismatches == 0, "{mismatches} requests met a wrong pod");
    Ok(vec![
        format!(
            "{USERS} visitors, {} requests: no flip, the tiers agree on each; {canary} in canary",
            USERS * REQUESTS
        ),
        format!("100 named users, {named} requests: each in the version of the user's slot"),
        "no sidecar counted a request for another version".to_owned(),
    ])
}
