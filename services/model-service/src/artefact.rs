//! Loading the model.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use sms::{Model, sha256};

/// Reads the artefact, checks that it is the expected one and that it is sound. Errors name the
/// file.
pub(crate) fn load(file: &Path, expected_sha256: Option<&str>) -> anyhow::Result<Model> {
    check(file, expected_sha256).with_context(|| format!("model artefact {}", file.display()))
}

fn check(file: &Path, expected_sha256: Option<&str>) -> anyhow::Result<Model> {
    let bytes = fs::read(file)?;
    if let Some(expected) = expected_sha256 {
        let actual = sha256(&bytes);
        ensure!(
            actual.eq_ignore_ascii_case(expected.trim()),
            "its SHA-256 is {actual}; MODEL_SHA256 allows only {expected}"
        );
    }
    Ok(Model::from_json(&bytes)?)
}
