//! Quotas: at most so many requests in so much time, for each value of a key.

pub(crate) mod algorithm;
pub(crate) mod judge;
pub(crate) mod key;
pub(crate) mod place;
pub(crate) mod refusal;

use crate::config::document::{Enforcement, OnAnonymous, OnContention, OnOverflow};
use crate::host::HostPattern;
use crate::path;
use algorithm::Algorithm;
use key::Part;

/// One quota of a policy.
#[derive(Clone, Debug)]
pub struct Quota {
    pub(crate) name: String,
    pub(crate) key: Vec<Part>,
    pub(crate) matches: Match,
    pub(crate) templates: Vec<String>,
    pub(crate) limit: u32,
    /// Nanoseconds.
    pub(crate) period: u64,
    pub(crate) algorithm: Algorithm,
    pub(crate) table: Table,
    pub(crate) enforcement: Enforcement,
    pub(crate) on_anonymous: OnAnonymous,
    pub(crate) on_overflow: OnOverflow,
    pub(crate) on_contention: OnContention,
}

/// How the states of a quota are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    /// How many places there are for keys.
    pub(crate) places: u32,
    /// How many bytes each may have.
    pub(crate) room: usize,
}

impl Table {
    /// How many places there are for the address blocks of keys that found no room.
    pub(crate) fn blocks(&self) -> u32 {
        (self.places / 16).max(1)
    }
}

/// Which requests a quota is for; an empty list stands for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Match {
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) methods: Vec<String>,
}

impl Quota {
    /// The quota's name, as in metrics and refusals.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests in a period.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The period in seconds.
    pub fn period(&self) -> u64 {
        self.period / algorithm::SECOND
    }

    /// Whether it is kept, in the words of the document: `enforce`, `observe`, `off`.
    pub fn enforcement(&self) -> &'static str {
        match self.enforcement {
            Enforcement::Enforce => "enforce",
            Enforcement::Observe => "observe",
            Enforcement::Off => "off",
        }
    }

    /// What it counts by, in the words of the document.
    pub fn key(&self) -> impl Iterator<Item = String> {
        self.key.iter().map(|part| match part {
            Part::User => "user".to_owned(),
            Part::Path => "path".to_owned(),
            Part::Address => "address".to_owned(),
            Part::Header(name) => format!("header:{name}"),
        })
    }

    /// The name of a shared value. What is counted otherwise, or cut otherwise into places, lies
    /// elsewhere: two configurations may be in force at a time, while connections drain.
    pub(crate) fn place_name(&self, prefix: &str, mark: char, number: u32) -> String {
        let (kind, places) = (self.algorithm.kind(), self.table.places);
        format!("{prefix}{}/{kind}{places:x}{mark}{number:x}", self.name)
    }

    /// Whether a request is one of those that the quota counts; `path` is in normal form.
    pub(crate) fn is_for(&self, host: &[u8], path: &[u8], method: &[u8]) -> bool {
        let Match {
            hosts,
            prefixes,
            methods,
        } = &self.matches;
        self.enforcement != Enforcement::Off
            && (hosts.is_empty() || hosts.iter().any(|pattern| pattern.matches(host)))
            && (prefixes.is_empty() || prefixes.iter().any(|prefix| path::is_below(path, prefix)))
            && (methods.is_empty() || methods.iter().any(|name| name.as_bytes() == method))
    }
}
