//! Slots: the fixed places into which identities fall.

use std::fmt;

/// Number of slots; 1 % of the users is 100 of them.
pub const SLOTS: u32 = 10_000;

/// The slot of an identity in a rollout: `murmur3_x86_32("<rollout>:<identity>", seed 0) mod
/// 10000`. Anybody can recompute it.
///
/// ```
/// assert_eq!(lanekeeper_policy::slot("sms-checker", b"alice"), 7_590);
/// ```
pub fn slot(rollout: &str, identity: &[u8]) -> u32 {
    let mut key = Vec::with_capacity(rollout.len() + 1 + identity.len());
    key.extend_from_slice(rollout.as_bytes());
    key.push(b':');
    key.extend_from_slice(identity);
    // Reading from memory does not fail.
    let hash = murmur3::murmur3_32(&mut key.as_slice(), 0).unwrap_or_default();
    hash % SLOTS
}

/// Number of buckets, the units that experiments compare: users, thrown together by their slots.
pub const BUCKETS: u32 = 32;

/// The bucket of the user with a slot.
pub(crate) fn bucket(slot: u32) -> u32 {
    slot % BUCKETS
}

/// Some slots in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRange {
    /// The first slot.
    pub(crate) first: u32,
    /// The last slot, which belongs to the range.
    pub(crate) last: u32,
}

impl SlotRange {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self {
            first: number(first)?,
            last: number(last)?,
        };
        (range.first <= range.last && range.last < SLOTS).then_some(range)
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        (self.first..=self.last).contains(&slot)
    }

    /// How many slots.
    pub(crate) fn len(&self) -> u32 {
        self.last - self.first + 1
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}
