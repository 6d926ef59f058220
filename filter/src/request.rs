//! One request on its way through the filter.

use std::rc::Rc;

use lanekeeper_policy::{
    Headers, Outcome, Request, ResponsePlan, SHARED_CACHE_HEADERS, VERSION_HEADER,
    private_cache_control,
};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::host::{self, Direction, MapType};
use crate::metrics::Error;
use crate::plugin::InForce;

const REQUEST: MapType = MapType::HttpRequestHeaders;
const RESPONSE: MapType = MapType::HttpResponseHeaders;

/// The context of one request. A response may come without its request callback (Envoy's own
/// replies): then there is nothing to do.
pub(crate) struct RequestContext {
    in_force: Option<Rc<InForce>>,
    response: ResponsePlan,
}

impl RequestContext {
    pub(crate) fn new(in_force: Option<Rc<InForce>>) -> Self {
        Self {
            in_force,
            response: ResponsePlan::default(),
        }
    }
}

impl Context for RequestContext {}

impl HttpContext for RequestContext {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let Some(in_force) = &self.in_force {
            let fields = host::headers(REQUEST);
            let headers = Headers::new(&fields);
            if !in_force.passes_sidecar(headers) {
                self.response = in_force.passes_gateway(headers);
            }
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let Some(in_force) = &self.in_force {
            in_force.answers(&self.response);
        }
        Action::Continue
    }
}

impl InForce {
    /// The request at a sidecar; `false` where it is the gateway's business.
    fn passes_sidecar(&self, headers: Headers<'_>) -> bool {
        let Some(sidecar) = self.policy.sidecar() else {
            return false;
        };
        let direction = host::direction();
        if direction == Direction::Inbound {
            if let Some(own) = &self.pod_version
                && let Some(expected) = sidecar.mismatch(headers, own)
            {
                self.metrics.mismatch(expected);
            }
            return true;
        }
        if sidecar.stamps(headers) {
            if let Some(own) = &self.pod_version {
                self.check(host::set_header(REQUEST, VERSION_HEADER, own.as_bytes()));
            }
            return true;
        }
        // A policy without rollouts is no trust boundary: what else leaves the pod is its own affair.
        self.policy.rollouts().is_empty()
    }

    /// The request at the gateway. What is left to do is done to the response.
    fn passes_gateway(&self, headers: Headers<'_>) -> ResponsePlan {
        let request = Request {
            headers,
            now: host::now(),
        };
        let mut no_entropy = false;
        let decision = self.policy.decide(request, &mut || {
            let bits = host::entropy();
            no_entropy = bits.is_none();
            bits
        });
        if no_entropy {
            self.metrics.error(Error::Entropy);
        }
        for name in decision.remove {
            self.check(host::remove_header(REQUEST, name));
        }
        if let Some(version) = decision.version {
            self.check(host::set_header(
                REQUEST,
                VERSION_HEADER,
                version.as_bytes(),
            ));
        }
        if let Outcome::Assigned(assignment) = &decision.outcome {
            self.metrics.assigned(assignment);
        }
        decision.response
    }

    fn answers(&self, plan: &ResponsePlan) {
        for cookie in &plan.set_cookies {
            self.check(host::add_header(RESPONSE, "set-cookie", cookie.as_bytes()));
        }
        if !plan.private {
            return;
        }
        for name in SHARED_CACHE_HEADERS {
            self.check(host::remove_header(RESPONSE, name));
        }
        // Most responses have none, and to ask for one header costs less than for all.
        let value = if host::has_header(RESPONSE, "cache-control") {
            let fields = host::headers(RESPONSE);
            let values: Vec<&[u8]> = Headers::new(&fields).all("cache-control").collect();
            private_cache_control(&values)
        } else {
            private_cache_control(&[])
        };
        self.check(host::set_header(RESPONSE, "cache-control", &value));
    }

    fn check<E>(&self, done: Result<(), E>) {
        if done.is_err() {
            self.metrics.error(Error::Host);
        }
    }
}
