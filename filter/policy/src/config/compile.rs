//! Turns the document into a policy; what only shows between several fields is checked here.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;

use super::document::{
    Document, IdentityDocument, OnMismatch, OverrideDocument, RolloutDocument, Serves,
    SidecarDocument, State, Stickiness, VersionDocument,
};
use super::fault::Faults;
use crate::policy::{Identity, IdentitySource, Override, Policy, Rollout, Route, Secret, Version};
use crate::sidecar::Sidecar;
use crate::slot::{SLOTS, SlotRange};

/// Looks up environment variables.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn policy(document: Document, env: Environment<'_>, faults: &mut Faults) -> Policy {
    if document.rollouts.is_empty() && document.sidecar.is_none() && faults.is_empty() {
        faults.add_text("policy", "{}", "at least one of rollouts and sidecar");
    }
    same_name_same_versions(&document.rollouts, faults);
    no_route_twice(&document.rollouts, faults);

    let mut routes = Vec::new();
    let mut rollouts = Vec::new();
    for (index, document) in document.rollouts.into_iter().enumerate() {
        let path = format!("rollouts[{index}]");
        for host in &document.hosts {
            for prefix in &document.path_prefixes {
                routes.push(Route {
                    host: host.clone(),
                    prefix: prefix.0.clone(),
                    rollout: index,
                });
            }
        }
        rollouts.push(rollout(document, &path, env, faults));
    }
    // Best host first, then the longest prefix: the first match is the right one.
    routes.sort_unstable_by_key(|route: &Route| {
        Reverse((route.host.specificity(), route.prefix.len()))
    });
    let sidecar = document
        .sidecar
        .map(|sidecar| self::sidecar(sidecar, &rollouts));
    Policy::new(rollouts, routes, sidecar)
}

fn rollout(
    document: RolloutDocument,
    path: &str,
    env: Environment<'_>,
    faults: &mut Faults,
) -> Rollout {
    let at = |field: &str| format!("{path}.{field}");
    for (field, empty) in [
        ("hosts", document.hosts.is_empty()),
        ("pathPrefixes", document.path_prefixes.is_empty()),
        ("versions", document.versions.is_empty()),
        ("identity", document.identity.is_empty()),
    ] {
        if empty && faults.none_under(&at(field)) {
            faults.add_text(&at(field), "[]", "a list of at least one");
        }
    }
    if let Some(domain) = &document.cookie.domain {
        for host in &document.hosts {
            if !host.within(&domain.0) && faults.none_under(&at("hosts")) {
                let allowed = format!(
                    "a domain that every host of the rollout belongs to (browsers drop the cookie on {host})"
                );
                faults.add(
                    &at("cookie.domain"),
                    Value::from(domain.0.as_str()),
                    allowed,
                );
            }
        }
    }
    let (baseline, ranges) = slots(&document, &at("versions"), faults);
    let versions = document
        .versions
        .iter()
        .map(|version| Version {
            name: version.name.0.clone(),
            state: version.state,
        })
        .collect();
    let identity = identity(&document.identity, &at("identity"), faults);
    if let Some(cookie) = identity.iter().position(|entry| {
        matches!(&entry.source, IdentitySource::Cookie(name) if *name == document.cookie.name.0)
    }) {
        faults.add(
            &format!("{path}.identity[{cookie}].cookie"),
            Value::from(document.cookie.name.0.as_str()),
            "another name than the version cookie's (cookie.name)",
        );
    }
    Rollout {
        name: document.name.0,
        versions,
        baseline,
        ranges,
        identity,
        stickiness: document.stickiness,
        epoch: document.epoch,
        cookie_name: document.cookie.name.0,
        cookie_max_age: document.cookie.max_age.0,
        cookie_domain: document.cookie.domain.map(|domain| domain.0),
        override_by: document
            .r#override
            .map(|by| override_by(by, &at("override"), env, faults)),
        client_header: document.client_header,
        on_missing: document.on_missing,
        exempt: document.exempt.into_iter().map(|prefix| prefix.0).collect(),
        cache_control: document.cache_control,
    }
}

