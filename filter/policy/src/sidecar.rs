//! The plugin in the sidecar of a pod: the pod's own version goes out, and what comes in is checked
//! against it. A shadow, which gets copies of requests, must do nothing twice.

use crate::config::document::Serves;
use crate::headers::Headers;
use crate::host::{self, HostPattern};
use crate::{OTHER, VERSION_HEADER};

/// The response header by which a sidecar that refuses a request for another version tells the
/// gateway why it answers 421.
pub const MISMATCH_HEADER: &str = "x-version-mismatch";

/// The request header that marks what a shadow sends.
pub const SHADOW_HEADER: &str = "x-shadow";

/// The sidecar section of a policy.
#[derive(Clone, Debug)]
pub struct Sidecar {
    pub(crate) serves: Serves,
    pub(crate) stamp: Vec<HostPattern>,
    pub(crate) refuses: bool,
    pub(crate) versions: Vec<String>,
    pub(crate) unsafe_to: Vec<HostPattern>,
}

/// What happens to a request that leaves the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// It leaves as it is.
    Pass,
    /// It leaves with the pod's version.
    Stamp,
    /// It leaves marked as a shadow's.
    Mark,
    /// It does not leave: a shadow must not do again what was done.
    Block,
}

/// A request that reached a pod of another version than it was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch<'p> {
    /// The version it was meant for; `other` for one that the policy does not name.
    pub expected: &'p str,
    /// Whether it is refused.
    pub refused: bool,
}

impl Sidecar {
    /// Version names that metrics may show.
    pub fn versions(&self) -> &[String] {
        &self.versions
    }

    /// Whether the plugin must know the pod's version.
    pub fn needs_version(&self) -> bool {
        self.serves == Serves::Own
    }

    /// What happens to a request that leaves the pod.
    pub fn outbound(&self, request: Headers<'_>) -> Outbound {
        let authority = request.first(":authority").unwrap_or_default();
        let host = host::of_authority(authority);
        let listed = |hosts: &[HostPattern]| hosts.iter().any(|pattern| pattern.matches(host));
        match self.serves {
            Serves::Own if listed(&self.stamp) => Outbound::Stamp,
            Serves::Own => Outbound::Pass,
            Serves::Shadow if is_safe(request) || listed(&self.unsafe_to) => Outbound::Mark,
            Serves::Shadow => Outbound::Block,
        }
    }

    /// Whether a request that reached a pod of the version `own` was meant for another one. A
    /// request that names no version, or several, is nobody's mistake.
    pub fn mismatch(&self, request: Headers<'_>, own: &str) -> Option<Mismatch<'_>> {
        let meant = request.once(VERSION_HEADER)?;
        if self.serves != Serves::Own || meant == own.as_bytes() {
            return None;
        }
        let known = self.versions.iter().find(|name| name.as_bytes() == meant);
        Some(Mismatch {
            expected: known.map_or(OTHER, String::as_str),
            refused: self.refuses,
        })
    }
}

/// Whether a request changes nothing (RFC 9110, 9.2.1).
fn is_safe(request: Headers<'_>) -> bool {
    let method = request.first(":method").unwrap_or_default();
    [b"GET".as_slice(), b"HEAD", b"OPTIONS", b"TRACE"].contains(&method)
}
