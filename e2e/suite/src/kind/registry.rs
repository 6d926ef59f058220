//! Brings the filter's image into the registry of the cluster.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::http::{Request, Response, send};
use serde_json::Value;

use super::forward::Forward;
use super::kubectl::Kubectl;

/// Where `e2e/kind/registry.yaml` puts it.
pub(super) const NAMESPACE: &str = "lanekeeper-e2e";
const SERVICE: &str = "registry.lanekeeper-e2e.svc.cluster.local:5000";
const REPOSITORY: &str = "lanekeeper";

/// Pushes an OCI image layout; returns the `oci://` URL with its digest.
pub(super) fn push(kubectl: &Kubectl, layout: &Path) -> Result<String> {
    let read = |name: &str| {
        let file = layout.join(name);
        fs::read(&file).with_context(|| file.display().to_string())
    };
    let blob = |digest: &str| read(&format!("blobs/{}", digest.replace(':', "/")));
    let index: Value = serde_json::from_slice(&read("index.json")?)?;
    let digest = text(&index["manifests"][0]["digest"])?;
    let manifest = blob(digest)?;
    let parts: Value = serde_json::from_slice(&manifest)?;

    let forward = Forward::start(kubectl, NAMESPACE, "service/registry", 5000)?;
    let layers = parts["layers"].as_array().into_iter().flatten();
    for part in layers.chain([&parts["config"]]) {
        let digest = text(&part["digest"])?;
        upload(&forward.address, digest, blob(digest)?)?;
    }
    let put = Request::new("PUT", &format!("/v2/{REPOSITORY}/manifests/{digest}"))
        .header("content-type", text(&parts["mediaType"])?)
        .body(manifest);
    created(send(&forward.address, &put)?)?;
    Ok(format!("oci://{SERVICE}/{REPOSITORY}@{digest}"))
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("the image layout is not complete")
}

fn created(response: Response) -> Result<()> {
    let (status, text) = (response.status, response.text());
    ensure!(status == 201, "the registry says {status} {text}");
    Ok(())
}

fn upload(registry: &str, digest: &str, bytes: Vec<u8>) -> Result<()> {
    let begin = Request::post(&format!("/v2/{REPOSITORY}/blobs/uploads/"), "");
    let begun = send(registry, &begin)?;
    let location = begun.headers.get("location");
    let location = location.with_context(|| format!("the registry says {}", begun.status))?;
    // Absolute or not.
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => location,
    };
    let separator = if path.contains('?') { '&' } else { '?' };
    let put = Request::new("PUT", &format!("{path}{separator}digest={digest}"))
        .header("content-type", "application/octet-stream")
        .body(bytes);
    created(send(registry, &put)?)
}
