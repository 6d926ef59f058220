//! Pushes that are broken.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::http::{Request, send};
use serde_json::json;

use super::rollout::{push, report, versions};
use crate::cluster::{Changes, Cluster};
use crate::traffic::{
    Connection, PROMPTLY, gateway_pod, metric, pods_of, predict, restore, sms, stay, under_load,
    version, visitors, wait_for, within_4_sigma,
};

/// No promise is made of how soon a module is gone.
const IN_TIME: Duration = Duration::from_secs(60);

const MODEL: &str = "model-service:8081";

const NO_IMAGE: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Schemas of Istio do not know what a policy is: this gets as far as the filter.
pub(crate) fn bad_policy(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let visitors = visitors(&gateway, 100)?;
    let path = "/spec/pluginConfig/rollouts/0/versions/0/weight";
    let changes = Changes::default().replace("WasmPlugin", "lanekeeper", path, json!("ninety"));
    cluster.apply(&changes)?;
    let pod = gateway_pod(cluster)?;
    wait_for(PROMPTLY, "the policy is refused", || {
        let metrics = cluster.admin(&pod, "/stats/prometheus")?;
        Ok(metric(&metrics, "lanekeeper_config_rejected", &[]) == Some(1))
    })?;
    stay(&gateway, &visitors, 3)?;
    let canary = sms().header("x-app-version", "canary");
    let newcomer = send(&gateway, &canary.clone().header("x-user", "user-0"))?;
    ensure!(version(&newcomer)? == "stable", "a made-up version passes");

    // One that never had a good policy.
    cluster.kill(&pod)?;
    cluster.apply(&changes)?;
    wait_for(IN_TIME, "the new gateway answers", || {
        Ok(send(&gateway, &sms()).is_ok_and(|response| response.status == 200))
    })?;
    let pod = gateway_pod(cluster)?;
    let mut client = Connection::new(&gateway);
    for _ in 0..50 {
        for request in [sms(), canary.clone()] {
            let response = client.send(&request)?;
            ensure!(version(&response)? == "stable", "a made-up version passes");
            let cookies = response.headers.all("set-cookie").len();
            ensure!(cookies == 0, "{cookies} cookies");
        }
    }
    let metrics = cluster.admin(&pod, "/stats/prometheus")?;
    ensure!(
        metric(&metrics, "lanekeeper_config_rejected", &[]) == Some(1),
        "it is not refused"
    );
    Ok(vec![
        "lanekeeper_config_rejected is 1; 100 users stay, 300 requests; newcomers are assigned"
            .to_owned(),
        "a new gateway: everybody is in stable, whatever version they say".to_owned(),
    ])
}

/// Proxies that have their module need no registry to be told another policy.
pub(crate) fn no_registry(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let visitors = visitors(&gateway, 100)?;
    cluster.registry(false)?;
    let pushed = under_load(&gateway, &visitors, || {
        push(cluster, &versions(50, 50, "live"), "\"weight\":50")
    });
    let split = pushed.and_then(|pushed| Ok((pushed, self::visitors(&gateway, 200)?)));
    cluster.registry(true)?;
    let (((_, time), load), new) = split?;
    let canary = new.iter().filter(|visitor| visitor.given == "canary");
    let canary = canary.count();
    within_4_sigma(canary, new.len(), 0.5)?;
    let pushed = report("without the registry, 10 to 50 %", time, &load)?;
    Ok(vec![format!(
        "{pushed}; {canary} of {} newcomers are in canary",
        new.len()
    )])
}

pub(crate) fn no_module(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let mut facts = Vec::new();
    let missing = without_module();
    facts.push(open(cluster, "no such image", &missing)?);
    restore(cluster)?;
    let wrong = NO_IMAGE.trim_start_matches("sha256:").into();
    let wrong = Changes::default().insert("WasmPlugin", "lanekeeper", "/spec/sha256", wrong);
    facts.push(open(cluster, "another sha256", &wrong)?);
    restore(cluster)?;
    facts.push(unstamped(cluster)?);

    let closed = missing.replace(
        "WasmPlugin",
        "lanekeeper",
        "/spec/failStrategy",
        "FAIL_CLOSE".into(),
    );
    let gateway = cluster.gateway()?;
    cluster.apply(&closed)?;
    let mut in_a_row = 0;
    wait_for(IN_TIME, "everybody gets 403", || {
        let status = send(&gateway, &sms())?.status;
        in_a_row = if status == 403 { in_a_row + 1 } else { 0 };
        Ok(in_a_row > 5)
    })?;
    facts.push("no such image, FAIL_CLOSE: everybody gets 403".to_owned());
    Ok(facts)
}

