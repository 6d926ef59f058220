//! The shadow model.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::http::Request;

use crate::cluster::{Cluster, Pod};
use crate::traffic::{
    Connection, metric, pods_of, predict, sms, stay, version, visitors, wait_for,
};

const REQUESTS: u64 = 300;
/// Copies are on their way when their originals are answered.
const ON_THE_WAY: Duration = Duration::from_secs(10);

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
    cluster.kill("model-shadow")?;
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
