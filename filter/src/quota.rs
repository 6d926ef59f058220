//! The quotas of a plugin: where their states lie, and how a refusal is told.

use lanekeeper_policy::{Headers, Host, Judge, Refusal};

use crate::host;
use crate::plugin::InForce;

/// The judge of a plugin. States lie under its name, so that two plugins of one Envoy do not count
/// into each other's; and outlive its configurations.
pub(crate) fn judge(plugin: &str) -> Judge {
    Judge::new(format!("lanekeeper/1/quota/{plugin}/"), seed())
}

/// What keys are hashed with: drawn by the first who needs it, the same for all workers.
fn seed() -> [u8; 16] {
    const KEY: &str = "lanekeeper/1/seed";
    let stored = || host::shared(KEY)?.try_into().ok();
    let draw = || {
        // Without entropy, at least nobody knows it to the nanosecond.
        let bits = host::entropy().unwrap_or_else(|| host::now().as_nanos().to_le_bytes());
        let (_, token) = host::shared_for_swap(KEY);
        host::swap_shared(KEY, &bits, token);
        stored().unwrap_or(bits)
    };
    stored().unwrap_or_else(draw)
}

/// The host as the judge sees it.
pub(crate) struct Workers;

impl Host for Workers {
    fn get(&mut self, key: &str) -> (Option<Vec<u8>>, u32) {
        host::shared_for_swap(key)
    }

    fn set(&mut self, key: &str, value: &[u8], token: u32) -> bool {
        host::swap_shared(key, value, token)
    }

    fn address(&mut self) -> Option<Vec<u8>> {
        host::client_address()
    }
}

/// Frees what the quotas of a plugin hold that its next policy has no use for.
pub(crate) fn clear(before: &InForce, next: &InForce) {
    let judge = before.judge.as_ref();
    let Some(judge) = judge.and_then(|judge| judge.try_borrow().ok()) else {
        return;
    };
    for quota in before.policy.quotas_gone_in(&next.policy) {
        for place in judge.places(quota) {
            if host::shared(&place).is_some() {
                host::clear_shared(&place);
            }
        }
    }
}

/// Tells a client that a quota refuses its request.
pub(crate) fn refuse(refusal: &Refusal<'_>, request: Headers<'_>) {
    let headers = refusal.headers();
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    // As Envoy sees it; gRPC-Web, for one, is not gRPC.
    let content = request.first("content-type").unwrap_or_default();
    let grpc = content == b"application/grpc" || content.starts_with(b"application/grpc+");
    if grpc {
        let metadata = headers.map(|(name, value)| (name, value.as_bytes()));
        host::refuse_grpc(&refusal.detail(), metadata.collect());
    } else {
        host::refuse(Refusal::STATUS, headers.collect(), &refusal.body());
    }
}
