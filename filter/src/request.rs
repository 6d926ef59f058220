//! One request on its way through the filter.

use std::rc::Rc;
use std::time::Duration;

use lanekeeper_policy::{
    Headers, Outcome, Request, ResponsePlan, SHARED_CACHE_HEADERS, Sidecar, VERSION_HEADER,
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
    response: ResponsePlan,
}

impl RequestContext {
    pub(crate) fn new(in_force: Rc<InForce>) -> Self {
        Self {
            in_force,
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
            Some(sidecar) => {
                self.in_force.pass_sidecar(sidecar, headers);
                Action::Continue
            }
            None => {
                let (response, action) = self.in_force.pass_gateway(headers);
                self.response = response;
                action
            }
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        answer(&self.response);
        Action::Continue
    }
}

impl InForce {
    /// A request that reaches the pod, or leaves it.
    fn pass_sidecar(&self, sidecar: &Sidecar, headers: Headers<'_>) {
        let Some(own) = &self.pod_version else {
            return;
        };
        if host::is_inbound() {
            if let Some(expected) = sidecar.mismatch(headers, own) {
                self.metrics.mismatch(expected);
            }
        } else if sidecar.stamps(headers) {
            host::set_header(REQUEST, VERSION_HEADER, own.as_bytes());
        }
    }

    /// A request at the gateway: does it pass, and what is left to do to the response?
    fn pass_gateway(&self, headers: Headers<'_>) -> (ResponsePlan, Action) {
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
            return (decision.response, Action::Pause);
        }
        for name in decision.remove {
            host::remove_header(REQUEST, name);
        }
        if let Some(version) = decision.version {
            host::set_header(REQUEST, VERSION_HEADER, version.as_bytes());
        }
        (decision.response, Action::Continue)
    }

    /// Whether a quota refuses a request; then the client has its answer.
    fn refuses(&self, request: Request<'_>, outcome: &Outcome, now: Duration) -> bool {
        if self.policy.quotas().is_empty() {
            return false;
        }
        let now = now.as_nanos().try_into().unwrap_or(u64::MAX);
        // The hostcalls of a ruling lead back to no request.
        let Ok(mut judge) = self.judge.try_borrow_mut() else {
            return false;
        };
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
    let value = if host::has_header(RESPONSE, "cache-control") {
        let fields = host::headers(RESPONSE);
        let values: Vec<&[u8]> = Headers::new(&fields).all("cache-control").collect();
        private_cache_control(&values)
    } else {
        private_cache_control(&[])
    };
    host::set_header(RESPONSE, "cache-control", &value);
}
