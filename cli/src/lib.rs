//! Reads policies from files: plain ones, and those inside WasmPlugin manifests. And judges
//! experiments ([`verdict`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use lanekeeper_policy::{Fault, Policy};
use serde_json::Value;

mod describe;
mod plugin_file;
mod read;
pub mod template;
pub mod verdict;
mod wasm_plugin;

pub use describe::limit_of;
pub use plugin_file::{Environment as PluginEnvironment, PluginFile};
pub use read::{file_name, read_document, read_documents, read_text};
pub use wasm_plugin::{Image, Role, WasmPlugin};

/// Why a file holds no policy. Displayed as one line for each fault, which begins with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file cannot be read, or is not YAML.
    Unreadable {
        /// The file, with line and column (`policy.yaml:3:7`) where they are known.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The file was read, and holds something else than a policy.
    Faulty {
        /// The file.
        file: String,
        /// All faults, in the order of the document.
        faults: Vec<Fault>,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { place, reason } => write!(f, "{place}: {reason}"),
            Self::Faulty { file, faults } => {
                for (index, fault) in faults.iter().enumerate() {
                    let end = if index > 0 { "\n" } else { "" };
                    write!(f, "{end}{file}: {fault}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Looks up the environment variables that a policy names for its secrets.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads and compiles the one policy of a file (YAML or JSON; `-` is the standard input), which may
/// be inside a WasmPlugin manifest. Returns its document and the policy.
///
/// # Errors
/// The file cannot be read, holds no policy or several, or a policy with faults.
pub fn load(path: &Path, env: Environment<'_>) -> Result<(Value, Policy), LoadError> {
    let written = find_one(path)?;
    let policy = written.compile(env)?;
    Ok((written.document, policy))
}

/// The one policy of a file, which may be inside a WasmPlugin manifest.
///
/// # Errors
/// The file cannot be read, or holds no policy or several.
pub fn find_one(path: &Path) -> Result<Written, LoadError> {
    let mut found = find(path)?;
    match (found.pop(), found.is_empty()) {
        (Some(written), true) => Ok(written),
        _ => Err(faulty(
            file_name(path),
            "policy",
            "several",
            "a file with one policy",
        )),
    }
}

/// A policy as it stands in a file.
#[derive(Debug)]
pub struct Written {
    /// The file, and which of its manifests where there are several with a policy.
    pub label: String,
    /// The policy's document.
    pub document: Value,
    /// The text of a policy that has the file to itself.
    text: Option<String>,
    /// Where it stands in its manifest; empty for a policy by itself.
    path: &'static str,
    /// The environment that the manifest gives the plugin; `None` for a policy by itself.
    env: Option<BTreeMap<String, Variable>>,
}

#[derive(Debug)]
enum Variable {
    /// Written in the manifest.
    Inline(String),
    /// Taken from the proxy's environment.
    Host,
}

const PLUGIN_CONFIG: &str = "spec.pluginConfig";
const API_VERSION: &str = "extensions.istio.io/v1alpha1";

/// The policies of a file, at least one; manifests of other kinds beside them are passed over.
///
/// # Errors
/// The file cannot be read, or there is no policy in it.
pub fn find(path: &Path) -> Result<Vec<Written>, LoadError> {
    let file = file_name(path);
    let text = read_text(path)?;
    let documents = read::parse(&file, &text)?;
    let alone = documents.len() == 1;
    let mut found = Vec::new();
    let mut other_kind = None;
    for document in documents {
        match document.get("kind") {
            None => found.push(Written {
                label: file.clone(),
                document,
                text: alone.then(|| text.clone()),
                path: "",
                env: None,
            }),
            Some(kind) if kind == "WasmPlugin" => found.push(of_manifest(&file, &document)?),
            Some(kind) => other_kind = Some(kind.to_string()),
        }
    }
    if found.is_empty() {
        let allowed = "WasmPlugin, or a policy without kind";
        return Err(match other_kind {
            Some(kind) => faulty(file, "kind", &kind, allowed),
            None => faulty(file, "policy", "empty", "a policy or a WasmPlugin manifest"),
        });
    }
    if found.len() == 1 {
        // There is nothing to tell apart.
        for written in &mut found {
            written.label.clone_from(&file);
        }
    }
    Ok(found)
}

fn of_manifest(file: &str, manifest: &Value) -> Result<Written, LoadError> {
    let name = manifest.pointer("/metadata/name").and_then(Value::as_str);
    let label = match name {
        Some(name) => format!("{file} (WasmPlugin {name})"),
        None => format!("{file} (WasmPlugin)"),
    };
    let api_version = manifest.get("apiVersion").unwrap_or(&Value::Null);
    if api_version != API_VERSION {
        return Err(faulty(
            label,
            "apiVersion",
            &api_version.to_string(),
            API_VERSION,
        ));
    }
    let Some(document) = manifest.pointer("/spec/pluginConfig") else {
        return Err(faulty(label, PLUGIN_CONFIG, "missing", "a policy"));
    };
    let variables = manifest
        .pointer("/spec/vmConfig/env")
        .and_then(Value::as_array);
    let env = variables.into_iter().flatten().filter_map(|variable| {
        let name = variable.get("name")?.as_str()?.to_owned();
        let host = variable.get("valueFrom").is_some_and(|from| from == "HOST");
        let value = variable.get("value").and_then(Value::as_str);
        let variable = if host {
            Variable::Host
        } else {
            Variable::Inline(value.unwrap_or_default().to_owned())
        };
        Some((name, variable))
    });
    Ok(Written {
        label,
        document: document.clone(),
        text: None,
        path: PLUGIN_CONFIG,
        env: Some(env.collect()),
    })
}

fn faulty(file: String, path: &str, value: &str, allowed: &str) -> LoadError {
    LoadError::Faulty {
        file,
        faults: vec![Fault {
            path: path.to_owned(),
            value: value.to_owned(),
            allowed: allowed.to_owned(),
        }],
    }
}

impl Written {
    /// The environment variables whose values the manifest itself gives to the plugin.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.env.iter().flatten();
        variables.filter_map(|(name, variable)| match variable {
            Variable::Inline(value) => Some((name.as_str(), value.as_str())),
            Variable::Host => None,
        })
    }

    /// The environment variables that the policy names for its secrets.
    ///
    /// # Errors
    /// All faults of the policy.
    pub fn needs(&self) -> Result<Vec<String>, LoadError> {
        let asked = RefCell::new(BTreeSet::new());
        self.compile(&|name| {
            asked.borrow_mut().insert(name.to_owned());
            Some("set".to_owned())
        })?;
        Ok(asked.into_inner().into_iter().collect())
    }

    /// The environment that the filter needs for this policy, where it is not in a mesh.
    ///
    /// # Errors
    /// All faults of the policy.
    pub fn environment(&self) -> Result<PluginEnvironment, LoadError> {
        let values = self.variables();
        Ok(PluginEnvironment {
            of_envoy: self.needs()?.into_iter().collect(),
            values: values
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// Compiles the policy. `env` stands for the environment of the proxy; a manifest says itself
    /// which of it the plugin gets to see.
    ///
    /// # Errors
    /// All faults of the policy.
    pub fn compile(&self, env: Environment<'_>) -> Result<Policy, LoadError> {
        let visible = |name: &str| match &self.env {
            None => env(name),
            Some(variables) => match variables.get(name)? {
                Variable::Inline(value) => Some(value.clone()),
                Variable::Host => env(name),
            },
        };
        Policy::compile(&self.document, &visible).map_err(|faults| LoadError::Faulty {
            file: self.label.clone(),
            faults: faults.iter().map(|fault| self.explain(fault)).collect(),
        })
    }

    /// The fault as it looks from the file.
    fn explain(&self, fault: &Fault) -> Fault {
        let mut explained = fault.clone();
        if !self.path.is_empty() {
            explained.path = match fault.path.as_str() {
                "policy" => self.path.to_owned(),
                path => format!("{}.{path}", self.path),
            };
        }
        explained
    }
}
