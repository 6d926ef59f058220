//! The folder `monitoring/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lanekeeper_cli::read_document;
use serde_json::Value;

use crate::build;
use crate::prometheus_api::Api;

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

/// All rules: recording rules and alerts.
pub fn rules() -> Result<Vec<Value>> {
    let mut rules = Vec::new();
    for file in files("rules", "yaml")? {
        for group in list(&read_document(&file)?["groups"]) {
            rules.extend_from_slice(list(&group["rules"]));
        }
    }
    Ok(rules)
}

/// The dashboards, by the names of their files.
pub fn dashboards() -> Result<BTreeMap<String, Value>> {
    let mut dashboards = BTreeMap::new();
    for file in files("dashboards", "json")? {
        let name = file.file_stem().and_then(|name| name.to_str());
        let name = name.context("a name")?.to_owned();
        dashboards.insert(name, read_document(&file)?);
    }
    Ok(dashboards)
}

/// What there is to ask a Prometheus that runs the rules, each with its place: every recorded series, and
/// every panel when nothing is chosen, which looks back at `range` where Grafana would choose.
pub fn queries(range: &str) -> Result<Vec<(String, String)>> {
    let rules = rules()?;
    let records = rules.iter().filter_map(|rule| rule["record"].as_str());
    let mut queries: Vec<_> = records
        .map(|record| ("rules".to_owned(), record.to_owned()))
        .collect();
    for (name, dashboard) in dashboards()? {
        let variables = list(&dashboard["templating"]["list"])
            .iter()
            .filter_map(|variable| variable["name"].as_str());
        let variables: Vec<_> = variables.collect();
        for panel in list(&dashboard["panels"]) {
            for target in list(&panel["targets"]) {
                let query = target["expr"].as_str().context("a panel asks nothing")?;
                let mut query = query.replace("$__rate_interval", range);
                for variable in &variables {
                    query = query.replace(&format!("${variable}"), ".*");
                }
                queries.push((format!("{name}, {}", panel["title"]), query));
            }
        }
    }
    Ok(queries)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Those of [`queries`] that find nothing at the moment.
pub fn without_data(api: &Api, queries: &[(String, String)]) -> Result<Vec<String>> {
    let mut empty = Vec::new();
    for (place, query) in queries {
        let found = api.query(query).context(query.clone())?;
        if !found.iter().any(|(_, value)| value.is_finite()) {
            empty.push(format!("{place}: {query}"));
        }
    }
    Ok(empty)
}

/// A line of `metrics.md`.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Such as `counter`.
    pub kind: String,
    /// Its own labels, and those of the target that are named.
    pub labels: BTreeSet<String>,
    /// Who has it.
    pub exporter: String,
    /// Which rules and panels ask for it.
    pub used_by: BTreeSet<String>,
}

impl Metric {
    /// The names of its series.
    pub fn series(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind.as_str() {
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        let series = suffixes
            .iter()
            .map(|suffix| format!("{}{suffix}", self.name));
        series.collect()
    }
}

/// `metrics.md`.
pub fn page() -> Result<Vec<Metric>> {
    let page = fs::read_to_string(file("metrics.md"))?;
    let lines = page.lines().filter(|line| line.starts_with("| `"));
    let metrics = lines.map(|line| {
        let cells = line.trim_matches(['|', ' ']).split(" | ");
        let cells: Vec<_> = cells.map(str::trim).collect();
        let [name, kind, labels, _unit, exporter, used_by] = cells[..] else {
            bail!("six cells: {line}");
        };
        let used_by = used_by.split("; ").filter(|user| !user.is_empty());
        Ok(Metric {
            name: name.trim_matches('`').to_owned(),
            kind: kind.to_owned(),
            // Between quotes.
            labels: labels
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect(),
            exporter: exporter.to_owned(),
            used_by: used_by.map(str::to_owned).collect(),
        })
    });
    metrics.collect()
}

/// What is wrong on the page by what a Prometheus has: names, types, labels.
pub fn faults_of_page(api: &Api) -> Result<Vec<String>> {
    let page = page()?;
    let on_page: BTreeSet<_> = page.iter().flat_map(Metric::series).collect();
    let exported = exported_series(api)?;
    let difference = exported.symmetric_difference(&on_page);
    let mut faults: Vec<_> = difference
        .map(|series| format!("{series}: exported, or on the page, alone"))
        .collect();
    let types = api.ask("metadata", &[])?;
    for metric in &page {
        let name = &metric.name;
        // Of what is recorded, Prometheus knows no type.
        let kind = types[name][0]["type"].as_str().unwrap_or(&metric.kind);
        if kind != metric.kind {
            faults.push(format!("{name}: {kind}"));
        }
        let mut labels = BTreeSet::new();
        for series in metric.series() {
            let found = api.ask(
                "series",
                &[("match[]", &format!("{{__name__=\"{series}\"}}"))],
            )?;
            for series in list(&found) {
                labels.extend(
                    series
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| name.clone()),
                );
            }
        }
        let own = |labels: &BTreeSet<String>| {
            let own = labels
                .iter()
                .filter(|label| !OF_TARGETS.contains(&label.as_str()));
            own.cloned().collect::<BTreeSet<_>>()
        };
        let (written, found) = (own(&metric.labels), own(&labels));
        if written != found && exported.contains(&metric.series()[0]) {
            faults.push(format!("{name}: {found:?}"));
        }
    }
    Ok(faults)
}

/// Labels that are no metric's own: of targets, here or in a cluster, and of all histograms.
const OF_TARGETS: [&str; 10] = [
    "__name__",
    "job",
    "namespace",
    "instance",
    "lanekeeper",
    "pod",
    "container",
    "endpoint",
    "service",
    "le",
];

/// The names of the series that a Prometheus has, but for what Envoy and Prometheus say themselves.
fn exported_series(api: &Api) -> Result<BTreeSet<String>> {
    const OTHERS: [&str; 3] = ["envoy_", "scrape_", "ALERTS"];
    let names = api.names()?.into_iter();
    let is_ours = |name: &String| !OTHERS.iter().any(|other| name.starts_with(other));
    Ok(names.filter(is_ours).collect())
}
