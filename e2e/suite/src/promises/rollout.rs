//! Moving weights, and a version without pods.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::http::send;
use lanekeeper_policy::slot;
use serde_json::{Value, json};

use crate::cluster::{Changes, Cluster};
use crate::traffic::{
    Connection, Load, PROMPTLY, Visitor, gateway_pod, metric, restore, sms, stay, under_load,
    version, visitors, wait_for, within_4_sigma,
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
    // Somebody who has no cookie: the slot decides each time.
    let mut names = (0..).map(|number| format!("user-{number}"));
    let changes_hands =
        |name: &String| (5_000..9_000).contains(&slot("sms-checker", name.as_bytes()));
    let user = names.find(changes_hands).context("nobody changes hands")?;
    let mut push_under_load = |holders: &[Visitor], changes: &Changes, sign, theirs| {
        under_load(&gateway, holders, || {
            let (start, known) = push(cluster, changes, sign)?;
            let switched = switched(&gateway, start, &user, theirs)?;
            // What comes late, such as an end of connections, is under load as well.
            std::thread::sleep(Duration::from_secs(5));
            Ok((known, switched))
        })
    };

    let half = versions(50, 50, "live");
    let (times, load) = push_under_load(&pinned, &half, "\"weight\":50", "canary")?;
    let mut facts = vec![in_force("10 to 50 %", times, &load)?];
    let new = visitors(&gateway, VISITORS)?;
    let canary = new.iter().filter(|visitor| visitor.given == "canary");
    let canary = canary.count();
    within_4_sigma(canary, VISITORS, 0.5)?;
    facts.push(format!("{canary} of {VISITORS} newcomers are in canary"));

    let holders: Vec<_> = pinned.into_iter().chain(new).collect();
    let draining = versions(50, 50, "draining");
    let (times, load) = push_under_load(&holders, &draining, "\"draining\"", "stable")?;
    facts.push(in_force("canary draining", times, &load)?);
    let newcomers = visitors(&gateway, 100)?;
    ensure!(
        newcomers.iter().all(|visitor| visitor.given == "stable"),
        "draining takes somebody new"
    );
    stay(&gateway, &holders, 1)?;
    facts.push("100 newcomers are in stable, all holders stay".to_owned());
    Ok(facts)
}

/// Pushes a policy to the running gateway; when that was, and how long until Envoy has it.
pub(crate) fn push(
    cluster: &mut dyn Cluster,
    changes: &Changes,
    sign: &str,
) -> Result<(Instant, Duration)> {
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
    Ok((start, time))
}

/// How long after the push a user is in the version that it gives, whichever worker is asked.
fn switched(gateway: &str, start: Instant, user: &str, theirs: &str) -> Result<Duration> {
    let mut in_a_row = 0;
    let mut first = start.elapsed();
    wait_for(PROMPTLY, "a user changes hands", || {
        let response = send(gateway, &sms().header("x-user", user))?;
        match version(&response)? == theirs {
            true if in_a_row == 0 => (in_a_row, first) = (1, start.elapsed()),
            true => in_a_row += 1,
            false => in_a_row = 0,
        }
        Ok(in_a_row > 10)
    })?;
    ensure!(
        first <= PROMPTLY,
        "{user} is in {theirs} after {first:?} only"
    );
    Ok(first)
}

fn in_force(what: &str, (known, switched): (Duration, Duration), load: &Load) -> Result<String> {
    let said = report(what, known, load)?;
    let switched = switched.as_secs_f64();
    Ok(format!(
        "{said}; a user who changes hands is there after {switched:.1} s"
    ))
}

pub(crate) fn report(what: &str, time: Duration, load: &Load) -> Result<String> {
    let unharmed = unharmed(load).with_context(|| what.to_owned())?;
    let time = time.as_secs_f64();
    Ok(format!("{what}: after {time:.1} s; {unharmed}"))
}

/// Nobody noticed anything.
pub(crate) fn unharmed(load: &Load) -> Result<String> {
    if let Some(first) = load.failures.first() {
        bail!(
            "{} of {} requests failed, the first: {first}",
            load.failures.len(),
            load.requests
        );
    }
    Ok(format!(
        "{} requests meanwhile, {:.0} a second, none failed, nobody moved",
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
    let before = unserved(cluster)?;
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
            restore(cluster)?;
        }
    }

    let after = unserved(cluster)?;
    let stable = after[0] - before[0];
    let canary = after[1] - before[1];
    ensure!(
        stable == 0 && canary >= 2 * holders.len() as u64,
        "lanekeeper_unserved_total: {stable} of stable, {canary} of canary"
    );

    let off = down.then(&versions(90, 10, "off"));
    let (_, time) = push(cluster, &off, "\"off\"")?;
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

/// Requests that the gateway's Envoy answered itself, as no pod did: of stable, and of canary.
fn unserved(cluster: &dyn Cluster) -> Result<[u64; 2]> {
    let metrics = cluster.admin(&gateway_pod(cluster)?, "/stats/prometheus")?;
    let count = |version| {
        let labels = [("rollout", "sms-checker"), ("version", version)];
        metric(&metrics, "lanekeeper_unserved_total", &labels)
    };
    let counts = [count("stable"), count("canary")];
    match counts {
        [Some(stable), Some(canary)] => Ok([stable, canary]),
        _ => bail!("lanekeeper_unserved_total: {counts:?}"),
    }
}
