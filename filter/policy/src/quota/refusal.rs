//! The answer to a request that a quota refuses.

use super::Quota;
use super::algorithm::SECOND;

/// A refusal: 429 (RFC 6585, 4) with the reason as a problem (RFC 9457) and the headers of
/// draft-ietf-httpapi-ratelimit-headers-10; for a gRPC call, the status RESOURCE_EXHAUSTED.
#[derive(Clone, Debug)]
pub struct Refusal<'p> {
    quota: &'p Quota,
    wait: u64,
    /// The page of another host that may read it, and whether it may send cookies.
    page: Option<(String, bool)>,
}

impl<'p> Refusal<'p> {
    /// The status code.
    pub const STATUS: u32 = 429;
    /// The status of a gRPC call: RESOURCE_EXHAUSTED.
    pub const GRPC_STATUS: u32 = 8;

    pub(crate) fn new(
        quota: &'p Quota,
        until: u64,
        now: u64,
        page: Option<(String, bool)>,
    ) -> Self {
        let wait = until.saturating_sub(now).div_ceil(SECOND).max(1);
        Self { quota, wait, page }
    }

    /// The quota that refuses; of several, the one that does so longest.
    pub fn quota(&self) -> &'p Quota {
        self.quota
    }

    /// Whole seconds after which the next request is admitted, at least 1.
    pub fn retry_after(&self) -> u64 {
        self.wait
    }

    /// The headers of the answer that do not tell of its body.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let (name, wait) = (self.quota.name(), self.wait);
        let (limit, period) = (self.quota.limit(), self.quota.period());
        let mut headers = vec![
            // It is for this client, and soon over.
            ("cache-control", "no-store".to_owned()),
            ("retry-after", wait.to_string()),
            ("ratelimit", format!("\"{name}\";r=0;t={wait}")),
            (
                "ratelimit-policy",
                format!("\"{name}\";q={limit};w={period}"),
            ),
        ];
        if let Some((origin, credentials)) = &self.page {
            let readable = "retry-after, ratelimit, ratelimit-policy".to_owned();
            headers.push(("access-control-allow-origin", origin.clone()));
            headers.push(("access-control-expose-headers", readable));
            headers.push(("vary", "origin".to_owned()));
            if *credentials {
                headers.push(("access-control-allow-credentials", "true".to_owned()));
            }
        }
        headers
    }

    /// One sentence for people.
    pub fn detail(&self) -> String {
        let Quota { name, limit, .. } = self.quota;
        let period = self.quota.period();
        format!(
            "Quota {name} admits {limit} requests in {period} s; try again in {} s.",
            self.wait
        )
    }

    /// The body, `application/problem+json`. Refusals may come in floods, so it is put together
    /// without a detour; a quota's name needs no escapes.
    pub fn body(&self) -> String {
        let (name, wait, detail) = (self.quota.name(), self.wait, self.detail());
        format!(
            r#"{{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":{},"detail":"{detail}","violated-policies":["{name}"],"retryAfter":{wait}}}"#,
            Self::STATUS
        )
    }
}
