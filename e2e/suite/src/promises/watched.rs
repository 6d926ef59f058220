//! What `kubectl apply -k monitoring` makes the operator of Prometheus do.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::http::{self, Request};
use harness::monitoring;
use harness::prometheus_api::Api;
use harness::{build, promise, sentiment};
use serde_json::Value;

use super::pushes;
use crate::cluster::{Changes, Cluster};
use crate::kind::{Forward, GATEWAY, Kind, Kubectl, items, text};
use crate::traffic::{pods_of, wait_for};

/// Programs start, pods are found, and rules look back at minutes.
const IN_TIME: Duration = Duration::from_secs(240);

/// All of `monitoring/`, and who heeds it.
const FOLDER: &str = "e2e/kind/monitoring";
const NAMESPACE: &str = "monitoring";

/// What is recorded when the weights did not change for an hour.
const LATER: [&str; 4] = ["share1h", "expected1h", "variance1h", "z1h"];

/// What is told of a system that is used; and two cores that all pods share make one version or another
/// slow now and then.
const TOLD: [&str; 3] = ["ManyRequests", "ManyReviews", "VersionSlow"];

/// Prometheus and Alertmanager, until this is dropped.
struct Watch {
    kubectl: Kubectl,
    folder: String,
}

impl Watch {
    fn start(kubectl: &Kubectl) -> Result<Self> {
        let watch = Self {
            kubectl: kubectl.clone(),
            folder: build::workspace().join(FOLDER).display().to_string(),
        };
        kubectl.run(&["apply", "-k", &watch.folder])?;
        for name in ["prometheus-lanekeeper", "alertmanager-lanekeeper"] {
            let get = [
                "get",
                "statefulset",
                name,
                "-n",
                NAMESPACE,
                "--ignore-not-found",
            ];
            wait_for(IN_TIME, &format!("{name} is ready"), || {
                // Of what is not there yet, there is no JSON.
                let set = kubectl.json(&get).unwrap_or_default();
                Ok(set["status"]["readyReplicas"] == 1)
            })?;
        }
        Ok(watch)
    }

    fn way_to(&self, service: &str, port: u16) -> Result<Forward> {
        Forward::start(&self.kubectl, NAMESPACE, service, port)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let delete = ["delete", "-k", &self.folder, "--ignore-not-found"];
        if let Err(error) = self.kubectl.run(&delete) {
            eprintln!("{error:#}");
        }
    }
}

pub(crate) fn keep(kind: &mut Kind) -> Result<Vec<String>> {
    let gateway = kind.gateway()?;
    let mut changes = Changes::default();
    for step in ["01-blue", "02-green"] {
        let file = build::workspace().join(format!("istio/blue-green/{step}.yaml"));
        changes = changes.add(&fs::read_to_string(file)?);
    }
    kind.apply(&changes)?;
    let watch = Watch::start(&kind.kubectl)?;
    let way = watch.way_to("service/prometheus-operated", 9090)?;
    let prometheus = Api::at(&way.address);

    let pods = every_pod_is_one_target(kind, &prometheus)?;
    let mut facts = vec![format!(
        "{} pods, each a target that is up: {}",
        pods.len(),
        jobs(&pods)
    )];
    facts.extend(rules_and_panels_have_data(&prometheus, &gateway)?);
    facts.push(alertmanager_is_told(&watch, &prometheus, &gateway)?);

    // What the filter said stays until the last connection that it is on is closed.
    kind.apply(&changes.clone().then(&pushes::without_module()))?;
    let told = wait_for_answer("the filter is missed", || {
        let firing = prometheus.alerts_of_late("firing")?;
        Ok(firing.iter().any(|name| name == "LanekeeperAbsent"))
    })?;
    facts.push(format!(
        "a module that cannot be had: LanekeeperAbsent after {:.0} s",
        told.as_secs_f64()
    ));

    kind.apply(&changes.overlay("istio/overlays/strict"))?;
    let app = pods_of(kind, "app-service").into_iter().next();
    let app = app.context("no app-service runs")?;
    wait_for(IN_TIME, "a plain call is refused", || {
        Ok(kind.call_to(&app, &Request::get("/version")).is_err())
    })?;
    let mut since = 0.0;
    wait_for_answer("Prometheus knows the time", || {
        since = prometheus.query("time()")?.first().context("no time")?.1;
        Ok(true)
    })?;
    let meshed = kind.pods().iter().filter(|pod| pod.app != GATEWAY).count();
    let scraped = format!(
        r#"count(count by (namespace, pod) (timestamp(http_requests_total{{lanekeeper="sidecar"}}) > {since}))"#
    );
    wait_for_answer("services are scraped under strict", || {
        let scraped = prometheus.query(&scraped)?;
        Ok(scraped
            .first()
            .is_some_and(|(_, pods)| *pods == meshed as f64))
    })?;
    facts.push(format!(
        "istio/overlays/strict: {meshed} services are scraped as before"
    ));
    Ok(facts)
}

