//! What only a cluster shows.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::http::{Request, send};

use super::rollout::report;
use crate::cluster::{Changes, Cluster};
use crate::kind::{GATEWAY, Kind, SYSTEM, items, text};
use crate::traffic::{
    Connection, Visitor, gateway_pod, predict, sms, stay, under_load, version, visitors, wait_for,
};

/// Pods start and end, on machines of two cores too.
const IN_TIME: Duration = Duration::from_secs(180);

/// The application that the traffic is for.
const SMS_CHECKER: &str = "sms-checker";
/// The other one.
const SENTIMENT: &str = "sentiment";

/// Its Deployments, but for the shadow.
const TIERS: [&str; 2] = ["app-service", "model-service"];

pub(crate) fn injection(kind: &mut Kind) -> Result<Vec<String>> {
    let pods = kind.pods();
    let mut facts = Vec::new();
    let mut nodes = BTreeMap::<String, usize>::new();
    for pod in pods.iter().filter(|pod| pod.app != GATEWAY) {
        ensure!(pod.has_proxy, "{} has no sidecar", pod.name);
        let json = kind.describe(pod)?;
        let started = |list: &str, name: &str| {
            let statuses = json["status"][list].as_array().into_iter().flatten();
            let mut named = statuses.filter(|status| status["name"] == name);
            let status = named.next()?;
            // Of one format and zone: the order of texts is that of times.
            Some(text(&status["state"]["running"]["startedAt"]).to_owned())
        };
        let sidecar = started("initContainerStatuses", "istio-proxy");
        let sidecar = sidecar.with_context(|| format!("{}: no native sidecar", pod.name))?;
        let service = started("containerStatuses", "service").context("no service")?;
        ensure!(
            !sidecar.is_empty() && sidecar <= service,
            "{}: the sidecar started at {sidecar:?}, the service at {service:?}",
            pod.name
        );
        *nodes
            .entry(text(&json["spec"]["nodeName"]).to_owned())
            .or_default() += 1;
        facts.push(pod.name.clone());
    }
    let expected: u64 = available(kind)?
        .iter()
        .filter(|(name, _)| !name.starts_with(SYSTEM))
        .map(|(_, count)| count)
        .sum();
    ensure!(
        facts.len() as u64 == expected,
        "{} of {expected} pods: {}",
        facts.len(),
        facts.join(", ")
    );
    let nodes = nodes.iter().map(|(node, pods)| format!("{pods} on {node}"));
    Ok(vec![
        format!("{expected} pods: each has a sidecar, which started before the service"),
        nodes.collect::<Vec<_>>().join(", "),
    ])
}

pub(crate) fn image(kind: &mut Kind) -> Result<Vec<String>> {
    let built = fs::read(harness::build::filter_wasm()?)?;
    let mut proxies = 0;
    for pod in kind.pods() {
        // The agent's copies are named by their checksum.
        let find = ["find", "/var/lib/istio/data", "-name", "*.wasm"];
        let found = kind.exec(&pod, "istio-proxy", &find, b"")?;
        let found = String::from_utf8(found)?;
        ensure!(!found.is_empty(), "{}: no module was fetched", pod.name);
        for file in found.lines() {
            let module = kind.exec(&pod, "istio-proxy", &["cat", file], b"")?;
            ensure!(module == built, "{}: {file} is another module", pod.name);
        }
        proxies += 1;
    }
    let plugins = kind.kubectl.json(&["get", "wasmplugins", "-A"])?;
    let mut urls = Vec::new();
    for plugin in items(&plugins) {
        let url = text(&plugin["spec"]["url"]);
        ensure!(
            url.starts_with("oci://") && url.contains("@sha256:"),
            "{}: {url}",
            plugin["metadata"]["name"]
        );
        urls.push(url);
    }
    urls.dedup();
    ensure!(urls.len() == 1, "{urls:?}");
    Ok(vec![format!(
        "{proxies} proxies have the module of {}",
        urls[0]
    )])
}

