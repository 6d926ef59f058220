//! The plugin in the sidecar of a pod: the pod's own version goes out, and what comes in is checked
//! against it.

use crate::headers::Headers;
use crate::host::{self, HostPattern};
use crate::{OTHER, VERSION_HEADER};

/// The sidecar section of a policy.
#[derive(Clone, Debug)]
pub struct Sidecar {
    pub(crate) stamp: Vec<HostPattern>,
    pub(crate) versions: Vec<String>,
}

impl Sidecar {
    /// Version names that metrics may show.
    pub fn versions(&self) -> &[String] {
        &self.versions
    }

    /// Whether a request that leaves the pod gets the pod's version.
    pub fn stamps(&self, request: Headers<'_>) -> bool {
        let authority = request.first(":authority").unwrap_or_default();
        let host = host::of_authority(authority);
        self.stamp.iter().any(|pattern| pattern.matches(host))
    }

    /// The version that a request which reached the pod was meant for, if that is not `own`; a name
    /// the policy does not know is `other`. A request that names no version, or several, is
    /// nobody's mistake.
    pub fn mismatch(&self, request: Headers<'_>, own: &str) -> Option<&str> {
        let meant = request.once(VERSION_HEADER)?;
        if meant == own.as_bytes() {
            return None;
        }
        let known = self.versions.iter().find(|name| name.as_bytes() == meant);
        Some(known.map_or(OTHER, String::as_str))
    }
}
