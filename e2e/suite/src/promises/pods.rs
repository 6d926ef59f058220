//! Which pod of a version a request meets: what the DestinationRules say.

use anyhow::{Context, Result, bail, ensure};
use harness::http::Request;

use crate::cluster::{Changes, Cluster, Pod};
use crate::mesh::{Mesh, Part};
use crate::traffic::{
    Connection, PROMPTLY, Visitor, gateway_pod, metric, pods_of, sms, stay, version, visitors,
    wait_for,
};

const APP: &str = "app-service";
const MODEL: &str = "model-service";

/// More than `consecutiveLocalOriginFailures` and `consecutive5xxErrors`, after which a pod is ejected.
const MANY: usize = 20;
/// What the rules say.
const FAILURES: usize = 5;

/// The pods of a version of a tier, and how many requests of users each has had.
fn counts(cluster: &dyn Cluster, app: &str, version: &str) -> Result<Vec<u64>> {
    let route = if app == APP { "/sms" } else { "/predict" };
    let mut pods = pods_of(cluster, app);
    pods.retain(|pod| pod.version == version);
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let each = pods.iter().map(|pod| {
        let metrics = cluster.metrics(pod)?;
        // Not there before the first.
        Ok(metric(&metrics, "http_requests_total", &[("route", route)]).unwrap_or_default())
    });
    each.collect()
}

/// How many requests more each pod of stable has had for what was done.
fn gained(
    cluster: &dyn Cluster,
    action: impl FnOnce() -> Result<()>,
) -> Result<(Vec<u64>, Vec<u64>)> {
    let count = || Ok::<_, anyhow::Error>([APP, MODEL].map(|app| counts(cluster, app, "stable")));
    let before = count()?;
    action()?;
    let mut gained = before.into_iter().zip(count()?).map(|(before, after)| {
        let pairs = before?.into_iter().zip(after?);
        Ok::<Vec<u64>, anyhow::Error>(pairs.map(|(before, after)| after - before).collect())
    });
    let mut next = || gained.next().context("two tiers")?;
    Ok((next()?, next()?))
}

/// The app-service by the visitor's cookie; the model's callers have nothing to go by, and take any pod.
pub(crate) fn spread(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let mut stable = visitors(&gateway, 60)?;
    stable.retain(|visitor| visitor.given == "stable");
    ensure!(stable.len() >= 20, "{} visitors of stable", stable.len());

    let mut met = Vec::new();
    for visitor in &stable[..5] {
        // On a connection each, or what is reused could be the reason.
        let (app, model) = gained(cluster, || {
            (0..MANY).try_for_each(|_| {
                let mut visitor = visitor.clone();
                visitor.stays(&mut Connection::new(&gateway))
            })
        })?;
        let of_one: Vec<usize> = (0..app.len()).filter(|pod| app[*pod] > 0).collect();
        ensure!(
            of_one.len() == 1 && app[of_one[0]] == MANY as u64,
            "{MANY} requests of one visitor: {app:?} at the app-service's pods"
        );
        ensure!(
            model.iter().sum::<u64>() == MANY as u64,
            "{MANY} requests: {model:?} at the model's pods"
        );
        met.push(of_one[0]);
    }
    let (app, model) = gained(cluster, || stay(&gateway, &stable, 1))?;
    ensure!(
        app.len() == 3 && !app.contains(&0) && !model.contains(&0),
        "{} visitors: {app:?} at the app-service's pods, {model:?} at the model's",
        stable.len()
    );
    Ok(vec![
        format!(
            "5 visitors, {MANY} requests each: each meets one pod of the app-service ({met:?})"
        ),
        format!(
            "{} visitors: {app:?} requests at the app-service's pods, {model:?} at the model's",
            stable.len()
        ),
    ])
}

