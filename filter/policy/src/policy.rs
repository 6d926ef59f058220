//! A compiled policy.

use serde_json::Value;

use crate::config::compile;
use crate::config::document::{CacheControl, ClientHeader, Document, OnMissing, State, Stickiness};
use crate::config::fault::Faults;
use crate::config::read::Read;
use crate::decide::Outcome;
use crate::headers::Headers;
use crate::host::{self, HostPattern};
use crate::path;
use crate::quota::Quota;
use crate::sidecar::Sidecar;
use crate::slot::{SLOTS, SlotRange};

/// A policy: checked, and ready to decide.
#[derive(Clone, Debug)]
pub struct Policy {
    rollouts: Vec<Rollout>,
    routes: Vec<Route>,
    quotas: Vec<Quota>,
    sidecar: Option<Sidecar>,
    hash: u32,
}

/// Which rollout a host and path belong to.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) host: HostPattern,
    pub(crate) prefix: String,
    pub(crate) rollout: usize,
}

/// One application under change.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub(crate) name: String,
    pub(crate) versions: Vec<Version>,
    pub(crate) baseline: usize,
    pub(crate) ranges: Vec<(SlotRange, usize)>,
    pub(crate) identity: Vec<Identity>,
    pub(crate) stickiness: Stickiness,
    pub(crate) epoch: u32,
    pub(crate) cookie_name: String,
    pub(crate) cookie_max_age: u64,
    pub(crate) cookie_domain: Option<String>,
    pub(crate) override_by: Option<Override>,
    pub(crate) client_header: ClientHeader,
    pub(crate) on_missing: OnMissing,
    pub(crate) exempt: Vec<String>,
    pub(crate) cors: Option<Cors>,
    pub(crate) cache_control: CacheControl,
}

/// Which pages of other hosts may read a refusal.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    pub(crate) origins: Vec<String>,
    pub(crate) credentials: bool,
}

/// A named release of the whole chain.
#[derive(Clone, Debug)]
pub struct Version {
    pub(crate) name: String,
    pub(crate) state: State,
}

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) source: IdentitySource,
    pub(crate) trusted: bool,
    pub(crate) mint: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum IdentitySource {
    Header(String),
    Cookie(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) header: String,
    pub(crate) secret: Option<Secret>,
}

#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) header: String,
    pub(crate) value: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value belongs in no log.
        f.debug_struct("Secret")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Compiles a policy from its document; `env` looks up the plugin's environment variables,
    /// where secrets come from.
    ///
    /// # Errors
    /// All faults of the document.
    ///
    /// ```
    /// use lanekeeper_policy::Policy;
    /// use serde_json::json;
    ///
    /// let faults = Policy::compile(
    ///     &json!({ "rollouts": [{
    ///         "name": "shop",
    ///         "hosts": ["shop.example"],
    ///         "versions": [
    ///             { "name": "stable", "weight": 90, "baseline": true },
    ///             { "name": "Canary", "weight": 10 },
    ///         ],
    ///         "epoch": -1,
    ///     }]}),
    ///     &|_| None,
    /// )
    /// .unwrap_err();
    /// let faults: Vec<String> = faults.iter().map(|fault| fault.to_string()).collect();
    /// assert_eq!(faults.len(), 2);
    /// assert!(faults[0].starts_with(r#"rollouts[0].versions[1].name: "Canary": 1 to 63 of a-z"#));
    /// assert_eq!(faults[1], "rollouts[0].epoch: -1: a whole number from 0 to 4294967295");
    /// ```
    pub fn compile(document: &Value, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        // Keys are sorted in the text, so that equal documents have equal hashes.
        let hash = murmur3::murmur3_32(&mut document.to_string().as_bytes(), 0).unwrap_or_default();
        let mut faults = Faults::default();
        let document = Document::read(document, "", &mut faults);
        let mut policy = compile::policy(document, env, &mut faults);
        policy.hash = hash;
        if faults.is_empty() {
            Ok(policy)
        } else {
            Err(faults)
        }
    }

    /// Like [`Policy::compile`], from JSON text.
    ///
    /// # Errors
    /// All faults of the document, or the place where it is not JSON.
    pub fn from_json(json: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        let document = serde_json::from_slice(json).map_err(|error| {
            let mut faults = Faults::default();
            faults.add_text("policy", &error.to_string(), "a policy as JSON");
            faults
        })?;
        Self::compile(&document, env)
    }

    /// The JSON Schema of the document, for editors.
    pub fn schema() -> Value {
        let mut schema = Document::schema();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert(
                "$schema".to_owned(),
                "https://json-schema.org/draft/2020-12/schema".into(),
            );
            schema.insert("title".to_owned(), "Lanekeeper policy".into());
        }
        schema
    }

    /// The policy that decides nothing: requests pass, without the headers that only the filter may
    /// set, so that the mesh routes them to the baseline.
    pub fn pass_through() -> Self {
        Self::new(Vec::new(), Vec::new(), Vec::new(), None)
    }

    pub(crate) fn new(
        rollouts: Vec<Rollout>,
        routes: Vec<Route>,
        quotas: Vec<Quota>,
        sidecar: Option<Sidecar>,
    ) -> Self {
        Self {
            rollouts,
            routes,
            quotas,
            sidecar,
            hash: 0,
        }
    }

    /// A number that tells one document from another; 0 for [`Policy::pass_through`].
    pub fn hash(&self) -> u32 {
        self.hash
    }

    /// The rollouts, in the order written.
    pub fn rollouts(&self) -> &[Rollout] {
        &self.rollouts
    }

    /// The quotas, in the order written.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// The quotas whose states are of no use to `next`.
    pub fn quotas_gone_in<'p>(&'p self, next: &'p Self) -> impl Iterator<Item = &'p Quota> {
        let place = |quota: &Quota| quota.place_name("", 'k', 0);
        let gone = move |quota: &&Quota| !next.quotas.iter().any(|new| place(new) == place(quota));
        self.quotas.iter().filter(gone)
    }

    /// What the plugin does in a sidecar.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref()
    }

    /// The rollout of a request to `authority` with the request target `target`.
    pub fn rollout_of(&self, authority: &[u8], target: &[u8]) -> Option<&Rollout> {
        let index = self.find(authority, &path::normalise(target))?;
        self.rollouts.get(index)
    }

    /// What the policy calls a host: its name, the pattern it belongs to, or nothing. A client can
    /// make up a name for each request; it cannot make up one that the policy knows.
    pub(crate) fn host_named<'p>(&'p self, quota: &'p Quota, host: &[u8]) -> &'p str {
        let of_rollouts = self.routes.iter().map(|route| &route.host);
        let patterns = of_rollouts.chain(&quota.matches.hosts);
        let known = patterns.filter(|pattern| pattern.matches(host));
        let best = known.max_by_key(|pattern| pattern.specificity());
        best.map_or("", HostPattern::text)
    }

    /// The origin of a request, if its rollout lets pages of that origin read refusals, and whether
    /// they may send cookies.
    pub(crate) fn page_that_may_read(
        &self,
        headers: Headers<'_>,
        outcome: &Outcome,
    ) -> Option<(String, bool)> {
        let Outcome::Assigned(assignment) = outcome else {
            return None;
        };
        let cors = self.rollouts.get(assignment.rollout)?.cors.as_ref()?;
        let origin = std::str::from_utf8(headers.once("origin")?).ok()?;
        let known = cors.origins.iter().any(|known| is_origin(known, origin));
        known.then(|| (origin.to_owned(), cors.credentials))
    }

    /// The rollout of a request, as its index: the best host first, then the longest path prefix
    /// (`path` is in normal form).
    pub(crate) fn find(&self, authority: &[u8], path: &[u8]) -> Option<usize> {
        let host = host::of_authority(authority);
        let ours = self.routes.iter().filter(|route| route.host.matches(host));
        let best = &ours.max_by_key(|route| route.host.specificity())?.host;
        self.routes
            .iter()
            .filter(|route| route.host == *best && path::is_below(path, &route.prefix))
            .max_by_key(|route| route.prefix.len())
            .map(|route| route.rollout)
    }
}