pub(crate) fn strict(kind: &mut Kind) -> Result<Vec<String>> {
    let gateway = kind.gateway()?;
    let pods = kind.pods();
    let pod = |namespace: &str, app: &str| {
        let mut pods = pods.iter();
        let pod = pods.find(|pod| pod.namespace == namespace && pod.app == app);
        pod.with_context(|| format!("no {app} runs in {namespace}"))
    };
    let app = pod(SMS_CHECKER, "app-service")?;
    let version_of = Request::get("/version");
    let plain = kind.call_to(app, &version_of)?.status;
    ensure!(
        plain == 200,
        "without the overlay a plain call gets {plain}"
    );

    kind.apply(&Changes::default().overlay("istio/overlays/strict"))?;
    for (namespace, app) in [
        (SMS_CHECKER, "app-service"),
        (SMS_CHECKER, "model-service"),
        (SMS_CHECKER, "model-shadow"),
        (SENTIMENT, "app-frontend"),
        (SENTIMENT, "app-service"),
        (SENTIMENT, "model-service"),
        (SENTIMENT, "model-shadow"),
    ] {
        let called = pod(namespace, app)?;
        wait_for(IN_TIME, "a plain call is refused", || {
            // The connection is reset, and so there is no response.
            Ok(kind.call_to(called, &version_of).is_err())
        })
        .with_context(|| called.name.clone())?;
    }
    // With a certificate, but not of one who may.
    for (namespace, app, to) in [
        (SMS_CHECKER, "model-service", "app-service:8080"),
        (SMS_CHECKER, "model-shadow", "model-service:8081"),
        (SMS_CHECKER, "app-service", "app-service:8080"),
        (SMS_CHECKER, "model-service", "model-shadow:8081"),
        (SENTIMENT, "app-frontend", "app-service:8080"),
        (SENTIMENT, "app-frontend", "model-service:8081"),
        (SENTIMENT, "app-service", "app-frontend:8080"),
        (SENTIMENT, "app-service", "model-service.sms-checker:8081"),
    ] {
        let from = pod(namespace, app)?;
        let mut status = 0;
        wait_for(IN_TIME, "who is not named is refused", || {
            status = kind.call_from(from, to, &version_of)?.status;
            Ok(status == 403)
        })
        .with_context(|| format!("{} gets {status} of {to}", from.name))?;
    }
    let named = kind.call_from(app, "model-service:8081", &predict())?;
    ensure!(named.status == 200, "the app-service gets {}", named.status);
    let users = visitors(&gateway, 50)?;
    stay(&gateway, &users, 3)?;
    let of_sentiment = super::pages::keep(kind)?;

    // Probes still reach the services: of two that fail, the pod would no longer be ready.
    let ready = kind.pods().len();
    thread::sleep(Duration::from_secs(12));
    let still = kind.pods().len();
    ensure!(still == ready, "{still} of {ready} pods are still ready");
    let mut facts = vec![
        "plain calls to every tier of both applications: the connection is closed".to_owned(),
        "with the certificate of a tier, or an application, where another is named: 403".to_owned(),
        format!("50 users, 200 requests: as before; all {ready} pods stay ready"),
    ];
    facts.extend(of_sentiment);
    Ok(facts)
}

pub(crate) fn restart(kind: &mut Kind) -> Result<Vec<String>> {
    let gateway = kind.gateway()?;
    let users = visitors(&gateway, 100)?;
    let canary = users.iter().filter(|user| user.given == "canary").count();
    ensure!(canary > 0, "nobody is in canary");
    let before = names(&*kind, "canary");
    let (time, load) = under_load(&gateway, &users, || {
        let start = Instant::now();
        let deployments = TIERS.map(|tier| format!("deployment/{tier}-canary"));
        let words = ["rollout", "restart", "-n", SMS_CHECKER];
        let words = [&words, &deployments.each_ref().map(String::as_str)[..]].concat();
        kind.kubectl.run(&words)?;
        kind.wait_for_rollouts()?;
        gone(kind, &before)?;
        Ok(start.elapsed())
    })?;
    Ok(vec![report(
        &format!("both tiers of canary restarted, {canary} of 100 users in it"),
        time,
        &load,
    )?])
}

