//! What promises about sentiment review have in common, in whichever system they are tested: a page of
//! one host calls the API of another.

use anyhow::{Context, Result, ensure};

use crate::http::{self, Request, Response};

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
