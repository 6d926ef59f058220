//! The decision core of Lanekeeper: which version a request gets, and why.
//!
//! Pure: no clock, no entropy, no host. A [`Policy`] is compiled once from its document; then
//! [`Policy::decide`] turns what is known of a request into a [`Decision`].
//!
//! ```
//! use lanekeeper_policy::{Headers, Outcome, Policy, Request, Source};
//! use serde_json::json;
//!
//! let policy = Policy::compile(
//!     &json!({ "rollouts": [{
//!         "name": "sms-checker",
//!         "hosts": ["sms-checker.local"],
//!         "versions": [
//!             { "name": "stable", "weight": 90, "baseline": true },
//!             { "name": "canary", "weight": 10 },
//!         ],
//!         "identity": [{ "header": "x-user", "trusted": true }, { "cookie": "visitor" }],
//!     }]}),
//!     &|_| None,
//! )
//! .unwrap();
//!
//! let request = [
//!     (":authority".to_owned(), b"sms-checker.local".to_vec()),
//!     (":path".to_owned(), b"/sms".to_vec()),
//!     ("x-user".to_owned(), b"alice".to_vec()),
//! ];
//! let request = Request { headers: Headers::new(&request), now: 1_800_000_000 };
//! let decision = policy.decide(request, &mut || None);
//! assert_eq!(decision.version, Some("stable"));
//! let Outcome::Assigned(assignment) = decision.outcome else { panic!() };
//! assert_eq!(assignment.source, Source::Slot);
//! assert_eq!(
//!     decision.response.set_cookies,
//!     ["app-version=stable.0.20833; Path=/; Max-Age=2592000; SameSite=Lax"],
//! );
//! ```
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cache_control;
mod config;
mod cookie;
mod decide;
mod headers;
mod host;
mod path;
mod policy;
mod quota;
mod sidecar;
mod slot;

pub use cache_control::{SHARED_CACHE_HEADERS, private_cache_control};
pub use config::fault::{Fault, Faults};
pub use decide::{
    Assignment, BUCKET_HEADER, Decision, Entropy, Outcome, Request, ResponsePlan, Source,
};
pub use headers::Headers;
pub use path::normalise as normalise_path;
pub use policy::{Policy, Rollout, Version};
pub use quota::Quota;
pub use quota::algorithm::{Algorithm, Step, Verdict};
pub use quota::judge::{Count, Host, Judge, Judgement, Ruling};
pub use quota::refusal::Refusal;
pub use sidecar::{MISMATCH_HEADER, Mismatch, Outbound, SHADOW_HEADER, Sidecar};
pub use slot::{BUCKETS, SLOTS, slot};

/// How documents are read, those of others too: types that [`object!`] and [`text!`] declare say
/// every fault at once, and describe themselves as JSON Schema.
pub mod document {
    pub use crate::config::fault::{Fault, Faults};
    pub use crate::config::read::{Fields, ObjectSchema, Read, fields};
}

/// The request header that names the version; routes select on it.
pub const VERSION_HEADER: &str = "x-app-version";

/// Whether `text` may name a version: a DNS-1123 label.
pub fn is_version_name(text: &str) -> bool {
    config::document::is_label(text)
}

/// What metrics call a version that the policy does not name.
pub const OTHER: &str = "other";
