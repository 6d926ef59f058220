//! One request on its way through the filter.

use std::rc::Rc;
use std::time::Duration;

use lanekeeper_policy::{
    Assignment, BUCKET_HEADER, Decision, Headers, MISMATCH_HEADER, Mismatch, Outbound, Outcome,
    Request, ResponsePlan, SHADOW_HEADER, SHARED_CACHE_HEADERS, Sidecar, VERSION_HEADER,
    private_cache_control,
};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::host::{self, MapType};
use crate::metrics::Error;
use crate::plugin::InForce;
use crate::quota::{self, Workers};

const REQUEST: MapType = MapType::HttpRequestHeaders;
const RESPONSE: MapType = MapType::HttpResponseHeaders;

/// The context of one request. A response may come without its request callback (Envoy's own
/// replies): then there is nothing to do.
pub(crate) struct RequestContext {
    in_force: Rc<InForce>,
    assignment: Option<Assignment>,
    response: ResponsePlan,
}

impl RequestContext {
    pub(crate) fn new(in_force: Rc<InForce>) -> Self {
        Self {
            in_force,
            assignment: None,
            response: ResponsePlan::default(),
        }
    }
}

impl Context for RequestContext {}

impl HttpContext for RequestContext {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let fields = host::headers(REQUEST);
        let headers = Headers::new(&fields);
        match self.in_force.policy.sidecar() {
            Some(sidecar) if host::is_inbound() => self.in_force.arrive(sidecar, headers),
            Some(sidecar) => self.in_force.leave(sidecar, headers),
            None => {
                let (decision, action) = self.in_force.pass_gateway(headers);
                if let Outcome::Assigned(assignment) = decision.outcome {
                    self.assignment = Some(assignment);
                }
                self.response = decision.response;
                action
            }
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if self.in_force.policy.sidecar().is_none() {
            let status = host::header(RESPONSE, ":status").unwrap_or_default();
            hide_mismatch(&status);
            if status.starts_with(b"5") {
                self.failed();
            }
            answer(&self.response);
        }
        Action::Continue
    }
}

impl RequestContext {
    /// Failures of services are in their own metrics. Where no service answered, nobody else knows whose
    /// users got this.
    fn failed(&self) {
        if let Some(assignment) = &self.assignment
            && host::is_local_reply()
        {
            self.in_force.metrics.unserved(assignment);
        }
    }
}

impl InForce {
    /// A request that reaches the pod.
    fn arrive(&self, sidecar: &Sidecar, headers: Headers<'_>) -> Action {
        let own = self.pod_version.as_deref();
        let mismatch = own.and_then(|own| Some((own, sidecar.mismatch(headers, own)?)));
        let Some((own, Mismatch { expected, refused })) = mismatch else {
            return Action::Continue;
        };
        self.metrics.mismatch(expected);
        if !refused {
            return Action::Continue;
        }
        let detail = format!("The request is for version {expected}, and this pod is {own}.");
        host::refuse(
            421,
            vec![(MISMATCH_HEADER, own)],
            &problem("Misdirected Request", &detail),
        );
        Action::Pause
    }

    /// A request that leaves the pod.
    fn leave(&self, sidecar: &Sidecar, headers: Headers<'_>) -> Action {
        match sidecar.outbound(headers) {
            Outbound::Pass => Action::Continue,
            Outbound::Stamp => {
                if let Some(own) = &self.pod_version {
                    host::set_header(REQUEST, VERSION_HEADER, own.as_bytes());
                }
                Action::Continue
            }
            Outbound::Mark => {
                host::set_header(REQUEST, SHADOW_HEADER, b"true");
                Action::Continue
            }
            Outbound::Block => {
                self.metrics.blocked();
                let detail = "A shadow may call this host with safe methods only.";
                host::refuse(403, Vec::new(), &problem("Forbidden", detail));
                Action::Pause
            }
        }
    }

    /// A request at the gateway: what was decided, and does it pass?
    fn pass_gateway(&self, headers: Headers<'_>) -> (Decision<'_>, Action) {
        let now = host::now();
        let request = Request {
            headers,
            now: now.as_secs(),
        };
        let decision = self.policy.decide(request, &mut || {
            let bits = host::entropy();
            if bits.is_none() {
                self.metrics.error(Error::Entropy);
            }
            bits
        });
        if let Outcome::Assigned(assignment) = &decision.outcome {
            self.metrics.assigned(assignment);
        }
        if self.refuses(request, &decision.outcome, now) {
            return (decision, Action::Pause);
        }
        for name in &decision.remove {
            host::remove_header(REQUEST, name);
        }
        if let Some(version) = &decision.version {
            host::set_header(REQUEST, VERSION_HEADER, version.as_bytes());
        }
        if let Some(bucket) = decision.bucket {
            host::set_header(REQUEST, BUCKET_HEADER, bucket.to_string().as_bytes());
        }
        (decision, Action::Continue)
    }

    /// Whether a quota refuses a request; then the client has its answer.
    fn refuses(&self, request: Request<'_>, outcome: &Outcome, now: Duration) -> bool {
        // The hostcalls of a ruling lead back to no request: nobody else holds the judge.
        let judge = self.judge.as_ref();
        let Some(mut judge) = judge.and_then(|judge| judge.try_borrow_mut().ok()) else {
            return false;
        };
        let now = now.as_nanos().try_into().unwrap_or(u64::MAX);
        let ruling = judge.judge(&self.policy, request, outcome, now, &mut Workers);
        for judgement in &ruling.judgements {
            self.metrics.judged(judgement);
        }
        if let Some(refusal) = &ruling.refusal {
            quota::refuse(refusal, request.headers);
        }
        ruling.refusal.is_some()
    }
}

/// The body of an answer that refuses (RFC 9457); both texts are ours and need no escapes.
fn problem(title: &str, detail: &str) -> String {
    format!(r#"{{"title":"{title}","detail":"{detail}"}}"#)
}

/// A browser that gets 421 may ask again elsewhere (RFC 9110, 15.5.20); but that a request went to a
/// pod of another version is our own affair. gRPC calls are refused with the status 200, and it stays so.
fn hide_mismatch(status: &[u8]) {
    if host::header(RESPONSE, MISMATCH_HEADER).is_none() {
        return;
    }
    host::remove_header(RESPONSE, MISMATCH_HEADER);
    if status == b"421" {
        host::set_header(RESPONSE, ":status", b"502");
    }
}

fn answer(plan: &ResponsePlan) {
    for cookie in &plan.set_cookies {
        host::add_header(RESPONSE, "set-cookie", cookie.as_bytes());
    }
    if !plan.private {
        return;
    }
    for name in SHARED_CACHE_HEADERS {
        host::remove_header(RESPONSE, name);
    }
    // Most responses have none, and to ask for one header costs less than for all.
    let value = if host::header(RESPONSE, "cache-control").is_some() {
        let fields = host::headers(RESPONSE);
        let values: Vec<&[u8]> = Headers::new(&fields).all("cache-control").collect();
        private_cache_control(&values)
    } else {
        private_cache_control(&[])
    };
    host::set_header(RESPONSE, "cache-control", &value);
}