pub(crate) fn deletion(kind: &mut Kind) -> Result<Vec<String>> {
    let gateway = kind.gateway()?;
    let users = visitors(&gateway, 100)?;
    let one_of = |kind: &Kind, deployment: &str| {
        let pods = kind.pods();
        let mut pods = pods
            .into_iter()
            .filter(|pod| pod.namespace == SMS_CHECKER && pod.deployment == deployment);
        pods.next().map(|pod| pod.name).context("no pod")
    };
    let delete = |kind: &Kind, version: &str| -> Result<Duration> {
        let start = Instant::now();
        let mut names = Vec::new();
        for tier in TIERS {
            names.push(one_of(kind, &format!("{tier}-{version}"))?);
        }
        let pods = names.iter().map(String::as_str);
        let words = ["delete", "pod", "--wait=false", "-n", SMS_CHECKER].into_iter();
        kind.kubectl.run(&words.chain(pods).collect::<Vec<_>>())?;
        gone(kind, &names)?;
        kind.wait_for_rollouts()?;
        Ok(start.elapsed())
    };
    let (time, load) = under_load(&gateway, &users, || delete(kind, "stable"))?;
    let stable = report("one stable pod of each tier deleted", time, &load)?;

    // Canary has one pod of each tier: from its end to the beginning of the next there is nobody to ask.
    let (others, holders): (Vec<Visitor>, Vec<Visitor>) =
        users.into_iter().partition(|user| user.given == "stable");
    ensure!(!holders.is_empty(), "nobody is in canary");
    let ((_, time), load) = under_load(&gateway, &others, || {
        let (time, load) = under_load(&gateway, &holders, || delete(kind, "canary"))?;
        Ok((load, time))
    })?;
    let others = report("canary's only pods deleted, users of stable", time, &load)?;
    let mut client = Connection::new(&gateway);
    wait_for(IN_TIME, "canary serves again", || {
        let answers = holders.iter().map(|holder| {
            let response = holder.clone().send(&mut client)?;
            Ok(version(&response).is_ok_and(|version| version == "canary"))
        });
        let answers: Result<Vec<bool>> = answers.collect();
        Ok(answers?.into_iter().all(|well| well))
    })?;
    Ok(vec![
        stable,
        others,
        format!(
            "its {} holders are in canary again afterwards",
            holders.len()
        ),
    ])
}

pub(crate) fn replicas(kind: &mut Kind) -> Result<Vec<String>> {
    const LIMIT: usize = 10;
    const REQUESTS: usize = 80;
    let gateway = kind.gateway()?;
    let path = "/spec/pluginConfig/quotas/0/limit";
    let changes = Changes::default().replace("WasmPlugin", "lanekeeper", path, LIMIT.into());
    let admitted = |user: &str| -> Result<usize> {
        let mut admitted = 0;
        for _ in 0..REQUESTS {
            // A connection each, so that the replicas share them.
            match send(&gateway, &sms().header("x-user", user))?.status {
                200 => admitted += 1,
                429 => {}
                status => bail!("{user} gets {status}"),
            }
        }
        Ok(admitted)
    };
    let mut facts = Vec::new();
    for replicas in [1, 2] {
        kind.apply(&changes)?;
        kind.scale_gateway(replicas)?;
        wait_for(IN_TIME, "all replicas have the policy", || {
            let pods = kind.pods().into_iter().filter(|pod| pod.app == GATEWAY);
            let pods: Vec<_> = pods.collect();
            let limit = format!("\"limit\":{LIMIT}");
            for pod in &pods {
                let dump = kind.admin(pod, "/config_dump")?.replace([' ', '\\'], "");
                if !dump.contains(&limit) {
                    return Ok(false);
                }
            }
            Ok(pods.len() == replicas)
        })?;
        for user in 0..3 {
            let user = format!("replicas-{replicas}-{user}");
            let count = admitted(&user)?;
            ensure!(
                count == LIMIT * replicas,
                "{count} requests of {user} were admitted"
            );
        }
        facts.push(format!(
            "{replicas} replicas, {LIMIT} a minute: {} of {REQUESTS} requests of each user are admitted",
            LIMIT * replicas
        ));
    }
    Ok(facts)
}

