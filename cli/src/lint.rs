//! `lanekeeper lint`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use lanekeeper_cli::{LoadError, Written};
use lanekeeper_policy::{Policy, Rollout};
use serde_json::Value;

use crate::Failure;

/// Check policies: every fault, one per line, before a cluster or an Envoy sees them.
///
/// A FILE is a policy in YAML or JSON, or a manifest (several documents are fine) with WasmPlugins,
/// whose spec.pluginConfig is checked. For each good policy a line says what it holds: its hash (the
/// value of the metric lanekeeper_config_hash), the rollouts with their hosts, the versions with their
/// share of the slots, and the quotas. Faults go to the standard error as
/// `FILE: path: value: what is allowed`.
///
/// Secrets: an environment variable that a policy names need not be set here, it counts as set. Of
/// a WasmPlugin it is checked that spec.vmConfig.env hands the variable on.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  lanekeeper lint policy.yaml
  kustomize build istio | lanekeeper lint -
  lanekeeper lint --print json policy.yaml      # for Envoy without Istio"
)]
pub(crate) struct Lint {
    /// Files to check; `-` is the standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Print each good policy instead of saying what it holds
    #[arg(long, value_enum, value_name = "FORMAT")]
    print: Option<Print>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Print {
    /// The policy as JSON on one line: the `value` of the google.protobuf.StringValue in Envoy's
    /// wasm `configuration`
    Json,
}

impl Lint {
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let mut code = ExitCode::SUCCESS;
        for file in &self.files {
            let found = match lanekeeper_cli::find(file) {
                Ok(found) => found,
                Err(error) => {
                    eprintln!("{error}");
                    code = ExitCode::FAILURE;
                    continue;
                }
            };
            for written in &found {
                match self.check(written) {
                    Ok(line) => writeln!(out, "{line}")?,
                    Err(error) => {
                        eprintln!("{error}");
                        code = ExitCode::FAILURE;
                    }
                }
            }
        }
        Ok(code)
    }

    fn check(&self, written: &Written) -> Result<String, LoadError> {
        let policy = written.compile(&|_| Some("set".to_owned()))?;
        Ok(match self.print {
            Some(Print::Json) => written.document.to_string(),
            None => format!(
                "{}: ok: {}",
                written.label,
                summary(&policy, &written.document)
            ),
        })
    }
}

pub(crate) fn summary(policy: &Policy, document: &Value) -> String {
    let mut parts = vec![format!("hash {}", policy.hash())];
    for (index, rollout) in policy.rollouts().iter().enumerate() {
        let hosts: Vec<&str> = crate::assign::strings(document, index, "hosts").collect();
        parts.push(format!(
            "rollout {} on {}: {}",
            rollout.name(),
            hosts.join(", "),
            versions(rollout)
        ));
    }
    for quota in policy.quotas() {
        let limit = lanekeeper_cli::limit_of(quota);
        parts.push(format!("quota {}: {limit}", quota.name()));
    }
    if let Some(sidecar) = policy.sidecar() {
        let names: Vec<&str> = sidecar.versions().iter().map(String::as_str).collect();
        parts.push(match names.as_slice() {
            [] => "sidecar".to_owned(),
            names => format!("sidecar with versions {}", names.join(", ")),
        });
    }
    parts.join("; ")
}

fn versions(rollout: &Rollout) -> String {
    let described = rollout.versions().iter().zip(rollout.slots()).enumerate();
    let described = described.map(|(index, (version, slots))| {
        let role = match version.state() {
            "live" if index == rollout.baseline() => " (baseline)".to_owned(),
            "live" => String::new(),
            state => format!(" ({state})"),
        };
        format!("{} {}%{role}", version.name(), percent(slots))
    });
    described.collect::<Vec<_>>().join(", ")
}

/// A number of slots as a share of all, without needless zeros.
fn percent(slots: u32) -> String {
    let text = format!("{}.{:02}", slots / 100, slots % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
