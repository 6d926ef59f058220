//! Sentiment review: a page of one host calls the API of another.

use anyhow::{Context, Result, ensure};
use harness::http::{self, Request, Response};
use lanekeeper_policy::slot;

use crate::cluster::Cluster;

const PAGE: &str = "app-frontend.k8s.local";
const API: &str = "app-service.k8s.local";
const ORIGIN: &str = "http://app-frontend.k8s.local";
const USERS: usize = 150;

/// Users get a page in the version of their slot; what it sends to the other host reaches API and model
/// of that version, and browsers let it.
pub(crate) fn keep(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let send = |host: &str, request: Request| http::send(&gateway, &request.header("host", host));
    let mut of_canary = 0;
    for user in (0..USERS).map(|n| format!("user-{n}")) {
        let version = match slot("sentiment", user.as_bytes()) {
            0..9_000 => "stable",
            _ => "canary",
        };
        let page = send(PAGE, Request::get("/").header("x-user", &user))?;
        is(&page, "x-served-by", &format!("app-frontend;v={version}"))?;
        let answer = send(API, review(version))?;
        let tiers = format!("app-service;v={version}, model-service;v={version}");
        is(&answer, "x-served-by", &tiers)?;
        let confident = answer.text().contains("prediction_confidence");
        ensure!(confident == (version == "canary"), "{}", answer.text());
        of_canary += usize::from(version == "canary");
    }
    ensure!(
        (1..USERS).contains(&of_canary),
        "{of_canary} users of canary"
    );

    let preflight = Request::new("OPTIONS", "/predict-sentiment-review")
        .header("origin", ORIGIN)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,x-app-version",
        );
    let preflight = send(API, preflight)?;
    is(&preflight, "access-control-allow-origin", ORIGIN)?;
    is(&preflight, "access-control-allow-credentials", "true")?;
    is(
        &preflight,
        "access-control-allow-headers",
        "content-type,x-app-version",
    )?;
    let answer = send(API, review("canary"))?;
    is(&answer, "access-control-allow-origin", ORIGIN)?;
    is(&answer, "access-control-allow-credentials", "true")?;
    let exposed = "x-served-by,retry-after,ratelimit,ratelimit-policy";
    is(&answer, "access-control-expose-headers", exposed)?;
    let other = Request::post("/reviews/confirm", "{}").header("origin", "http://evil.example");
    let other = send(API, other)?;
    let allowed = other.headers.get("access-control-allow-origin");
    ensure!(allowed.is_none(), "{allowed:?}");
    Ok(vec![
        format!(
            "{USERS} users, {of_canary} of canary: page, API and model of the version of their slot"
        ),
        "canary alone says how sure it is".to_owned(),
        "the page may call the API with cookies and read who answered; pages of others may not"
            .to_owned(),
    ])
}

/// What the page sends.
fn review(version: &str) -> Request {
    Request::post(
        "/predict-sentiment-review",
        r#"{"review": "The food was excellent!"}"#,
    )
    .header("content-type", "application/json")
    .header("origin", ORIGIN)
    .header("x-app-version", version)
}

fn is(response: &Response, name: &str, expected: &str) -> Result<()> {
    let value = response.headers.get(name);
    let value =
        value.with_context(|| format!("no {name}: {} {}", response.status, response.text()))?;
    ensure!(value == expected, "{name}: {value}, not {expected}");
    Ok(())
}
