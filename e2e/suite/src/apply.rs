//! Manifests, applied one after another to a running system.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result};
use lanekeeper_cli::read_documents;
use serde_json::Value;

use crate::cluster::{Changes, Cluster};

/// Applies the files that `names` lists, and says so.
pub(crate) fn follow(
    cluster: &mut dyn Cluster,
    names: impl BufRead,
    mut out: impl Write,
) -> Result<()> {
    let mut objects = BTreeMap::new();
    for (number, name) in names.lines().enumerate() {
        let name = name?;
        for object in read_documents(Path::new(&name))? {
            // Like `kubectl apply`: an object that is there already becomes what the file says.
            objects.insert(identity(&object).with_context(|| name.clone())?, object);
        }
        let changes = objects
            .values()
            .fold(Changes::to_nothing(), |changes, object| {
                changes.add(&object.to_string())
            });
        cluster.apply(&changes).with_context(|| name.clone())?;
        if number == 0 {
            writeln!(out, "gateway {}", cluster.gateway()?)?;
        }
        writeln!(out, "applied {name}")?;
        out.flush()?;
    }
    Ok(())
}

/// Kind, namespace and name.
fn identity(object: &Value) -> Result<[String; 3]> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or_default();
    Ok([
        text("/kind")
            .context("an object without a kind")?
            .to_owned(),
        namespace.to_owned(),
        text("/metadata/name")
            .context("an object without a name")?
            .to_owned(),
    ])
}