/// An image for the gateway that cannot be had.
pub(super) fn without_module() -> Changes {
    let url = format!("oci://127.0.0.1:1/lanekeeper@{NO_IMAGE}");
    Changes::default().replace("WasmPlugin", "lanekeeper", "/spec/url", url.into())
}

/// Under FAIL_OPEN users are served by what they say, else by the baseline.
fn open(cluster: &mut dyn Cluster, what: &str, changes: &Changes) -> Result<String> {
    let gateway = cluster.gateway()?;
    cluster.apply(changes)?;
    let mut in_a_row = 0;
    wait_for(IN_TIME, "the filter is gone", || {
        let response = send(&gateway, &sms())?;
        let plain = response.headers.all("set-cookie").is_empty();
        ensure!(version(&response).is_ok(), "{}", response.status);
        in_a_row = if plain { in_a_row + 1 } else { 0 };
        Ok(in_a_row > 5)
    })?;
    let mut client = Connection::new(&gateway);
    for (said, expected) in [
        (None, "stable"),
        (Some("canary"), "canary"),
        (Some("other"), "stable"),
    ] {
        for _ in 0..20 {
            let request = match said {
                Some(said) => sms().header("x-app-version", said),
                None => sms(),
            };
            let found = version(&client.send(&request)?)?;
            ensure!(found == expected, "{said:?} leads to {found}");
        }
    }
    Ok(format!(
        "{what}, FAIL_OPEN: all are served, by the version they say, else the baseline; the tiers agree"
    ))
}

/// Without the module in the sidecars, routes by the labels of the calling pod keep the tiers together.
fn unstamped(cluster: &mut dyn Cluster) -> Result<String> {
    let url = format!("oci://127.0.0.1:1/lanekeeper@{NO_IMAGE}");
    let sidecars = "lanekeeper-outbound";
    let missing =
        Changes::default().replace("WasmPlugin", sidecars, "/spec/url", url.clone().into());
    cluster.apply(&missing)?;
    let pods = pods_of(cluster, "app-service");
    wait_for(IN_TIME, "the filter is gone", || {
        // Whatever the application says gets through.
        let request = predict().header("x-app-version", "canary");
        let answers = pods.iter().map(|pod| {
            let response = cluster.call_from(pod, MODEL, &request)?;
            Ok(response.headers.get("x-served-by") == Some("model-service;v=canary"))
        });
        let answers: Result<Vec<bool>> = answers.collect();
        Ok(answers?.into_iter().all(|through| through))
    })?;
    for pod in &pods {
        for _ in 0..10 {
            let response = cluster.call_from(pod, MODEL, &predict())?;
            let served_by = response.headers.get("x-served-by");
            ensure!(
                served_by == Some(&format!("model-service;v={}", pod.version)),
                "{} was answered by {served_by:?}",
                pod.name
            );
        }
    }
    let shadow = "lanekeeper-shadow";
    let missing = Changes::default().replace("WasmPlugin", shadow, "/spec/url", url.into());
    cluster.apply(&missing)?;
    let pods = pods_of(cluster, "model-shadow");
    let pod = pods.first().context("no shadow runs")?;
    wait_for(IN_TIME, "the shadow may call nobody", || {
        let response = cluster.call_from(pod, MODEL, &Request::get("/version"))?;
        Ok(response.status == 403)
    })?;
    Ok(
        "no such image in the sidecars: every app pod still reaches the model of its version, and \
        the shadow may call nobody"
            .to_owned(),
    )
}

/// A wrong route, and sidecars that refuse what is meant for another version.
pub(crate) fn wrong_route(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let subset = "/spec/http/0/route/0/destination/subset";
    let wrong =
        Changes::default().replace("VirtualService", "app-service", subset, "stable".into());
    let canary = sms().header("x-experiment", "canary");
    cluster.apply(&wrong)?;
    wait_for(PROMPTLY, "canary's users are served by stable", || {
        Ok(version(&send(&gateway, &canary)?)? == "stable")
    })?;
    let policy = "/spec/pluginConfig/sidecar/onMismatch";
    let refusing = wrong.replace("WasmPlugin", "lanekeeper-inbound", policy, "refuse".into());
    cluster.apply(&refusing)?;
    let mut status = 0;
    wait_for(PROMPTLY, "they are refused", || {
        status = send(&gateway, &canary)?.status;
        Ok(status == 502)
    })
    .with_context(|| format!("the last answer was {status}"))?;
    for _ in 0..20 {
        let other = send(&gateway, &sms().header("x-experiment", "stable"))?;
        ensure!(version(&other)? == "stable", "stable's users notice");
    }
    Ok(vec![
        "canary led to stable: with onMismatch: refuse, its users get 502 and stable's notice nothing"
            .to_owned(),
    ])
}
