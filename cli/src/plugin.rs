//! `lanekeeper plugin`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use lanekeeper_cli::{Image, Role, WasmPlugin};

use crate::Failure;

/// Print the WasmPlugin that brings a policy into an Istio mesh.
///
/// A faulty policy is refused, with all its faults, and so is one that does not fit the role. The
/// policy stands in the manifest as it was written. Environment variables that it names for secrets
/// become spec.vmConfig.env: the proxy must have them.
///
/// Where a role is not given, the policy tells: without a section sidecar it is the gateway's; one
/// that serves a shadow is the shadow's.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  lanekeeper plugin --policy gateway.yaml --image registry.example/lanekeeper@sha256:… > plugin.yaml
  lanekeeper plugin --policy gateway.yaml --namespace istio-ingress --selector istio=ingress --image …
  lanekeeper plugin --policy sidecar.yaml --role outbound --namespace shop --image …"
)]
pub(crate) struct Plugin {
    /// The policy; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// The image of the module, with its digest
    #[arg(long, value_name = "REF@sha256:DIGEST")]
    image: String,

    /// A Secret (kubernetes.io/dockerconfigjson) for the registry, in the namespace of the plugin
    #[arg(long, value_name = "NAME")]
    pull_secret: Option<String>,

    /// Accept an image that is named by a tag
    #[arg(long)]
    allow_tag: bool,

    /// What the plugin is there for
    #[arg(long, value_enum)]
    role: Option<RoleArg>,

    /// [default: istio-system for the gateway; else none, so that kubectl decides]
    #[arg(long)]
    namespace: Option<String>,

    /// [default: lanekeeper for the gateway, lanekeeper-outbound, lanekeeper-inbound,
    /// lanekeeper-shadow]
    #[arg(long)]
    name: Option<String>,

    /// A label of the pods; may be repeated [default: istio=ingressgateway for the gateway,
    /// serves=shadow for the shadow, else serves=own]
    #[arg(long = "selector", value_name = "KEY=VALUE", value_parser = label)]
    selector: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug)]
struct RoleArg(Role);

impl ValueEnum for RoleArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [RoleArg; 4] = [
            RoleArg(Role::Gateway),
            RoleArg(Role::Outbound),
            RoleArg(Role::Inbound),
            RoleArg(Role::Shadow),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Role::Gateway => "Decides on requests of users, at the ingress gateway",
            Role::Outbound => "Stamps calls that leave a pod",
            Role::Inbound => "Checks requests that reach a pod",
            Role::Shadow => "Guards the calls of a pod that gets copies of requests only",
        };
        Some(PossibleValue::new(self.0.name()).help(help))
    }
}

impl Plugin {
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let usage = |option: &str, reason: String| Failure::Usage(format!("{option}: {reason}"));
        let image =
            Image::parse(&self.image, self.allow_tag).map_err(|reason| usage("--image", reason))?;
        let written = lanekeeper_cli::find_one(&self.policy)?;
        let variables = written.needs()?;
        let (roles, because) = Role::of_policy(&written.document);
        let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        let role = match (self.role, roles) {
            (Some(RoleArg(role)), roles) if roles.contains(&role) => role,
            (Some(RoleArg(role)), _) => {
                let reason = format!(
                    "{role}: {} is a policy for {}: {because}",
                    written.label,
                    names.join(" or ")
                );
                return Err(usage("--role", reason));
            }
            (None, [role]) => *role,
            (None, _) => {
                let choices: Vec<String> =
                    names.iter().map(|name| format!("--role {name}")).collect();
                let reason = format!(
                    "missing: {} is a policy for both {}: say {}",
                    written.label,
                    names.join(" and "),
                    choices.join(" or ")
                );
                return Err(usage("--role", reason));
            }
        };
        let plugin = WasmPlugin {
            role,
            image,
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            selector: self.selector.clone(),
            pull_secret: self.pull_secret.clone(),
        };
        write!(out, "{}", plugin.manifest(&written, &variables))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label as in app=shop".to_owned()),
    }
}
