//! What is compared: the HTTP filters before the router, and what they make of requests.

use std::path::Path;

use serde_json::{Value, json};

use super::load::Expected;

pub(crate) const HOST: &str = "bench.local";
/// The rollout, which salts the slots.
pub(crate) const ROLLOUT: &str = "bench";
/// The slots of stable, as assign.lua knows them, too.
pub(crate) const STABLE_SLOTS: u32 = 9000;

/// As many as an exact quota can have. The load makes far fewer requests of each user and path.
const LIMIT: u32 = 128;

pub(crate) const EMPTY: &str = "empty";
pub(crate) const WINDOW: &str = "window";
pub(crate) const PEER: &str = "lua-limit";

/// One of the things that are compared.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    filters: fn(&Modules) -> Vec<Value>,
    /// Whether users get their versions, and not everybody the baseline.
    assigns: bool,
    /// Whether users have spent what they may after one request.
    refuses: bool,
}

/// The compiled filters.
#[derive(Debug)]
pub(crate) struct Modules {
    pub(crate) lanekeeper: String,
    pub(crate) empty: String,
}

impl Modules {
    pub(crate) fn new(lanekeeper: &Path, empty: &Path) -> Self {
        let text = |path: &Path| path.display().to_string();
        Self {
            lanekeeper: text(lanekeeper),
            empty: text(empty),
        }
    }
}

pub(crate) const VARIANTS: [Variant; 8] = [
    Variant {
        name: "base",
        about: "no filter",
        filters: |_| Vec::new(),
        assigns: false,
        refuses: false,
    },
    Variant {
        name: EMPTY,
        about: "a wasm filter that does nothing",
        filters: |modules| vec![wasm(EMPTY, &modules.empty, &Value::Null)],
        assigns: false,
        refuses: false,
    },
    Variant {
        name: "rollout",
        about: "Lanekeeper: a rollout, no quotas",
        filters: |modules| vec![lanekeeper("rollout", modules, &[])],
        assigns: true,
        refuses: false,
    },
    Variant {
        name: WINDOW,
        about: "Lanekeeper: rollout, exact quotas per user and path",
        filters: |modules| {
            let quota =
                |key: &str| json!({ "limit": LIMIT, "period": "1s", "name": key, "key": [key] });
            vec![lanekeeper(WINDOW, modules, &[quota("user"), quota("path")])]
        },
        assigns: true,
        refuses: false,
    },
    Variant {
        name: "bucket",
        about: "Lanekeeper: the same quotas with algorithm: bucket",
        filters: |modules| {
            let quota = |key: &str| {
                json!({
                    "algorithm": "bucket", "limit": LIMIT, "burst": LIMIT, "period": "1s",
                    "name": key, "key": [key],
                })
            };
            vec![lanekeeper(
                "bucket",
                modules,
                &[quota("user"), quota("path")],
            )]
        },
        assigns: true,
        refuses: false,
    },
    Variant {
        name: "refused",
        about: "Lanekeeper: users who have spent their quota, answered 429",
        filters: |modules| {
            let quota = json!({ "limit": 1, "period": "1d", "name": "user", "key": ["user"] });
            vec![lanekeeper("refused", modules, &[quota])]
        },
        assigns: true,
        refuses: true,
    },
    Variant {
        name: "lua",
        about: "Lua: the assignment alone",
        filters: |_| vec![lua()],
        assigns: true,
        refuses: false,
    },
    Variant {
        name: PEER,
        about: "local_ratelimit per user and path, and Lua: the nearest peer",
        filters: |_| vec![local_ratelimit(), lua()],
        assigns: true,
        refuses: false,
    },
];

impl Variant {
    /// The HTTP filters before the router.
    pub(crate) fn filters(&self, modules: &Modules) -> Vec<Value> {
        (self.filters)(modules)
    }

    /// How many users there are. A flood comes from few.
    pub(crate) fn users(&self) -> usize {
        if self.refuses { 16 } else { 4000 }
    }

    /// What the first request of each user is answered.
    pub(crate) fn at_first(&self) -> Expected {
        Expected {
            status: 200,
            assigned: self.assigns,
        }
    }

    /// What all other requests are answered.
    pub(crate) fn later(&self) -> Expected {
        Expected {
            status: if self.refuses { 429 } else { 200 },
            ..self.at_first()
        }
    }
}

/// A wasm filter in a VM of its own, as each is on its own in an Envoy that is no bench.
fn wasm(name: &str, module: &str, configuration: &Value) -> Value {
    json!({
        "name": "wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "vm_config": {
                    "vm_id": name,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module } },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration.to_string(),
                },
            },
        },
    })
}

fn lanekeeper(name: &str, modules: &Modules, quotas: &[Value]) -> Value {
    wasm(name, &modules.lanekeeper, &policy(quotas))
}

fn policy(quotas: &[Value]) -> Value {
    json!({
        "rollouts": [{
            "name": ROLLOUT,
            "hosts": [HOST],
            "versions": [
                { "name": "stable", "weight": 90, "baseline": true },
                { "name": "canary", "weight": 10 },
            ],
            "identity": [{ "header": "x-user", "trusted": true }, { "cookie": "visitor" }],
            "override": { "header": "x-experiment" },
        }],
        "quotas": quotas,
    })
}

fn lua() -> Value {
    json!({
        "name": "lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": include_str!("assign.lua") },
        },
    })
}

/// Token buckets of the same size, made for each user and path that comes.
fn local_ratelimit() -> Value {
    let tokens = |tokens: u32| json!({ "max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "1s" });
    let action = |key: &str, header: &str| json!({ "actions": [{ "request_headers": { "descriptor_key": key, "header_name": header } }] });
    let descriptor =
        |key: &str| json!({ "entries": [{ "key": key }], "token_bucket": tokens(LIMIT) });
    let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
    json!({
        "name": "local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "local_ratelimit",
            "filter_enabled": always,
            "filter_enforced": always,
            // Of all requests together; Envoy wants one.
            "token_bucket": tokens(1_000_000_000),
            "rate_limits": [action("user", "x-user"), action("path", ":path")],
            "descriptors": [descriptor("user"), descriptor("path")],
            // More than users and paths there are.
            "max_dynamic_descriptors": 20_000,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_policy::Policy;

    #[test]
    fn the_policy_of_the_bench_is_good_and_assigns_as_assign_lua_does() {
        let quota = json!({ "limit": LIMIT, "period": "1s", "name": "user", "key": ["user"] });
        let policy = Policy::compile(&policy(&[quota]), &|_| None).expect("a policy");
        let [rollout] = policy.rollouts() else {
            panic!("{policy:?}");
        };
        let stable = (0..lanekeeper_policy::SLOTS)
            .filter(|slot| rollout.versions()[rollout.version_of_slot(*slot)].name() == "stable");
        assert!(stable.eq(0..STABLE_SLOTS));
    }
}
