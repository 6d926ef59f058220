//! Which policies were in force, and when: only they explain that a user's version changes, or that
//! a request is refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lanekeeper_policy::{Headers, Policy, Request};

/// The policies of a gateway, and the time that goes by with them. A push takes a moment to reach
/// every worker of Envoy: until then, any request may meet the old policy or the new one.
#[derive(Debug, Default)]
pub(crate) struct Era(Mutex<History>);

#[derive(Debug, Default)]
struct History {
    /// Even for a time with one policy in force, odd while another one is on its way.
    now: usize,
    /// All that were ever pushed, in this order.
    policies: Vec<Arc<Policy>>,
}

impl Era {
    /// Begins with a policy in force.
    pub(crate) fn with(policy: Policy) -> Self {
        let policies = vec![Arc::new(policy)];
        Self(Mutex::new(History { now: 0, policies }))
    }

    pub(crate) fn now(&self) -> usize {
        self.history().now
    }

    /// A new policy is on its way.
    pub(crate) fn begin(&self, policy: Policy) {
        let mut history = self.history();
        history.policies.push(Arc::new(policy));
        history.now += 1;
    }

    /// The new policy is in force everywhere.
    pub(crate) fn settle(&self) {
        self.history().now += 1;
    }

    /// Whether a policy that may have been in force between two times sends the request to
    /// `version`.
    pub(crate) fn decided(
        &self,
        sent: usize,
        answered: usize,
        headers: Headers<'_>,
        version: &str,
    ) -> bool {
        let policies = self.policies(sent, answered);
        policies.iter().any(|policy| {
            let mut is_new = false;
            // The time of day only matters for the renewal of cookies.
            let request = Request { headers, now: 0 };
            let decision = policy.decide(request, &mut || {
                is_new = true;
                None
            });
            // Chance decides on those who are given a new visitor id.
            is_new || super::route_of(decision.version) == version
        })
    }

    /// Whether a policy that may have been in force between two times refuses by the quota `name`.
    pub(crate) fn refuses(&self, sent: usize, answered: usize, name: &str) -> bool {
        let policies = self.policies(sent, answered);
        let mut quotas = policies.iter().flat_map(|policy| policy.quotas());
        quotas.any(|quota| quota.name() == name && quota.enforcement() == "enforce")
    }

    /// The newest policy.
    pub(crate) fn newest(&self) -> Option<Arc<Policy>> {
        self.history().policies.last().cloned()
    }

    fn policies(&self, sent: usize, answered: usize) -> Vec<Arc<Policy>> {
        let history = self.history();
        let (first, last) = (sent / 2, answered.div_ceil(2));
        let policies = history.policies.iter().take(last + 1).skip(first);
        policies.cloned().collect()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOST: &str = "sms-checker.local";

    /// Everybody gets `version`, unless by their cookie.
    fn all(version: &str) -> Policy {
        let weight = |name: &str| if name == version { 100 } else { 0 };
        let policy = json!({ "rollouts": [{
            "name": "all",
            "hosts": [HOST],
            "versions": [
                { "name": "stable", "weight": weight("stable"), "baseline": true },
                { "name": "canary", "weight": weight("canary") },
            ],
            "identity": [{ "header": "x-user" }, { "cookie": "visitor" }],
        }]});
        Policy::compile(&policy, &|_| None).expect("a policy")
    }

    fn request(header: (&str, &str)) -> [(String, Vec<u8>); 3] {
        [(":authority", HOST), (":path", "/sms"), header]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    }

    #[test]
    fn while_a_policy_is_on_its_way_it_or_the_old_one_decides() {
        let era = Era::with(all("stable"));
        let alice = request(("x-user", "alice"));
        let decided = |sent, answered| {
            ["stable", "canary"]
                .map(|version| era.decided(sent, answered, Headers::new(&alice), version))
        };
        assert_eq!(decided(0, era.now()), [true, false]);
        era.begin(all("canary"));
        assert_eq!(decided(0, era.now()), [true, true]);
        assert_eq!(decided(1, era.now()), [true, true]);
        era.settle();
        assert_eq!(decided(1, era.now()), [true, true]);
        assert_eq!(decided(2, era.now()), [false, true]);
        era.begin(all("stable"));
        era.settle();
        assert_eq!(decided(2, era.now()), [true, true]);
        assert_eq!(decided(4, era.now()), [true, false]);
    }

    #[test]
    fn who_has_a_cookie_is_not_moved_by_weights() {
        let era = Era::with(all("stable"));
        era.begin(all("canary"));
        let known = request(("cookie", "visitor=1; app-version=stable.0.20833"));
        assert!(!era.decided(0, 1, Headers::new(&known), "canary"));
    }

    #[test]
    fn a_quota_refuses_while_it_is_enforced() {
        let quota = |enforcement: &str| {
            let quota = json!({
                "name": "per-user",
                "key": ["user"],
                "limit": 1,
                "period": "1m",
                "enforcement": enforcement,
            });
            Policy::compile(&json!({ "quotas": [quota] }), &|_| None).expect("a policy")
        };
        let era = Era::with(quota("enforce"));
        assert!(era.refuses(0, 0, "per-user"));
        assert!(!era.refuses(0, 0, "per-path"));
        era.begin(quota("observe"));
        assert!(era.refuses(1, 1, "per-user"));
        era.settle();
        assert!(era.refuses(1, 2, "per-user"));
        assert!(!era.refuses(2, 2, "per-user"));
        assert_eq!(era.newest().expect("a policy").quotas().len(), 1);
    }

    #[test]
    fn a_stranger_may_get_any_version() {
        let era = Era::with(all("stable"));
        let stranger = request(("accept", "*/*"));
        assert!(era.decided(0, 0, Headers::new(&stranger), "canary"));
    }
}
