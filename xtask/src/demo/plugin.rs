//! The files that Envoys read the filter and its policy from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::build;
use harness::template::render;
use serde_json::Value;

/// The filter in one kind of Envoy.
#[derive(Debug)]
pub(crate) struct Plugin {
    name: &'static str,
    file: PathBuf,
    wasm: PathBuf,
}

impl Plugin {
    /// The plugin `name`, whose file lies in `dir`.
    pub(crate) fn new(name: &'static str, dir: &Path, wasm: &Path) -> Self {
        Self {
            name,
            file: dir.join(format!("{name}-plugin.yaml")),
            wasm: wasm.to_owned(),
        }
    }

    /// The file that Envoy reads.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Hands a policy to Envoy, which takes it over at once.
    pub(crate) fn push(&self, policy: &Value) -> Result<()> {
        // JSON within YAML within quotes: a text in JSON is one in YAML, too.
        let policy = serde_json::to_string(&policy.to_string())?;
        let wasm = self.wasm.display().to_string();
        let plugin = template(
            "plugin.yaml",
            &[
                ("PLUGIN", self.name),
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

/// A file of `envoy/` with its placeholders filled in.
pub(crate) fn template(name: &str, values: &[(&str, &str)]) -> Result<String> {
    let file = build::workspace().join("envoy").join(name);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    render(&text, values).with_context(|| file.display().to_string())
}
