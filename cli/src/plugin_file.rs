//! The file from which an Envoy without Istio reads the filter and its policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, io};

use serde_json::{Value, json};

use crate::template;

const TEMPLATE: &str = include_str!("../../envoy/plugin.yaml");

/// The environment variables that the filter gets to see: policies take their secrets from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Variables of Envoy's own environment.
    pub of_envoy: BTreeSet<String>,
    /// Variables that have their value in the plugin's configuration.
    pub values: BTreeMap<String, String>,
}

/// `envoy/plugin.yaml`, filled in.
#[derive(Debug)]
pub struct PluginFile {
    name: String,
    file: PathBuf,
    module: PathBuf,
    pushes: AtomicUsize,
}

impl PluginFile {
    /// The file of a plugin called `name` that runs `module`.
    pub fn new(name: &str, file: PathBuf, module: &Path) -> Self {
        Self {
            name: name.to_owned(),
            file,
            module: module.to_owned(),
            pushes: AtomicUsize::new(0),
        }
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that Envoy reads.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Hands the text of a policy to Envoy, which takes it over at once; the filter judges it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn push(&self, policy: &str, environment: &Environment) -> io::Result<()> {
        // Envoy does not configure a filter anew with a text that requests still run under. Space
        // makes each text another one, for the filter it is the same.
        let space = " ".repeat(self.pushes.fetch_add(1, Ordering::Relaxed));
        // JSON within YAML within quotes: a text in JSON is one in YAML, too.
        let policy = Value::from(format!("{policy}{space}"));
        let environment = json!({
            "host_env_keys": environment.of_envoy,
            "key_values": environment.values,
        });
        let filled = template::fill(TEMPLATE, &mut |name| match name {
            "PLUGIN" => Some(self.name.clone()),
            "WASM_FILE" => Some(self.module.display().to_string()),
            "ENVIRONMENT" => Some(environment.to_string()),
            "POLICY" => Some(policy.to_string()),
            _ => None,
        });
        let filled = filled.map_err(io::Error::other)?;
        // Envoy follows renames, and must not see half a file.
        let new = self.file.with_extension("new");
        fs::write(&new, filled).and_then(|()| fs::rename(&new, &self.file))
    }
}