/// The index of the baseline, and who owns which slots; slots that nobody owns are left out.
fn slots(
    rollout: &RolloutDocument,
    path: &str,
    faults: &mut Faults,
) -> (usize, Vec<(SlotRange, usize)>) {
    let versions = &rollout.versions;
    let nothing = (0, Vec::new());
    if versions.is_empty() || !faults.none_under(path) {
        return nothing;
    }
    for (index, version) in versions.iter().enumerate() {
        if versions
            .iter()
            .take(index)
            .any(|other| other.name == version.name)
        {
            let at = format!("{path}[{index}].name");
            faults.add(
                &at,
                Value::from(version.name.0.as_str()),
                "a name used only once",
            );
        }
        if version.state == State::Draining && rollout.stickiness == Stickiness::Identity {
            let at = format!("{path}[{index}].state");
            faults.add_text(
                &at,
                "\"draining\"",
                "live or off (draining needs stickiness cookie)",
            );
        }
    }
    let mut baselines = versions
        .iter()
        .enumerate()
        .filter(|(_, version)| version.baseline);
    let baseline = match (baselines.next(), baselines.next()) {
        (Some((index, version)), None) => {
            if version.state != State::Live {
                let at = format!("{path}[{index}].state");
                faults.add_text(
                    &at,
                    "a baseline that is not live",
                    "live (the baseline always is)",
                );
            }
            index
        }
        (found, _) => {
            let many = if found.is_some() { "several" } else { "none" };
            faults.add_text(path, many, "exactly one version with baseline: true");
            0
        }
    };
    let ranges = match (
        versions.iter().any(|version| version.weight.is_some()),
        versions.iter().any(|version| version.slots.is_some()),
    ) {
        (true, true) => {
            let allowed = "either weights or slots, the same for all versions";
            faults.add_text(path, "weight and slots", allowed);
            return nothing;
        }
        (_, false) => by_weight(versions, path, faults),
        (false, true) => by_slots(versions, path, faults),
    };
    let live = |(_, version): &(SlotRange, usize)| {
        versions
            .get(*version)
            .is_some_and(|version| version.state == State::Live)
    };
    (baseline, ranges.into_iter().filter(live).collect())
}

/// Deals out slots in the order written. A version that is not live may keep its weight, so that
/// the others' slots stay where they are.
fn by_weight(
    versions: &[VersionDocument],
    path: &str,
    faults: &mut Faults,
) -> Vec<(SlotRange, usize)> {
    let weight = |version: &VersionDocument| version.weight.map_or(0, |weight| weight.0);
    let live = |version: &VersionDocument| version.state == State::Live;
    let all: u32 = versions.iter().map(weight).fold(0, u32::saturating_add);
    let of_live = versions
        .iter()
        .filter(|v| live(v))
        .map(weight)
        .fold(0, u32::saturating_add);
    if all != SLOTS && of_live != SLOTS {
        let (percent, fraction) = (all / 100, all % 100);
        let allowed = "weights that add up to 100, of all versions or of those that are live";
        faults.add_text(
            path,
            format!("weights that add up to {percent}.{fraction:02}"),
            allowed,
        );
        return Vec::new();
    }
    let mut first = 0;
    let mut ranges = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let slots = weight(version);
        if slots == 0 || (all != SLOTS && !live(version)) {
            continue;
        }
        let last = first + slots - 1;
        ranges.push((SlotRange { first, last }, index));
        first += slots;
    }
    ranges
}

fn by_slots(
    versions: &[VersionDocument],
    path: &str,
    faults: &mut Faults,
) -> Vec<(SlotRange, usize)> {
    let mut ranges: Vec<(SlotRange, usize)> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        for (number, range) in version.slots.iter().flatten().enumerate() {
            if let Some((other, owner)) = ranges.iter().find(|(other, _)| other.overlaps(range)) {
                faults.add_text(
                    &format!("{path}[{index}].slots[{number}]"),
                    format!("\"{range}\""),
                    format!("slots that nobody else owns ({other} belongs to versions[{owner}])"),
                );
            }
            ranges.push((*range, index));
        }
    }
    ranges
}

