//! Sentiment review: a page of one host calls the API of another.

use anyhow::{Context, Result, ensure};
use harness::http::{self, Request};
use harness::sentiment::{API, ORIGIN, has, is_of_one_version, review};
use lanekeeper_policy::slot;

use crate::cluster::Cluster;

const USERS: usize = 150;

/// Users get a page in the version of their slot; what it sends to the other host reaches API and model
/// of that version, and browsers let it.
pub(crate) fn keep(cluster: &mut dyn Cluster) -> Result<Vec<String>> {
    let gateway = cluster.gateway()?;
    let send = |request: &Request| http::send(&gateway, request);
    let mut of_canary = 0;
    for user in (0..USERS).map(|n| format!("user-{n}")) {
        let version = match slot("sentiment", user.as_bytes()) {
            0..9_000 => "stable",
            _ => "canary",
        };
        is_of_one_version(&gateway, ("x-user", &user), version).with_context(|| user.clone())?;
        of_canary += usize::from(version == "canary");
    }
    ensure!(
        (1..USERS).contains(&of_canary),
        "{of_canary} users of canary"
    );

    let preflight = Request::new("OPTIONS", "/predict-sentiment-review")
        .header("host", API)
        .header("origin", ORIGIN)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,x-app-version",
        );
    let preflight = send(&preflight)?;
    has(&preflight, "access-control-allow-origin", ORIGIN)?;
    has(&preflight, "access-control-allow-credentials", "true")?;
    has(
        &preflight,
        "access-control-allow-headers",
        "content-type,x-app-version",
    )?;
    let answer = send(&review("canary", ORIGIN))?;
    let exposed = "x-served-by,retry-after,ratelimit,ratelimit-policy";
    has(&answer, "access-control-expose-headers", exposed)?;
    let other = send(&review("canary", "http://evil.example"))?;
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
