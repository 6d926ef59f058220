//! The plugin as a whole: takes configurations, keeps the last good one in force.

use std::cell::RefCell;
use std::rc::Rc;

use lanekeeper_policy::{Judge, Policy, Sidecar, is_version_name};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::host::{self, LogLevel};
use crate::last_good;
use crate::metrics::{self, Error, Metrics};
use crate::quota;
use crate::request::RequestContext;

/// What is in force: shared by all requests that began under it.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) policy: Policy,
    pub(crate) metrics: Metrics,
    /// Judges by the quotas of the policy, if it has any.
    pub(crate) judge: Option<RefCell<Judge>>,
    /// The version of the pod whose sidecar this is.
    pub(crate) pod_version: Option<String>,
}

impl InForce {
    fn new(plugin: &str, policy: Policy) -> Rc<Self> {
        let pod_version = host::pod_version()
            .and_then(|version| String::from_utf8(version).ok())
            .filter(|version| is_version_name(version));
        let metrics = Metrics::define(&policy, pod_version.as_deref());
        if policy.sidecar().is_some_and(Sidecar::needs_version) && pod_version.is_none() {
            metrics.error(Error::PodVersion);
            host::log(
                LogLevel::Error,
                "lanekeeper: sidecar: the pod has no `version` label that is a DNS-1123 label: \
                 its requests are neither stamped nor checked",
            );
        }
        let judge = (!policy.quotas().is_empty()).then(|| RefCell::new(quota::judge(plugin)));
        Rc::new(Self {
            policy,
            metrics,
            judge,
            pod_version,
        })
    }
}

/// The root context: one configuration of a plugin.
///
/// Envoy hands requests to an older configuration, too: on connections that drain, and when a
/// configuration is pushed again while it still has requests; then without configuring it anew.
#[derive(Default)]
pub(crate) struct Plugin {
    name: String,
    /// What was pushed; `None` where it was refused.
    pushed: Option<Rc<InForce>>,
}

impl Plugin {
    /// What decides on the next request.
    fn in_force(&self) -> Rc<InForce> {
        let in_force = match &self.pushed {
            Some(pushed) => Rc::clone(pushed),
            None => last_good::in_force(&self.name, |policy| InForce::new(&self.name, policy)),
        };
        metrics::configured(&self.name, self.pushed.is_none(), &in_force.policy);
        in_force
    }
}

impl Context for Plugin {}

impl RootContext for Plugin {
    /// Never refuses: Envoy would answer every request with 500, on a new pod for good. A bad
    /// configuration leaves the last good one of this plugin in force.
    fn on_configure(&mut self, _size: usize) -> bool {
        self.name = host::plugin_name();
        let text = host::plugin_configuration();
        let refused = match Policy::from_json(&text, &host::env) {
            Ok(policy) => {
                let pushed = InForce::new(&self.name, policy);
                last_good::keep(&self.name, &text, &pushed);
                self.pushed = Some(pushed);
                None
            }
            Err(faults) => {
                self.pushed = None;
                Some(faults)
            }
        };
        let hash = self.in_force().policy.hash();
        let name = &self.name;
        if let Some(faults) = refused {
            let instead = match hash {
                0 => "requests pass to the baseline",
                _ => "the last good one stays in force",
            };
            let message =
                format!("lanekeeper: the policy of plugin {name} is refused, {instead}:\n{faults}");
            host::log(LogLevel::Error, &message);
        }
        let message = format!("lanekeeper: plugin {name}: policy {hash} is in force");
        host::log(LogLevel::Info, &message);
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RequestContext::new(self.in_force())))
    }
}