/// Pods fail, and the control plane does not know: only what the proxies see for themselves helps.
pub(crate) fn ejection(mesh: &mut Mesh) -> Result<Vec<String>> {
    let gateway = mesh.gateway()?;
    let visitors = visitors(&gateway, 200)?;
    let (holders, others): (Vec<Visitor>, Vec<Visitor>) = visitors
        .into_iter()
        .partition(|visitor| visitor.given == "canary");
    ensure!(!holders.is_empty(), "nobody is in canary");
    let mut facts = Vec::new();

    // What answers for a model that is gone is its sidecar, with 503.
    for (app, part) in [(APP, Part::All), (MODEL, Part::Service)] {
        let only = pod(mesh, app, "canary")?;
        mesh.signal(&only, part, "KILL")?;
        let mut client = Connection::new(&gateway);
        for _ in 0..MANY {
            let response = client.send(&sms().header("x-experiment", "canary"))?;
            ensure!(
                response.status >= 500,
                "{} is gone, but {}",
                only.name,
                response.status
            );
        }
        for caller in callers(mesh, app, "canary")? {
            let ejected = ejected(mesh, &caller, app)?;
            ensure!(ejected.is_empty(), "{} ejected {ejected:?}", caller.name);
        }
        mesh.apply(&Changes::default())?;
        stay(&gateway, &holders, 3).with_context(|| format!("{} is back", only.name))?;
        facts.push(format!(
            "{}, the only pod: {MANY} requests failed while it was gone, none when it was back",
            only.name
        ));
    }

    // Answers are not asked for twice: each caller pays for what it learns.
    let gone = pod(mesh, MODEL, "stable")?;
    let callers = callers(mesh, MODEL, "stable")?;
    mesh.signal(&gone, Part::Service, "KILL")?;
    let (mut client, mut failed) = (Connection::new(&gateway), 0);
    for _ in 0..5 {
        for visitor in &others {
            let response = visitor.clone().send(&mut client)?;
            match response.status {
                200 => ensure!(version(&response)? == "stable", "a flip"),
                502 => failed += 1,
                status => bail!("{status} {}", response.text()),
            }
        }
    }
    stay(&gateway, &others, 3)?;
    // And what is on its way while a proxy tells its workers.
    let most = callers.len() * FAILURES * 2;
    ensure!(
        (1..=most).contains(&failed),
        "{failed} requests failed, not 1 to {most}"
    );
    for caller in &callers {
        let ejected = ejected(mesh, caller, MODEL)?;
        ensure!(ejected.len() == 1, "{} ejected {ejected:?}", caller.name);
    }
    facts.push(format!(
        "{}, one of three: {failed} requests failed (about {FAILURES} for each of {} callers), then none of {}",
        gone.name,
        callers.len(),
        others.len() * 3
    ));
    mesh.apply(&Changes::default())?;

    // A connection that fails is tried again with another pod, so that next to nobody
    // notices this one.
    let gone = pod(mesh, APP, "stable")?;
    mesh.signal(&gone, Part::All, "KILL")?;
    let router = gateway_pod(mesh)?;
    let address = mesh.address(&gone)?.to_owned();
    // A request on a connection that is just being closed is not one that was refused.
    wait_for(PROMPTLY, "its connections are closed", || {
        let clusters = mesh.admin(&router, "/clusters")?;
        let active = clusters.lines().filter(|line| {
            line.contains(&format!("::{address}:")) && line.contains("::cx_active::")
        });
        let called = mesh.call_to(&gone, &Request::get("/version"));
        Ok(called.is_err() && active.into_iter().all(|line| line.ends_with("::0")))
    })?;
    let before = tried_again(mesh, &router)?;
    let (mut client, mut failed) = (Connection::new(&gateway), 0);
    for visitor in others.iter().cycle().take(others.len() * 3) {
        failed += usize::from(visitor.clone().stays(&mut client).is_err());
    }
    let rescued = tried_again(mesh, &router)? - before;
    // Envoy looks five places further on the ring for another pod: one time in 243, all are the same
    // pod's, and the request uses up three of the failures. If the same pod were asked again, the
    // second request already would be the one that gets it ejected.
    ensure!(
        failed <= 1 && rescued >= 2,
        "{} is gone: {failed} requests failed, {rescued} were answered by another pod",
        gone.name
    );
    let at_gateway = ejected(mesh, &router, APP)?;
    ensure!(
        at_gateway.len() == 1,
        "ejected at the gateway: {at_gateway:?}"
    );
    facts.push(format!(
        "{}, one of three: {failed} of {} requests failed, {rescued} were tried again; ejected at the gateway",
        gone.name,
        others.len() * 3
    ));
    Ok(facts)
}

/// The first pod of a version.
fn pod(cluster: &dyn Cluster, app: &str, version: &str) -> Result<Pod> {
    let mut pods = pods_of(cluster, app).into_iter();
    let pod = pods.find(|pod| pod.version == version);
    pod.with_context(|| format!("no {app} of {version} runs"))
}

/// The pods that call a version of a tier.
fn callers(cluster: &dyn Cluster, app: &str, version: &str) -> Result<Vec<Pod>> {
    if app == APP {
        return Ok(vec![gateway_pod(cluster)?]);
    }
    let mut pods = pods_of(cluster, APP);
    pods.retain(|pod| pod.version == version);
    Ok(pods)
}

/// Requests to stable's app-service that another try has saved.
fn tried_again(cluster: &dyn Cluster, gateway: &Pod) -> Result<u64> {
    let filter = "/stats?filter=stable.app-service.*upstream_rq_retry_success$";
    let stats = cluster.admin(gateway, filter)?;
    let count = stats.trim().rsplit_once(": ").context("no count")?;
    Ok(count.1.parse()?)
}

/// The endpoints of a tier that a pod's Envoy has ejected.
fn ejected(cluster: &dyn Cluster, pod: &Pod, app: &str) -> Result<Vec<String>> {
    let clusters = cluster.admin(pod, "/clusters")?;
    let host = format!("|{app}.");
    let ejected = clusters.lines().filter(|line| {
        line.contains(&host)
            && line.contains("health_flags::")
            && line.contains("/failed_outlier_check")
    });
    Ok(ejected.map(str::to_owned).collect())
}
