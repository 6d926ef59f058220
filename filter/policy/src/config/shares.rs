//! Who owns which slots: weights and explicit ranges.

use super::compile::names_are_used_once;
use super::document::{RolloutDocument, State, Stickiness, VersionDocument};
use super::fault::Faults;
use crate::slot::{SLOTS, SlotRange};

/// The index of the baseline, and who owns which slots; slots that nobody owns are left out.
///
/// A check needs only the fields that it reads: a fault elsewhere does not keep it from being told.
pub(crate) fn shares(
    rollout: &RolloutDocument,
    path: &str,
    faults: &mut Faults,
) -> (usize, Vec<(SlotRange, usize)>) {
    let versions = &rollout.versions;
    if versions.is_empty() {
        return (0, Vec::new());
    }
    let names: Vec<_> = versions.iter().map(|version| &version.name).collect();
    names_are_used_once(&names, path, faults);
    if rollout.stickiness == Stickiness::Identity {
        for (index, version) in versions.iter().enumerate() {
            if version.state == State::Draining {
                let at = format!("{path}[{index}].state");
                let allowed = "live or off (draining needs stickiness cookie)";
                faults.add_string(&at, "draining", allowed);
            }
        }
    }
    let baseline = baseline(versions, path, faults);
    if !readable(versions, path, &["weight", "slots"], faults) {
        return (baseline, Vec::new());
    }
    let weighted = versions.iter().any(|version| version.weight.is_some());
    let ranges = match (
        weighted,
        versions.iter().any(|version| version.slots.is_some()),
    ) {
        (true, true) => {
            let allowed = "either weights or slots, the same for all versions";
            faults.add_text(path, "weight and slots", allowed);
            Vec::new()
        }
        (_, false) => by_weight(versions, path, faults),
        (false, true) => by_slots(versions, path, faults),
    };
    let live = |(_, version): &(SlotRange, usize)| versions.get(*version).is_some_and(is_live);
    (baseline, ranges.into_iter().filter(live).collect())
}

fn is_live(version: &VersionDocument) -> bool {
    version.state == State::Live
}

/// Whether all versions and these fields of them could be read.
fn readable(versions: &[VersionDocument], path: &str, fields: &[&str], faults: &Faults) -> bool {
    (0..versions.len())
        .map(|index| format!("{path}[{index}]"))
        .all(|at| {
            let field_is = |field: &&str| faults.none_under(&format!("{at}.{field}"));
            faults.none_at(&at) && fields.iter().all(field_is)
        })
}

fn baseline(versions: &[VersionDocument], path: &str, faults: &mut Faults) -> usize {
    if !readable(versions, path, &["baseline"], faults) {
        return 0;
    }
    let mut baselines = versions
        .iter()
        .enumerate()
        .filter(|(_, version)| version.baseline);
    match (baselines.next(), baselines.next()) {
        (Some((index, version)), None) => {
            if !is_live(version) {
                let at = format!("{path}[{index}].state");
                let allowed = "live (the baseline always is)";
                faults.add_text(&at, "a baseline that is not live", allowed);
            }
            index
        }
        (found, _) => {
            let many = if found.is_some() { "several" } else { "none" };
            faults.add_text(path, many, "exactly one version with baseline: true");
            0
        }
    }
}

/// Deals out slots in the order written. A version that is not live may keep its weight, so that
/// the others' slots stay where they are.
fn by_weight(
    versions: &[VersionDocument],
    path: &str,
    faults: &mut Faults,
) -> Vec<(SlotRange, usize)> {
    let weight = |version: &VersionDocument| version.weight.map_or(0, |weight| weight.0);
    let sum = |which: &dyn Fn(&VersionDocument) -> bool| {
        let versions = versions.iter().filter(|version| which(version));
        versions.map(weight).fold(0, u32::saturating_add)
    };
    let all = sum(&|_| true);
    if all != SLOTS && sum(&is_live) != SLOTS {
        let (percent, fraction) = (all / 100, all % 100);
        let allowed = "weights that add up to 100, of all versions or of those that are live";
        let found = format!("weights that add up to {percent}.{fraction:02}");
        faults.add_text(path, &found, allowed);
        return Vec::new();
    }
    let mut first = 0;
    let mut ranges = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let slots = weight(version);
        if slots == 0 || (all != SLOTS && !is_live(version)) {
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
    // What is not live owns nothing, whatever it keeps written.
    for (index, version) in versions
        .iter()
        .enumerate()
        .filter(|(_, version)| is_live(version))
    {
        for (number, range) in version.slots.iter().flatten().enumerate() {
            if let Some((other, owner)) = ranges.iter().find(|(other, _)| other.overlaps(range)) {
                faults.add_string(
                    &format!("{path}[{index}].slots[{number}]"),
                    &range.to_string(),
                    &format!("slots that nobody else owns ({other} belongs to versions[{owner}])"),
                );
            }
            ranges.push((*range, index));
        }
    }
    ranges
}
