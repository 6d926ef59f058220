//! Moving weights, and a version without pods.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use harness::http::send;
use serde_json::{Value, json};

use crate::cluster::{Changes, Cluster};
use crate::traffic::{
    Connection, Load, PROMPTLY, Visitor, gateway_pod, sms, stay, under_load, version, visitors,
    wait_for, wait_until_restored, within_4_sigma,
};

const VISITORS: usize = 200;
const VERSIONS: &str = "/spec/pluginConfig/rollouts/0/versions";

/// The manifests with other weights, and canary in this state.
pub(crate) fn versions(stable: u32, canary: u32, state: &str) -> Changes {
    let versions = json!([
        { "name": "stable", "weight": stable, "baseline": true },
        { "name": "canary", "weight": canary, "state": state },
    ]);
    Changes::default().replace("WasmPlugin", "lanekeeper", VERSIONS, versions)
}

pub(crate) fn weights(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let pinned = visitors(&gateway, VISITORS)?;

    let (time, load) = under_load(&gateway, &pinned, || {
        let time = push(cluster, &versions(50, 50, "live"), "\"weight\":50")?;
        std::thread::sleep(Duration::from_secs(5));
        Ok(time)
    })?;
    let mut facts = vec![report("10 to 50 %", time, &load)?];
    let new = visitors(&gateway, VISITORS)?;
    let canary = new.iter().filter(|visitor| visitor.given == "canary");
    let canary = canary.count();
    within_4_sigma(canary, VISITORS, 0.5)?;
    facts.push(format!("{canary} of {VISITORS} newcomers are in canary"));

    let holders: Vec<_> = pinned.into_iter().chain(new).collect();
    let (time, load) = under_load(&gateway, &holders, || {
        let time = push(cluster, &versions(50, 50, "draining"), "\"draining\"")?;
        std::thread::sleep(Duration::from_secs(5));
        Ok(time)
    })?;
    facts.push(report("canary draining", time, &load)?);
    let newcomers = visitors(&gateway, 100)?;
    ensure!(
        newcomers.iter().all(|visitor| visitor.given == "stable"),
        "draining takes somebody new"
    );
    stay(&gateway, &holders, 1)?;
    facts.push("100 newcomers are in stable, all holders stay".to_owned());
    Ok(facts)
}

/// Pushes a policy to the running gateway; how long until Envoy has it.
pub(crate) fn push(cluster: &mut dyn Cluster, changes: &Changes, sign: &str) -> Result<Duration> {
    let pod = gateway_pod(cluster)?;
    let start = cluster.apply(changes)?;
    wait_for(PROMPTLY, "the push is in force", || {
        let dump: Value = serde_json::from_str(&cluster.admin(&pod, "/config_dump")?)?;
        let text = dump.to_string();
        // A policy is JSON within JSON.
        Ok(text.replace('\\', "").contains(sign))
    })?;
    let time = start.elapsed();
    ensure!(time <= PROMPTLY, "in force after {time:?} only");
    Ok(time)
}

pub(crate) fn report(what: &str, time: Duration, load: &Load) -> Result<String> {
    if let Some(first) = load.failures.first() {
        bail!(
            "{what}: {} of {} requests failed, the first: {first}",
            load.failures.len(),
            load.requests
        );
    }
    Ok(format!(
        "{what}: after {:.1} s; {} requests meanwhile, {:.0} a second, none failed, nobody moved",
        time.as_secs_f64(),
        load.requests,
        load.rate()
    ))
}

pub(crate) fn outage(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let all = visitors(&gateway, VISITORS)?;
    let (mut holders, others): (Vec<Visitor>, Vec<Visitor>) = all
        .into_iter()
        .partition(|visitor| visitor.given == "canary");
    ensure!(!holders.is_empty(), "nobody is in canary");

    let mut client = Connection::new(&gateway);
    let label = "/spec/subsets/1/labels/version";
    let typo = Changes::default().replace("DestinationRule", "app-service", label, "canray".into());
    let down = Changes::default().scale("app-service-canary", 0);
    for changes in [&typo, &down] {
        cluster.apply(changes)?;
        wait_for(PROMPTLY, "canary's holders get 503", || {
            Ok(holders[0].send(&mut client)?.status == 503)
        })?;
        for holder in &mut holders {
            let status = holder.send(&mut client)?.status;
            ensure!(status == 503, "a holder got {status}");
        }
        stay(&gateway, &others, 2)?;
        if std::ptr::eq(changes, &typo) {
            cluster.apply(&Changes::default())?;
            wait_until_restored(cluster)?;
        }
    }

    let off = down.then(&versions(90, 10, "off"));
    let time = push(cluster, &off, "\"off\"")?;
    let time = time
        + wait_for(PROMPTLY, "holders are in stable", || {
            let answers = holders.iter_mut().map(|holder| {
                let response = holder.send(&mut client)?;
                Ok(version(&response).is_ok_and(|version| version == "stable"))
            });
            let answers: Result<Vec<bool>> = answers.collect();
            Ok(answers?.into_iter().all(|moved| moved))
        })?;
    ensure!(time <= PROMPTLY, "in stable after {time:?} only");
    stay(&gateway, &others, 1)?;
    let response = send(&gateway, &sms().header("x-experiment", "canary"))?;
    ensure!(
        version(&response)? == "stable",
        "the override finds an off version"
    );
    Ok(vec![
        format!(
            "a subset without pods, and none at all: {} holders get 503, {} others notice nothing",
            holders.len(),
            others.len()
        ),
        format!(
            "off: all holders are in stable {:.1} s after the push",
            time.as_secs_f64()
        ),
    ])
}
