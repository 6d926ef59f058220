//! WasmPlugin manifests for policies.

use std::fmt;

use serde_json::{Value, json};

use crate::read;
use crate::{API_VERSION, Written};

/// What a plugin is there for. One policy serves one of these; that of a pod's own version serves
/// both directions, by a manifest each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides on requests of users, at the ingress gateway.
    Gateway,
    /// Stamps calls that leave a pod.
    Outbound,
    /// Checks requests that reach a pod.
    Inbound,
    /// Guards the calls of a pod that gets copies of requests only.
    Shadow,
}

impl Role {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Shadow => "shadow",
        }
    }

    /// The roles that a policy can be used in, and what the policy is.
    pub fn of_policy(policy: &Value) -> (&'static [Self], &'static str) {
        match policy.get("sidecar").map(|sidecar| &sidecar["serves"]) {
            None => (&[Self::Gateway], "it has no section sidecar"),
            Some(serves) if serves == "shadow" => (&[Self::Shadow], "it says serves: shadow"),
            Some(_) if policy["sidecar"]["stamp"].is_array() => (
                &[Self::Outbound, Self::Inbound],
                "it is for pods that serve a version",
            ),
            Some(_) => (&[Self::Inbound], "it stamps nothing"),
        }
    }

    fn defaults(self) -> Defaults {
        match self {
            Self::Gateway => Defaults {
                name: "lanekeeper",
                namespace: Some("istio-system"),
                selector: ("istio", "ingressgateway"),
                mode: None,
                phase: Some((
                    "AUTHZ",
                    "\
After Istio's authentication, so that a header made from a verified token (RequestAuthentication,
outputClaimToHeaders) can name the user, and before its authorization, which so can see the
version. Among plugins of this phase the greater priority comes first: what sets x-user needs more.",
                )),
                fail: (
                    "FAIL_OPEN",
                    "\
Without the module users are still served: by the version header they send, else the baseline,
and without quotas. FAIL_CLOSE answers 403 to everybody instead.",
                ),
            },
            Self::Outbound => Defaults {
                name: "lanekeeper-outbound",
                namespace: None,
                selector: ("serves", "own"),
                mode: Some(("CLIENT", "Calls that leave the pod.")),
                phase: None,
                fail: (
                    "FAIL_OPEN",
                    "Without the module calls leave unstamped; routes by sourceLabels keep the versions apart.",
                ),
            },
            Self::Inbound => Defaults {
                name: "lanekeeper-inbound",
                namespace: None,
                selector: ("serves", "own"),
                mode: Some((
                    "SERVER",
                    "\
Requests that reach the pod; without a phase, the plugin comes last and sees those alone that
authorization let pass.",
                )),
                phase: None,
                fail: (
                    "FAIL_OPEN",
                    "Without the module nothing is checked. It is a check: it is not worth an outage.",
                ),
            },
            Self::Shadow => Defaults {
                name: "lanekeeper-shadow",
                namespace: None,
                selector: ("serves", "shadow"),
                mode: Some(("CLIENT", "Calls that leave the pod.")),
                phase: None,
                fail: (
                    "FAIL_CLOSE",
                    "\
Without the module the pod's calls are answered 403: better none than one that changes something.
The copies that it gets still reach it, and no user waits for it.",
                ),
            },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a role is unless it is said otherwise; texts are comments.
struct Defaults {
    name: &'static str,
    namespace: Option<&'static str>,
    selector: (&'static str, &'static str),
    mode: Option<(&'static str, &'static str)>,
    phase: Option<(&'static str, &'static str)>,
    fail: (&'static str, &'static str),
}

/// The image of the plugin, such as `registry.example/lanekeeper@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(String);

impl Image {
    /// Reads a reference, with or without `oci://`. Only one with a digest names the same module for
    /// ever; `allow_tag` takes others as well.
    ///
    /// # Errors
    /// What is wrong with the reference.
    pub fn parse(text: &str, allow_tag: bool) -> Result<Self, String> {
        let reference = text.strip_prefix("oci://").unwrap_or(text);
        let (tagged, digest) = match reference.split_once('@') {
            Some((tagged, digest)) => (tagged, Some(digest)),
            None => (reference, None),
        };
        let well_formed = tagged.split('/').all(|part| !part.is_empty())
            && tagged.contains('/')
            && tagged
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-/:[]".contains(&b));
        if !well_formed {
            return Err(format!(
                "{text}: an image such as registry.example/lanekeeper@sha256:<64 hexadecimal digits>"
            ));
        }
        match digest {
            Some(digest) if is_sha256(digest) => {}
            Some(digest) => {
                return Err(format!(
                    "{text}: {digest} is no digest: sha256: and 64 of 0-9 and a-f"
                ));
            }
            None if allow_tag => {}
            None => {
                let (folder, name) = reference.rsplit_once('/').unwrap_or(("", reference));
                let name = name.split(':').next().unwrap_or_default();
                return Err(format!(
                    "{text}: has no digest. A tag can come to mean another image, and proxies that \
                     have the old one in their cache go on with it while new ones fetch the new: \
                     two policies of two modules at once. Name it as \
                     {folder}/{name}@sha256:<64 hexadecimal digits>, or say --allow-tag"
                ));
            }
        }
        Ok(Self(reference.to_owned()))
    }
}

fn is_sha256(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.0)
    }
}