pub(crate) fn drain(kind: &mut Kind) -> Result<Vec<String>> {
    let gateway = kind.gateway()?;
    let nodes = kind.kubectl.json(&["get", "nodes"])?;
    let router = kind.describe(&gateway_pod(kind)?)?;
    let router = text(&router["spec"]["nodeName"]);
    // Not the one that users come in by, and not the one with the control plane.
    let workers = items(&nodes).filter(|node| {
        let labels = &node["metadata"]["labels"];
        labels["node-role.kubernetes.io/control-plane"].is_null()
    });
    let mut others = workers
        .map(|node| text(&node["metadata"]["name"]))
        .filter(|name| *name != router);
    let Some(node) = others.next() else {
        return Ok(vec![
            "NOT TESTED: there is one node only, and with it all would go".to_owned(),
        ]);
    };
    let on_it = kind.pods_on(node)?;
    ensure!(on_it > 0, "{node} has no pods");
    let mut users = visitors(&gateway, 100)?;
    users.retain(|user| user.given == "stable");

    let mut least = BTreeMap::<String, u64>::new();
    let drained = under_load(&gateway, &users, || {
        let start = Instant::now();
        let words = [
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
        ];
        let mut child = kind.kubectl.command(&words);
        // That a budget makes it wait is what it says over and over.
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let ended = loop {
            for (deployment, available) in available(kind)? {
                let least = least.entry(deployment).or_insert(available);
                *least = available.min(*least);
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > IN_TIME {
                child.kill()?;
                child.wait()?;
                bail!("{node} is not drained after {IN_TIME:?}");
            }
        };
        ensure!(ended.success(), "kubectl drain {node}: {ended}");
        kind.wait_for_rollouts()?;
        Ok(start.elapsed())
    });
    // Also when it went wrong.
    kind.kubectl.run(&["uncordon", node])?;
    let (time, load) = drained?;
    for tier in TIERS {
        let least = least.get(&format!("{SMS_CHECKER}/{tier}-stable")).copied();
        ensure!(
            least >= Some(2),
            "{tier}: {least:?} stable pods were available at one time, the budget is one less than 3"
        );
    }
    Ok(vec![
        report(
            &format!("{node} drained of {on_it} pods, users of stable"),
            time,
            &load,
        )?,
        format!("never fewer pods available than the budgets say: {least:?}"),
    ])
}

/// The pods of a version.
fn names(kind: &Kind, version: &str) -> Vec<String> {
    let pods = kind.pods().into_iter();
    pods.filter(|pod| pod.namespace == SMS_CHECKER && pod.version == version)
        .map(|pod| pod.name)
        .collect()
}

/// Waits until pods are no more.
fn gone(kind: &Kind, names: &[String]) -> Result<()> {
    wait_for(IN_TIME, "old pods are gone", || {
        let pods = kind.kubectl.json(&["get", "pods", "-n", SMS_CHECKER])?;
        let mut left = items(&pods).map(|pod| text(&pod["metadata"]["name"]));
        Ok(!left.any(|pod| names.iter().any(|name| name == pod)))
    })
    .map(drop)
}

/// How many pods of each Deployment serve.
fn available(kind: &Kind) -> Result<BTreeMap<String, u64>> {
    let deployments = kind.deployments()?;
    let counts = deployments.iter().map(|deployment| {
        let metadata = &deployment["metadata"];
        let name = format!(
            "{}/{}",
            text(&metadata["namespace"]),
            text(&metadata["name"])
        );
        let count = deployment["status"]["availableReplicas"].as_u64();
        (name, count.unwrap_or_default())
    });
    Ok(counts.collect())
}
