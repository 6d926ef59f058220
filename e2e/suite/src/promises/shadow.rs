//! The shadow model.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::http::Request;

use super::rollout::unharmed;
use crate::cluster::{Cluster, Pod};
use crate::mesh::{Mesh, Part};
use crate::traffic::{
    Connection, metric, pods_of, predict, sms, stay, under_load, version, visitors, wait_for,
};

const REQUESTS: u64 = 300;
/// Copies are on their way when their originals are answered.
const ON_THE_WAY: Duration = Duration::from_secs(10);
/// The timeout of the routes to the model, and so of copies.
const ROUTE: Duration = Duration::from_secs(5);

pub(crate) fn keep(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let shadow = pods_of(cluster, "model-shadow");
    let shadow = shadow.into_iter().next().context("no shadow runs")?;
    let models = pods_of(cluster, "model-service");
    let count = |pods: &[Pod]| -> Result<u64> {
        let each = pods.iter().map(|pod| {
            let metrics = cluster.metrics(pod)?;
            let labels = [("route", "/predict")];
            // Not there before the first.
            Ok(metric(&metrics, "http_requests_total", &labels).unwrap_or_default())
        });
        each.sum()
    };
    let one = std::slice::from_ref(&shadow);
    // Copies of what was sent before.
    wait_for(ON_THE_WAY, "old copies have arrived", || {
        let before = count(one)?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(count(one)? == before)
    })?;
    let compared = || -> Result<u64> {
        let metrics = cluster.metrics(&shadow)?;
        metric(&metrics, "model_comparison_total", &[]).context("the shadow compares nothing")
    };
    let (model_before, shadow_before) = (count(&models)?, count(one)?);
    let compared_before = compared()?;
    let mut client = Connection::new(&gateway);
    let mut versions = [0, 0];
    for number in 0..REQUESTS {
        // Users of both versions.
        let version = if number % 3 == 0 { "canary" } else { "stable" };
        let response = client.send(&match version {
            "canary" => sms().header("x-experiment", "canary"),
            _ => sms().header("x-experiment", "stable"),
        })?;
        ensure!(self::version(&response)? == version, "not in {version}");
        versions[usize::from(version == "canary")] += 1;
    }
    let models = count(&models)? - model_before;
    ensure!(models == REQUESTS, "the models had {models} requests");
    wait_for(ON_THE_WAY, "every copy has arrived", || {
        let copies = count(one)? - shadow_before;
        ensure!(copies <= REQUESTS, "{copies} copies of {REQUESTS} requests");
        Ok(copies == REQUESTS)
    })?;
    let compared = compared()? - compared_before;
    ensure!(compared == REQUESTS, "{compared} copies compared");

    // What a copy sets off must not be done twice.
    let unsafe_call = cluster.call_from(&shadow, "model-service:8081", &predict())?;
    ensure!(
        unsafe_call.status == 403,
        "a shadow's POST: {}",
        unsafe_call.status
    );
    let safe = Request::get("/version");
    let safe_call = cluster.call_from(&shadow, "model-service:8081", &safe)?;
    ensure!(
        safe_call.status == 200,
        "a shadow's GET: {}",
        safe_call.status
    );

    let visitors = visitors(&gateway, 100)?;
    cluster.kill(&shadow)?;
    stay(&gateway, &visitors, 5)?;
    Ok(vec![
        format!(
            "{REQUESTS} requests ({} stable, {} canary): {REQUESTS} copies, each compared with stable's model, and no answer of the shadow",
            versions[0], versions[1]
        ),
        "its own POST is answered 403, its GET passes".to_owned(),
        "killed: 500 requests of 100 users as before".to_owned(),
    ])
}

/// A shadow that takes connections and answers nothing.
pub(crate) fn hangs(mesh: &mut Mesh) -> Result<Vec<String>> {
    const SECONDS: Duration = Duration::from_secs(3);
    let gateway = mesh.gateway()?;
    let visitors = visitors(&gateway, 100)?;
    let sleep = || {
        std::thread::sleep(SECONDS);
        Ok(())
    };
    let ((), before) = under_load(&gateway, &visitors, sleep)?;
    unharmed(&before).context("before")?;

    let shadow = pods_of(mesh, "model-shadow");
    let shadow = shadow.first().context("no shadow runs")?;
    mesh.signal(shadow, Part::Service, "STOP")?;
    let hung = under_load(&gateway, &visitors, || {
        // Copies that nobody waits for, until the first are given up.
        wait_for(ROUTE * 4, "copies are given up", || Ok(given_up(mesh)? > 0))?;
        sleep()
    });
    mesh.signal(shadow, Part::Service, "CONT")?;
    let ((), load) = hung?;
    let said = unharmed(&load).context("a shadow that hangs")?;
    let (usual, tail) = (before.percentile(99), load.percentile(99));
    ensure!(
        tail < usual * 10,
        "99 of 100 requests took {usual:.1?} at most before, and {tail:.1?} while the shadow hangs"
    );
    let slowest = load.percentile(100);
    ensure!(slowest < ROUTE, "a request took {slowest:.1?}");
    Ok(vec![format!(
        "a shadow that hangs: {said}; 99 of 100 took {tail:.1?} at most, {usual:.1?} before; the slowest {slowest:.1?}"
    )])
}

/// Copies that took as long as the route allows, at the sidecars that send them.
fn given_up(cluster: &dyn Cluster) -> Result<u64> {
    let counts = pods_of(cluster, "app-service").into_iter().map(|pod| {
        let stats = cluster.admin(&pod, "/stats?filter=model-shadow.*upstream_rq_timeout$")?;
        let counts = stats.lines().filter_map(|line| line.rsplit_once(": "));
        let counts = counts.filter_map(|(_, count)| count.parse::<u64>().ok());
        Ok(counts.sum::<u64>())
    });
    counts.sum()
}
