//! Policies and requests for tests.
#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;

use lanekeeper_policy::{Assignment, Decision, Headers, Host, Outcome, Policy, Request, Source};
use serde_json::{Value, json};

/// Noon of 2026-01-01 UTC, day 20,454.
pub(crate) const NOON: u64 = 1_767_268_800;
pub(crate) const TODAY: u64 = NOON / 86_400;
pub(crate) const DAY: u64 = 86_400;

/// The rollout of most tests: stable 90 (baseline), canary 10.
pub(crate) fn rollout() -> Value {
    json!({
        "name": "sms-checker",
        "hosts": ["sms-checker.local"],
        "versions": [
            { "name": "stable", "weight": 90, "baseline": true },
            { "name": "canary", "weight": 10 },
        ],
        "identity": [{ "header": "x-user", "trusted": true }, { "cookie": "visitor" }],
        "override": { "header": "x-experiment" },
    })
}

/// [`rollout`] with some fields changed.
pub(crate) fn rollout_with(changes: Value) -> Value {
    let mut rollout = rollout();
    for (key, value) in changes.as_object().expect("an object") {
        rollout[key] = value.clone();
    }
    rollout
}

pub(crate) fn compile(document: Value) -> Policy {
    Policy::compile(&document, &|_| None).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A policy of one rollout: [`rollout`] with some fields changed.
pub(crate) fn policy(changes: Value) -> Policy {
    compile(json!({ "rollouts": [rollout_with(changes)] }))
}

pub(crate) fn versions(stable: Value, canary: Value) -> Value {
    let mut versions = json!([
        { "name": "stable", "baseline": true },
        { "name": "canary" },
    ]);
    for (index, fields) in [stable, canary].into_iter().enumerate() {
        for (key, value) in fields.as_object().expect("an object") {
            versions[index][key] = value.clone();
        }
    }
    versions
}

/// All faults of a document, as text.
pub(crate) fn faults(document: Value) -> Vec<String> {
    match Policy::compile(&document, &|_| None) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

/// A request to sms-checker.local, as Envoy shows it.
pub(crate) fn get(headers: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    request("GET", "sms-checker.local", "/sms", headers)
}

pub(crate) fn request(
    method: &str,
    authority: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Vec<(String, Vec<u8>)> {
    let pseudo = [
        (":authority", authority),
        (":path", path),
        (":method", method),
        (":scheme", "http"),
    ];
    pseudo
        .iter()
        .chain(headers)
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// Decides at noon, with the visitor id 00…2a in store.
pub(crate) fn decide<'p>(policy: &'p Policy, request: &[(String, Vec<u8>)]) -> Decision<'p> {
    decide_at(policy, request, NOON)
}

pub(crate) fn decide_at<'p>(
    policy: &'p Policy,
    request: &[(String, Vec<u8>)],
    now: u64,
) -> Decision<'p> {
    let request = Request {
        headers: Headers::new(request),
        now,
    };
    policy.decide(request, &mut || Some(42u128.to_be_bytes()))
}

pub(crate) const MINTED: &str = "0000000000000000000000000000002a";

pub(crate) fn assignment(decision: &Decision<'_>) -> Assignment {
    match decision.outcome {
        Outcome::Assigned(assignment) => assignment,
        other => panic!("not assigned: {other:?}"),
    }
}

/// Version and source of a request.
pub(crate) fn assigned(policy: &Policy, headers: &[(&str, &str)]) -> (String, Source) {
    let request = get(headers);
    let decision = decide(policy, &request);
    let version = decision.version.expect("a version").to_owned();
    (version, assignment(&decision).source)
}

/// The user `user-0`, `user-1`, … who falls into canary's ten percent.
pub(crate) fn canary_user() -> String {
    user_in(9_000..10_000)
}

pub(crate) fn stable_user() -> String {
    user_in(0..9_000)
}

fn user_in(slots: std::ops::Range<u32>) -> String {
    (0..)
        .map(|n| format!("user-{n}"))
        .find(|user| slots.contains(&murmur_slot("sms-checker", user.as_bytes())))
        .expect("there is one")
}

/// The slot by MurmurHash3 x86_32 written down anew from its public description.
pub(crate) fn murmur_slot(rollout: &str, identity: &[u8]) -> u32 {
    let data = [rollout.as_bytes(), b":", identity].concat();
    let scramble = |k: u32| {
        k.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let mut hash = 0u32;
    let mut blocks = data.chunks_exact(4);
    for block in &mut blocks {
        let k = u32::from_le_bytes(block.try_into().expect("four bytes"));
        hash = (hash ^ scramble(k))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    let tail = blocks.remainder().iter().rev();
    hash ^= scramble(tail.fold(0, |k, byte| k << 8 | u32::from(*byte)));
    hash ^= data.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    (hash ^ hash >> 16) % 10_000
}

/// Shared data as Envoy keeps it.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) values: BTreeMap<String, (Vec<u8>, u32)>,
    /// The client's `ip:port`.
    pub(crate) address: String,
    /// How many races are lost to another worker from now on.
    pub(crate) lost_races: usize,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
}

impl Host for Shared {
    fn get(&mut self, key: &str) -> (Option<Vec<u8>>, u32) {
        self.reads += 1;
        match self.values.get(key) {
            Some((value, token)) => (Some(value.clone()), *token),
            None => (None, u32::MAX),
        }
    }

    fn set(&mut self, key: &str, value: &[u8], token: u32) -> bool {
        let current = self.values.get(key).map_or(u32::MAX, |(_, token)| *token);
        if token != current {
            return false;
        }
        if self.lost_races > 0 {
            self.lost_races -= 1;
            return false;
        }
        self.writes += 1;
        let next = if current == u32::MAX { 1 } else { current + 1 };
        self.values.insert(key.to_owned(), (value.to_vec(), next));
        true
    }

    fn address(&mut self) -> Option<Vec<u8>> {
        Some(self.address.clone().into_bytes())
    }
}
