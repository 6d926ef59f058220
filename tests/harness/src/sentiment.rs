//! What promises about sentiment review have in common, in whichever system they are tested: a page of
//! one host calls the API of another.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::{self, Client, Request, Response, cookies};

/// The host of the page.
pub const PAGE: &str = "app-frontend.k8s.local";
/// The host of the API.
pub const API: &str = "app-service.k8s.local";
/// The page's, as browsers tell it to the API.
pub const ORIGIN: &str = "http://app-frontend.k8s.local";

/// The page, as a browser asks for it.
pub fn page() -> Request {
    Request::get("/").header("host", PAGE)
}

/// The question that a page of `origin` asks the API, with the version that it was served in.
pub fn review(version: &str, origin: &str) -> Request {
    let body = r#"{"review": "The food was excellent!"}"#;
    Request::post("/predict-sentiment-review", body)
        .header("host", API)
        .header("content-type", "application/json")
        .header("origin", origin)
        .header("x-app-version", version)
}

/// Somebody comes, asks about a review, and says what to think of the answer; one for each number.
pub fn visit(gateway: &str, number: usize) -> Result<()> {
    let mut client = Client::connect(gateway)?;
    let page = client.send(&page())?;
    let served_by = page.headers.get("x-served-by").unwrap_or_default();
    let version = served_by
        .rsplit_once("v=")
        .map_or("", |(_, version)| version);
    let ask = |path, body: Value| {
        Request::post(path, body.to_string())
            .header("host", API)
            .header("content-type", "application/json")
            .header("cookie", cookies(&page))
            .header("x-app-version", version)
    };
    let review = [
        "The food was excellent!",
        "Terrible, the worst service ever",
    ][number % 2];
    let answer = client.send(&ask(
        "/predict-sentiment-review",
        json!({ "review": review }),
    ))?;
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let label = &answer["prediction"];
    // Canary's answers are corrected half as often.
    let one_in = if version == "canary" { 6 } else { 3 };
    let verdict = match (number % one_in, label.as_u64()) {
        (0, Some(label)) => {
            json!({ "action": "override", "originalLabel": label, "correctedLabel": 1 - label })
        }
        _ => json!({ "action": "confirm", "originalLabel": label }),
    };
    client.send(&ask("/reviews/confirm", verdict))?;
    Ok(())
}

/// Gets the page with a header that decides on its version, and asks what it would ask: page, API and
/// model must be of this version, and the browser must let the page read the answer.
pub fn is_of_one_version(gateway: &str, header: (&str, &str), version: &str) -> Result<()> {
    let (name, value) = header;
    let page = http::send(gateway, &page().header(name, value))?;
    has(&page, "x-served-by", &format!("app-frontend;v={version}"))?;
    let says = format!(r#"<meta name="app-version" content="{version}">"#);
    ensure!(page.text().contains(&says), "{}", page.text());

    let answer = http::send(gateway, &review(version, ORIGIN))?;
    let tiers = format!("app-service;v={version}, model-service;v={version}");
    has(&answer, "x-served-by", &tiers)?;
    // The version is the page's affair.
    let cookie = answer.headers.get("set-cookie");
    ensure!(cookie.is_none(), "set-cookie: {cookie:?}");
    let confident = answer.text().contains("prediction_confidence");
    ensure!(confident == (version == "canary"), "{}", answer.text());
    has(&answer, "access-control-allow-origin", ORIGIN)?;
    has(&answer, "access-control-allow-credentials", "true")
}

/// Checks a header of a response, which must be one of success.
pub fn has(response: &Response, name: &str, expected: &str) -> Result<()> {
    let (status, text) = (response.status, response.text());
    ensure!(status == 200, "{status} {text}");
    let value = response.headers.get(name);
    let value = value.with_context(|| format!("no {name}: {text}"))?;
    ensure!(value == expected, "{name}: {value}, not {expected}");
    Ok(())
}