fn identity(documents: &[IdentityDocument], path: &str, faults: &mut Faults) -> Vec<Identity> {
    let last_cookie = documents
        .iter()
        .rposition(|entry| entry.cookie.is_some() && !entry.trusted);
    let mut minting = None;
    let mut identity = Vec::new();
    for (index, entry) in documents.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let mint = entry
            .mint
            .unwrap_or(last_cookie == Some(index) && minting.is_none());
        let source = match (&entry.header, &entry.cookie) {
            (Some(header), None) => IdentitySource::Header(header.0.clone()),
            (None, Some(cookie)) => IdentitySource::Cookie(cookie.0.clone()),
            (header, _) => {
                if faults.none_under(&at) {
                    let many = if header.is_some() { "both" } else { "neither" };
                    faults.add_text(&at, many, "either a header or a cookie");
                }
                continue;
            }
        };
        if entry.mint == Some(true) && (entry.cookie.is_none() || entry.trusted) {
            let allowed = "true only for a cookie that is not trusted";
            faults.add_text(&format!("{at}.mint"), "true", allowed);
        }
        if mint {
            if let Some(other) = minting {
                let allowed = format!("true only once ({path}[{other}] mints already)");
                faults.add_text(&format!("{at}.mint"), "true", allowed);
            }
            minting = Some(index);
        }
        identity.push(Identity { source, mint });
    }
    identity
}

fn override_by(
    document: OverrideDocument,
    path: &str,
    env: Environment<'_>,
    faults: &mut Faults,
) -> Override {
    let secret = document.secret.map(|secret| {
        let value = env(&secret.env.0).filter(|value| !value.is_empty());
        if value.is_none() && faults.none_under(path) {
            faults.add(
                &format!("{path}.secret.env"),
                Value::from(secret.env.0.as_str()),
                "a variable that is set and not empty in the plugin's environment (vmConfig.env, environment_variables)",
            );
        }
        Secret {
            header: secret.header.0,
            value: value.unwrap_or_default(),
        }
    });
    Override {
        header: document.header.0,
        secret,
    }
}

fn sidecar(document: SidecarDocument, rollouts: &[Rollout]) -> Sidecar {
    let SidecarDocument {
        serves: Serves::Own,
        stamp,
        on_mismatch: OnMismatch::Observe,
        versions,
    } = document;
    let listed = versions.into_iter().map(|label| label.0);
    let rolled_out = rollouts
        .iter()
        .flat_map(|rollout| &rollout.versions)
        .map(|version| version.name.clone());
    let versions = listed.chain(rolled_out).collect();
    Sidecar { stamp, versions }
}

/// A page and the API it calls are two entries of one rollout; if they differed, a user would be in
/// two versions at once.
fn same_name_same_versions(rollouts: &[RolloutDocument], faults: &mut Faults) {
    let mut first_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, rollout) in rollouts.iter().enumerate() {
        let Some(first) = first_of.get(rollout.name.0.as_str()).copied() else {
            first_of.insert(&rollout.name.0, index);
            continue;
        };
        let Some(other) = rollouts.get(first) else {
            continue;
        };
        let parts = [
            ("versions", rollout.versions == other.versions),
            ("epoch", rollout.epoch == other.epoch),
            ("stickiness", rollout.stickiness == other.stickiness),
            ("cookie.name", rollout.cookie.name == other.cookie.name),
        ];
        if !faults.none_under(&format!("rollouts[{index}]")) {
            continue;
        }
        for (field, same) in parts {
            let at = format!("rollouts[{index}].{field}");
            if !same {
                let allowed = format!(
                    "the same as rollouts[{first}].{field} (both are {})",
                    rollout.name.0
                );
                faults.add_text(&at, "different", allowed);
            }
        }
    }
}

fn no_route_twice(rollouts: &[RolloutDocument], faults: &mut Faults) {
    let mut seen = BTreeMap::new();
    for (index, rollout) in rollouts.iter().enumerate() {
        for host in &rollout.hosts {
            for prefix in &rollout.path_prefixes {
                let at = format!("rollouts[{index}].hosts");
                if !faults.none_under(&at) {
                    continue;
                }
                if let Some(other) = seen.insert((host, &prefix.0), index) {
                    let allowed = format!("a host and path that rollouts[{other}] does not have");
                    faults.add_text(&at, format!("{host} {}", prefix.0), allowed);
                }
            }
        }
    }
}
