//! What clients and applications say about versions, and what comes of it.

use anyhow::{Context, Result, ensure};
use harness::http::send;
use harness::upstream::Echo;
use lanekeeper_policy::{BUCKETS, slot};
use serde_json::json;

use super::users::mismatches;
use crate::cluster::{Changes, Cluster};
use crate::traffic::{Connection, HOST, PROMPTLY, pods_of, predict, sms, version, wait_for};

pub(crate) fn keep(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let mut names = (0..).map(|number| format!("user-{number}"));
    let stable = |name: &String| slot("sms-checker", name.as_bytes()) < 9_000;
    let user = names.find(stable).context("no user of stable")?;
    let mut client = Connection::new(&gateway);

    let request = sms().header("X-User", &user);
    let response = client.send(&request.clone().header("X-Experiment", "canary"))?;
    ensure!(
        version(&response)? == "canary",
        "the override is without effect"
    );
    ensure!(
        response.headers.all("set-cookie").is_empty(),
        "the override leaves a cookie"
    );
    for spoofed in ["X-App-Version", "x-app-version", "X-APP-VERSION"] {
        let response = client.send(&request.clone().header(spoofed, "canary"))?;
        ensure!(
            version(&response)? == "stable",
            "{spoofed} crosses the gateway"
        );
    }
    let twice = request
        .clone()
        .header("x-app-version", "canary")
        .header("X-App-Version", "stable");
    ensure!(version(&client.send(&twice)?)? == "stable", "two versions");

    echo_behind_the_gateway(cluster, &gateway)?;
    let made_up = harness::http::Request::get("/echo")
        .header("host", HOST)
        .header("x-user", &user)
        .header("x-app-version", "canary")
        .header("X-App-Version", "shadow")
        .header("x-shadow", "true")
        .header("X-Shadow", "1")
        .header("x-rollout-bucket", "7");
    let seen = Echo::of(&send(&gateway, &made_up)?)?;
    ensure!(
        seen.headers.all("x-app-version") == [b"stable"],
        "x-app-version: {:?}",
        seen.headers.all("x-app-version")
    );
    ensure!(
        seen.headers.all("x-shadow").is_empty(),
        "x-shadow crosses the gateway"
    );
    let bucket = (slot("sms-checker", user.as_bytes()) % BUCKETS).to_string();
    ensure!(
        seen.headers.all("x-rollout-bucket") == [bucket.as_bytes()],
        "x-rollout-bucket: {:?}, not {bucket} of {user}",
        seen.headers.all("x-rollout-bucket")
    );
    Ok(vec![
        "x-experiment: canary reaches canary in both tiers and leaves no cookie".to_owned(),
        "a client's x-app-version, x-shadow and x-rollout-bucket do not cross the gateway, \
         the user's own bucket reaches the application"
            .to_owned(),
    ])
}

/// An upstream that the gateway reaches under `/echo`, in place of the app-service.
fn echo_behind_the_gateway(cluster: &mut dyn Cluster, gateway: &str) -> Result<()> {
    let (address, port) = cluster.echo()?;
    let entry = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": { "name": "echo", "namespace": "sms-checker" },
        "spec": {
            "hosts": ["echo.test"],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
            "endpoints": [{ "address": address, "ports": { "http": port } }],
        },
    });
    let route = json!({
        "name": "echo",
        "match": [{ "uri": { "prefix": "/echo" } }],
        "route": [{ "destination": { "host": "echo.test" } }],
    });
    let changes = Changes::default().add(&entry.to_string()).insert(
        "VirtualService",
        "app-service",
        "/spec/http/0",
        route,
    );
    cluster.apply(&changes)?;
    let request = harness::http::Request::get("/echo").header("host", HOST);
    wait_for(PROMPTLY, "the echo is reached", || {
        Ok(Echo::of(&send(gateway, &request)?).is_ok())
    })
    .map(drop)
}

/// Calls from the pods of applications, with no header at all.
pub(crate) fn stamp(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let mut facts = Vec::new();
    for pod in pods_of(cluster, "app-service") {
        let own = format!("model-service;v={}", pod.version);
        for host in [
            "model-service:8081",
            "model-service.sms-checker.svc.cluster.local:8081",
        ] {
            let false_ones = ["stable", "canary", "shadow"];
            let false_ones = false_ones.map(|name| predict().header("x-app-version", name));
            for request in false_ones.iter().chain([&predict()]) {
                let response = cluster.call_from(&pod, host, request)?;
                let served_by = response.headers.get("x-served-by");
                ensure!(
                    served_by == Some(&own),
                    "{} was answered by {served_by:?}",
                    pod.name
                );
            }
        }
        facts.push(format!("{}: its calls reach {own}", pod.name));
    }
    ensure!(!facts.is_empty(), "no app-service runs");

    // A request that some wrong route led to canary.
    let pods = pods_of(cluster, "app-service");
    let canary = pods.into_iter().find(|pod| pod.version == "canary");
    let canary = canary.context("no canary runs")?;
    let count = |cluster: &dyn Cluster| -> Result<u64> {
        let counts = mismatches(cluster)?;
        counts.get(&canary.name).copied().context("no count")
    };
    let before = count(cluster)?;
    let misled = cluster.call_to(&canary, &sms().header("x-app-version", "stable"))?;
    ensure!(
        version(&misled)? == "canary",
        "it goes on in another version"
    );
    let counted = count(cluster)? - before;
    ensure!(
        counted == 1,
        "{counted} requests for another version were counted"
    );
    facts.push("one sent to canary for stable: counted, and canary in both tiers".to_owned());
    Ok(facts)
}
