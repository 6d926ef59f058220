//! What promises about the SMS checker have in common, in whichever system they are tested.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::http::{Request, Response};

/// How soon a push is to be in force.
pub const PROMPTLY: Duration = Duration::from_secs(5);

/// A message to be judged: a request that goes through both tiers.
pub fn sms() -> Request {
    question("/sms")
}

/// The question that an app-service asks its model.
pub fn predict() -> Request {
    question("/predict")
}

/// A message at the gateway, from one of 500 users, with what that user thinks of it; one for each number.
pub fn message(number: usize) -> Request {
    let sms = [
        "see you at six",
        "WINNER! Claim your FREE prize now, text YES to 80001",
    ][number % 2];
    Request::post("/sms", json!({ "sms": sms, "guess": "ham" }).to_string())
        .header("host", "sms-checker.local")
        // Few enough for no quota to refuse them, and no other one asks about visitors.
        .header("x-user", format!("user-{}", number % 500))
        .header("content-type", "application/json")
}

fn question(path: &str) -> Request {
    Request::post(path, r#"{"sms": "see you at the station at six"}"#)
        .header("content-type", "application/json")
}

/// The version that answered, in every tier; an error if the tiers do not agree, or if it was the
/// shadow.
pub fn version(response: &Response) -> Result<String> {
    ensure!(
        response.status == 200,
        "{} {}",
        response.status,
        response.text()
    );
    let served_by = response.headers.get("x-served-by").context("x-served-by")?;
    let tiers: Option<Vec<_>> = served_by
        .split(", ")
        .map(|tier| tier.split_once(";v="))
        .collect();
    match tiers.as_deref() {
        Some([("app-service", app), ("model-service", model)])
            if app == model && *model != "shadow" =>
        {
            Ok((*app).to_owned())
        }
        _ => bail!("the tiers do not agree: {served_by}"),
    }
}

/// Whether a number of hits out of `trials` is within four standard deviations of its expectation.
pub fn within_4_sigma(hits: usize, trials: usize, share: f64) -> Result<()> {
    let (mean, sigma) = (
        trials as f64 * share,
        (trials as f64 * share * (1.0 - share)).sqrt(),
    );
    ensure!(
        (hits as f64 - mean).abs() <= 4.0 * sigma,
        "{hits} of {trials} are not within 4 sigma ({:.0}) of {mean:.0}",
        4.0 * sigma
    );
    Ok(())
}

/// Waits until something holds; how long that took.
pub fn wait_for(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    while !holds().with_context(|| what.to_owned())? {
        ensure!(start.elapsed() < limit, "{what}: not after {limit:?}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(start.elapsed())
}