/// Whether a page's origin is the one that is known, which may end in `:*`. It is sent back to the
/// page: nothing but a port may differ.
fn is_origin(known: &str, origin: &str) -> bool {
    let Some(host) = known.strip_suffix(":*") else {
        return known == origin;
    };
    let Some(rest) = origin.strip_prefix(host) else {
        return false;
    };
    let is_port = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)
}

impl Rollout {
    /// The rollout's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The versions, in the order written.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The baseline, as its index.
    pub fn baseline(&self) -> usize {
        self.baseline
    }

    /// What names a user, most important first, in the words of the document: `("header",
    /// "x-user")`, `("cookie", "visitor")`.
    pub fn identity(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.identity.iter().map(|identity| match &identity.source {
            IdentitySource::Header(name) => ("header", name.as_str()),
            IdentitySource::Cookie(name) => ("cookie", name.as_str()),
        })
    }

    /// The version that owns a slot, as its index; the baseline owns what nobody else does.
    pub fn version_of_slot(&self, slot: u32) -> usize {
        self.ranges
            .iter()
            .find(|(range, _)| range.contains(slot))
            .map_or(self.baseline, |(_, version)| *version)
    }

    /// How many slots each version has, in the order of the versions.
    pub fn slots(&self) -> Vec<u32> {
        let owned = |version| {
            let ranges = self.ranges.iter().filter(|(_, owner)| *owner == version);
            ranges.map(|(range, _)| range.len()).sum::<u32>()
        };
        let mut slots: Vec<u32> = (0..self.versions.len()).map(owned).collect();
        let unowned = SLOTS.saturating_sub(slots.iter().sum());
        if let Some(slots) = slots.get_mut(self.baseline) {
            *slots += unowned;
        }
        slots
    }

    /// Whether newcomers are given a version by their slots.
    pub fn splits(&self) -> bool {
        self.on_missing == OnMissing::Split && self.client_header == ClientHeader::Ignore
    }

    /// A version that may still be served: live or draining.
    pub(crate) fn serving(&self, name: &[u8]) -> Option<usize> {
        self.versions
            .iter()
            .position(|version| version.name.as_bytes() == name && version.state != State::Off)
    }
}

impl Version {
    /// The version's name, as in X-App-Version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state, in the words of the document.
    pub fn state(&self) -> &'static str {
        match self.state {
            State::Live => "live",
            State::Draining => "draining",
            State::Off => "off",
        }
    }
}
