//! The plugin as a whole: takes configurations, keeps the last good one in force.

use std::rc::Rc;

use lanekeeper_policy::{Policy, is_version_name};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::host::{self, LogLevel};
use crate::metrics::{self, Error, Metrics};
use crate::request::RequestContext;

/// What is in force: shared by all requests that began under it.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) policy: Policy,
    pub(crate) metrics: Metrics,
    /// The version of the pod whose sidecar this is.
    pub(crate) pod_version: Option<String>,
}

/// The root context.
#[derive(Default)]
pub(crate) struct Plugin {
    in_force: Option<Rc<InForce>>,
}

impl Plugin {
    fn put_in_force(&mut self, policy: Policy) {
        let pod_version = host::pod_version()
            .and_then(|version| String::from_utf8(version).ok())
            .filter(|version| is_version_name(version));
        let in_force = InForce {
            metrics: Metrics::define(&policy, pod_version.as_deref()),
            policy,
            pod_version,
        };
        if in_force.policy.sidecar().is_some() && in_force.pod_version.is_none() {
            in_force.metrics.error(Error::PodVersion);
            host::log(
                LogLevel::Error,
                "lanekeeper: sidecar: the pod has no `version` label that is a DNS-1123 label: \
                 its requests are neither stamped nor checked",
            );
        }
        self.in_force = Some(Rc::new(in_force));
    }
}

impl Context for Plugin {}

impl RootContext for Plugin {
    /// Never refuses: Envoy would answer every request with 500, on a new pod for good. A bad
    /// configuration leaves the last good one of this plugin in force, in this Envoy: it is kept
    /// where other workers and later VMs find it.
    fn on_configure(&mut self, _size: usize) -> bool {
        let name = host::plugin_name();
        let key = format!("lanekeeper/1/policy/{name}");
        let pushed = host::plugin_configuration();
        let (policy, rejected) = match Policy::from_json(&pushed, &host::env) {
            Ok(policy) => {
                if host::set_shared(&key, &pushed).is_err() {
                    host::log(
                        LogLevel::Warn,
                        "lanekeeper: the policy cannot be kept for later",
                    );
                }
                (policy, false)
            }
            Err(faults) => {
                let last_good =
                    host::shared(&key).and_then(|kept| Policy::from_json(&kept, &host::env).ok());
                let instead = match &last_good {
                    Some(_) => "the last good one stays in force",
                    None => "requests pass to the baseline",
                };
                host::log(
                    LogLevel::Error,
                    &format!(
                        "lanekeeper: the policy of plugin {name} is refused, {instead}:\n{faults}"
                    ),
                );
                (last_good.unwrap_or_else(Policy::pass_through), true)
            }
        };
        let hash = policy.hash();
        self.put_in_force(policy);
        metrics::configured(&name, rejected, hash);
        host::log(
            LogLevel::Info,
            &format!("lanekeeper: plugin {name}: policy {hash} is in force"),
        );
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RequestContext::new(self.in_force.clone())))
    }
}
