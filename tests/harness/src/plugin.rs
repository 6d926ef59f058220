//! The files that Envoys read the filter and its policy from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::template;

/// The filter in one kind of Envoy.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    file: PathBuf,
    wasm: PathBuf,
    pushes: AtomicUsize,
}

impl Plugin {
    /// The plugin `name`, whose file lies in `dir`.
    pub fn new(name: &str, dir: &Path, wasm: &Path) -> Self {
        Self {
            name: name.to_owned(),
            file: dir.join(format!("{name}-plugin.yaml")),
            wasm: wasm.to_owned(),
            pushes: AtomicUsize::new(0),
        }
    }

    /// The file that Envoy reads.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Hands the text of a policy to Envoy, which takes it over at once; the filter judges it.
    pub fn push(&self, policy: &str) -> Result<()> {
        // Envoy does not configure a filter anew with a text that requests still run under. Space
        // makes each text another one, for the filter it is the same.
        let space = " ".repeat(self.pushes.fetch_add(1, Ordering::Relaxed));
        // JSON within YAML within quotes: a text in JSON is one in YAML, too.
        let policy = Value::from(format!("{policy}{space}")).to_string();
        let wasm = self.wasm.display().to_string();
        let plugin = template::file(
            "plugin.yaml",
            &[
                ("PLUGIN", self.name.as_str()),
                ("WASM_FILE", &wasm),
                ("POLICY", &policy),
            ],
        )?;
        // Envoy follows renames, and must not see half a file.
        let new = self.file.with_extension("new");
        fs::write(&new, plugin)
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}