/// As [`wait_for`]; an answer that is late, as when all proxies get another configuration, is waited for,
/// too.
fn wait_for_answer(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let mut last = "none was faulty".to_owned();
    let waited = wait_for(IN_TIME, what, || {
        Ok(holds().unwrap_or_else(|error| {
            last = format!("the last faulty one: {error:#}");
            false
        }))
    });
    waited.with_context(|| format!("answers: {last}"))
}

/// A pod, and what its target has to say of it: namespace, pod, job, `lanekeeper`.
type Target = [String; 4];

/// Waits until every pod is a target once, is up, and goes under the name of its tier.
fn every_pod_is_one_target(kind: &Kind, prometheus: &Api) -> Result<Vec<Target>> {
    let (mut pods, mut targets) = (Vec::new(), Vec::new());
    let all = wait_for(IN_TIME, "every pod is a target", || {
        pods = kind
            .pods()
            .into_iter()
            .map(|pod| match pod.app.as_str() {
                GATEWAY => [pod.namespace, pod.name, "gateway".into(), "gateway".into()],
                _ => [pod.namespace, pod.name, pod.app, "sidecar".into()],
            })
            .collect();
        let colours = kind.kubectl.json(&["get", "pods", "-n", "translation"])?;
        pods.extend(items(&colours).map(|pod| {
            let of = |name: &str| text(&pod["metadata"][name]).to_owned();
            [
                of("namespace"),
                of("name"),
                "translation-api".into(),
                "none".into(),
            ]
        }));
        targets = prometheus
            .query(r#"up{lanekeeper!=""} == 1"#)?
            .iter()
            .map(|(labels, _)| {
                ["namespace", "pod", "job", "lanekeeper"].map(|name| text(&labels[name]).to_owned())
            })
            .collect();
        pods.sort();
        targets.sort();
        Ok(!pods.is_empty() && pods == targets)
    });
    all.with_context(|| format!("pods: {pods:?}\ntargets: {targets:?}"))?;
    Ok(pods)
}

/// How many pods each tier has.
fn jobs(pods: &[Target]) -> String {
    let mut jobs = BTreeMap::<&str, usize>::new();
    for [_, _, job, _] in pods {
        *jobs.entry(job).or_default() += 1;
    }
    let jobs = jobs.into_iter().map(|(job, pods)| format!("{pods} {job}"));
    jobs.collect::<Vec<_>>().join(", ")
}

/// Somebody uses both applications.
fn visits(gateway: &str) -> Result<()> {
    for number in 0..50 {
        sentiment::visit(gateway, number)?;
        http::send(gateway, &promise::message(number))?;
    }
    Ok(())
}

fn rules_and_panels_have_data(prometheus: &Api, gateway: &str) -> Result<Vec<String>> {
    let is_later = |text: &String| LATER.iter().any(|part| text.contains(part));
    let mut queries = monitoring::queries("1m")?;
    queries.retain(|(_, query)| !is_later(query));
    let mut empty = Vec::new();
    wait_for(IN_TIME, "every rule and panel has data", || {
        visits(gateway)?;
        empty = monitoring::without_data(prometheus, &queries)?;
        Ok(empty.is_empty())
    })
    .with_context(|| empty.join("\n"))?;
    let unhealthy = prometheus.unhealthy_rules()?;
    ensure!(unhealthy.is_empty(), "{unhealthy:?}");
    // Labels, too: they are those of metrics.
    let mut faults = monitoring::faults_of_page(prometheus)?;
    faults.retain(|fault| !is_later(fault));
    ensure!(faults.is_empty(), "metrics.md: {faults:#?}");
    Ok(vec![
        format!(
            "{} queries of rules and panels have data, all rules are evaluated",
            queries.len()
        ),
        "what is exported is what metrics.md says, labels included".to_owned(),
    ])
}

/// That it is busy is told, by the configuration in the Secret; and nothing else.
fn alertmanager_is_told(watch: &Watch, prometheus: &Api, gateway: &str) -> Result<String> {
    let way = watch.way_to("service/alertmanager-operated", 9093)?;
    let ask = |path: &str| -> Result<Value> {
        let answer = http::send(&way.address, &Request::get(path))?;
        serde_json::from_slice(&answer.body).with_context(|| answer.text())
    };
    let is_busy = |alert: &Value| {
        alert["labels"]["alertname"] == "ManyRequests"
            && alert["receivers"][0]["name"] == "operators-info"
    };
    wait_for(IN_TIME, "Alertmanager is told that it is busy", || {
        visits(gateway)?;
        let alerts = ask("/api/v2/alerts")?;
        Ok(alerts
            .as_array()
            .is_some_and(|alerts| alerts.iter().any(is_busy)))
    })?;
    let told = prometheus.alerts_of_late("firing")?;
    let others: Vec<_> = told
        .iter()
        .filter(|name| !TOLD.contains(&name.as_str()))
        .collect();
    ensure!(others.is_empty(), "told: {others:?}");
    Ok(format!(
        "Alertmanager is told, by the route of its severity: {}",
        told.join(", ")
    ))
}
