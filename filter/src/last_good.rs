//! The last good policy of each plugin, for when the next one is bad.
//!
//! It is kept twice: in this VM, because workers take pushes at their own pace and one must not be
//! thrown back by another that lags behind; and in shared data, where a new VM or worker finds it.

use std::cell::RefCell;
use std::rc::Rc;

use lanekeeper_policy::Policy;

use crate::host::{self, LogLevel};
use crate::plugin::InForce;
use crate::quota;

thread_local! {
    /// By the plugin's name; a VM has few.
    static HERE: RefCell<Vec<(String, Rc<InForce>)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a policy that was found good, compiled and as it was written.
pub(crate) fn keep(plugin: &str, text: &[u8], policy: &Rc<InForce>) {
    if let Some(before) = here(plugin) {
        quota::clear(&before, policy);
    }
    keep_here(plugin, policy);
    if host::set_shared(&key(plugin), text).is_err() {
        host::log(
            LogLevel::Warn,
            "lanekeeper: other workers cannot be told of the policy, should they need it",
        );
    }
}

/// The last policy of a plugin that was found good; the one that decides nothing if there is none.
pub(crate) fn in_force(plugin: &str, put: impl FnOnce(Policy) -> Rc<InForce>) -> Rc<InForce> {
    if let Some(here) = here(plugin) {
        return here;
    }
    let found = put(shared(plugin).unwrap_or_else(Policy::pass_through));
    keep_here(plugin, &found);
    found
}

fn here(plugin: &str) -> Option<Rc<InForce>> {
    HERE.with_borrow(|kept| {
        let mut of_plugin = kept.iter().filter(|(name, _)| name == plugin);
        of_plugin.next().map(|(_, here)| Rc::clone(here))
    })
}

fn keep_here(plugin: &str, policy: &Rc<InForce>) {
    HERE.with_borrow_mut(|kept| {
        kept.retain(|(name, _)| name != plugin);
        kept.push((plugin.to_owned(), Rc::clone(policy)));
    });
}

fn shared(plugin: &str) -> Option<Policy> {
    let text = host::shared(&key(plugin))?;
    // A secret that is gone since closes the override and nothing else: nobody knows this one.
    let unknown = || Some(format!("{:032x}", u128::from_be_bytes(host::entropy()?)));
    Policy::from_json(&text, &|name| host::env(name).or_else(unknown)).ok()
}

fn key(plugin: &str) -> String {
    format!("lanekeeper/1/policy/{plugin}")
}
