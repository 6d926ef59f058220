//! The folder `monitoring/`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build;

/// A file of `monitoring/`.
pub fn file(name: &str) -> PathBuf {
    build::workspace().join("monitoring").join(name)
}

/// The files of a folder of `monitoring/` with this extension, in the order of their names.
pub fn files(folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let folder = file(folder);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What `cargo xtask rules` writes to `monitoring/cluster/rules.yaml`: the rules as the operator of
/// Prometheus wants them, comments included.
pub fn prometheus_rule() -> Result<String> {
    let mut manifest = "# Made from monitoring/rules by `cargo xtask rules`: edit those.\n\
                        apiVersion: monitoring.coreos.com/v1\n\
                        kind: PrometheusRule\n\
                        metadata:\n  name: lanekeeper\n\
                        spec:\n  groups:\n"
        .to_owned();
    for path in files("rules", "yaml")? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (comment, groups) = text
            .split_once("groups:\n")
            .with_context(|| format!("{}: groups: is missing", path.display()))?;
        for line in comment.lines().chain(groups.lines()) {
            let indent = if line.is_empty() { "" } else { "  " };
            manifest += &format!("{indent}{line}\n");
        }
    }
    Ok(manifest)
}