/// A WasmPlugin to be written.
#[derive(Clone, Debug)]
pub struct WasmPlugin {
    /// What it is there for.
    pub role: Role,
    /// The module.
    pub image: Image,
    /// Instead of the role's name.
    pub name: Option<String>,
    /// Instead of the role's namespace, if it has one.
    pub namespace: Option<String>,
    /// Instead of the role's selector: labels of the pods.
    pub selector: Vec<(String, String)>,
    /// A Secret with credentials for the registry, in the plugin's namespace.
    pub pull_secret: Option<String>,
}

impl WasmPlugin {
    /// The plugin of a role, as it is by default.
    pub fn new(role: Role, image: Image) -> Self {
        Self {
            role,
            image,
            name: None,
            namespace: None,
            selector: Vec::new(),
            pull_secret: None,
        }
    }

    /// The manifest as YAML, with comments. `variables` are those that the policy needs; they come
    /// from the proxy's environment. The policy stands in it as it was written, comments included,
    /// where that can be; else as JSON.
    pub fn manifest(&self, policy: &Written, variables: &[String]) -> String {
        with_policy(&self.head(variables), policy)
    }

    /// A manifest that was printed before, with this image and policy. All else stays, also what
    /// somebody changed in it, such as `failStrategy`.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn renew(
        manifest: &str,
        image: &Image,
        policy: &Written,
        variables: &[String],
    ) -> Result<String, String> {
        let printed = "what `lanekeeper plugin` prints; print it anew";
        let (head, _) = manifest
            .split_once("\n  pluginConfig:\n")
            .ok_or(format!("spec.pluginConfig: missing: {printed}"))?;
        if let Some(variable) = variables
            .iter()
            .find(|name| !head.contains(host_variable(name).trim_end()))
        {
            return Err(format!(
                "spec.vmConfig.env: lacks {variable}, which the policy names: {printed}"
            ));
        }
        let (before, url) = head
            .split_once("\n  url: ")
            .ok_or(format!("spec.url: missing: {printed}"))?;
        let after = url.split_once('\n').map_or("", |(_, after)| after);
        let head = format!("{before}\n  url: {image}\n{after}\n  pluginConfig:\n");
        Ok(with_policy(&head, policy))
    }

    fn head(&self, variables: &[String]) -> String {
        let defaults = self.role.defaults();
        let name = self.name.as_deref().unwrap_or(defaults.name);
        let mut text = format!(
            "apiVersion: {API_VERSION}\nkind: WasmPlugin\nmetadata:\n  name: {}\n",
            scalar(name)
        );
        if let Some(namespace) = self.namespace.as_deref().or(defaults.namespace) {
            text += &format!("  namespace: {}\n", scalar(namespace));
        }
        let (key, value) = defaults.selector;
        let by_default = [(key.to_owned(), value.to_owned())];
        let selector = match self.selector.as_slice() {
            [] => &by_default,
            selector => selector,
        };
        let labels: Vec<String> = selector
            .iter()
            .map(|(key, value)| format!("{}: {}", scalar(key), scalar(value)))
            .collect();
        text += &format!(
            "spec:\n  selector:\n    matchLabels: {{ {} }}\n",
            labels.join(", ")
        );
        if let Some((mode, why)) = defaults.mode {
            text += &format!("{}  match: [{{ mode: {mode} }}]\n", comment(why));
        }
        text += &format!("  url: {}\n", self.image);
        if let Some(secret) = &self.pull_secret {
            text += &format!("  imagePullSecret: {}\n", scalar(secret));
        }
        if let Some((phase, why)) = defaults.phase {
            text += &format!("{}  phase: {phase}\n  priority: 10\n", comment(why));
        }
        let (strategy, why) = defaults.fail;
        text += &format!("{}  failStrategy: {strategy}\n", comment(why));
        if !variables.is_empty() {
            text += &comment("The secrets of the policy are in the environment of the proxy.");
            text += "  vmConfig:\n    env:\n";
            for variable in variables {
                text += &host_variable(variable);
            }
        }
        text += "  pluginConfig:\n";
        text
    }
}

fn with_policy(head: &str, policy: &Written) -> String {
    if let Some(text) = &policy.text {
        let manifest = format!("{head}{}", indented(text));
        let meant = read::parse("", &format!("{head}    {}\n", policy.document));
        if meant.is_ok_and(|meant| read::parse("", &manifest) == Ok(meant)) {
            return manifest;
        }
    }
    format!("{head}{}", indented(&format!("{:#}", policy.document)))
}

fn host_variable(name: &str) -> String {
    format!("    - {{ name: {}, valueFrom: HOST }}\n", scalar(name))
}

fn comment(text: &str) -> String {
    text.lines().map(|line| format!("  # {line}\n")).collect()
}

fn indented(text: &str) -> String {
    let line = |line: &str| match line.trim_end() {
        "" => "\n".to_owned(),
        line => format!("    {line}\n"),
    };
    text.lines().map(line).collect()
}

/// A text that YAML reads as a text.
fn scalar(text: &str) -> String {
    let plain = read::parse("", &format!("a: {text}\n"));
    let flow_safe = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    if flow_safe && plain == Ok(vec![json!({ "a": text })]) {
        text.to_owned()
    } else {
        json!(text).to_string()
    }
}
