//! What is promised, one function each: what it saw, or an error.

mod faults;
mod headers;
mod pages;
mod pushes;
mod rollout;
mod shadow;
mod sound;
mod users;

use anyhow::Result;

use crate::cluster::Cluster;

/// One promise.
pub(crate) struct Promise {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keep: fn(&mut dyn Cluster) -> Result<Vec<String>>,
}

pub(crate) const PROMISES: [Promise; 12] = [
    Promise {
        name: "sound",
        about: "no message about the manifests, nothing that an Envoy refuses or waits for",
        keep: sound::keep,
    },
    Promise {
        name: "users",
        about: "300 users with 10 requests each: nobody flips, the tiers agree",
        keep: users::keep,
    },
    Promise {
        name: "pages",
        about: "a page calls the API of another host, and both are of one version",
        keep: pages::keep,
    },
    Promise {
        name: "shadow",
        about: "the shadow gets a copy of every request to the model, and no user notices",
        keep: shadow::keep,
    },
    Promise {
        name: "headers",
        about: "an override works, what a client makes up does not cross the gateway",
        keep: headers::keep,
    },
    Promise {
        name: "stamp",
        about: "an application that forwards no headers reaches the model of its version",
        keep: headers::stamp,
    },
    Promise {
        name: "weights",
        about: "10 to 50 and draining, under load: in force within 5 s, no request fails",
        keep: rollout::weights,
    },
    Promise {
        name: "outage",
        about: "canary without pods: 503 for its holders, until it is off",
        keep: rollout::outage,
    },
    Promise {
        name: "policies",
        about: "a bad policy changes nothing",
        keep: pushes::bad_policy,
    },
    Promise {
        name: "modules",
        about: "a module that cannot be had, by failStrategy",
        keep: pushes::no_module,
    },
    Promise {
        name: "misled",
        about: "a wrong route: whoever is led to another version is refused, if the policy says so",
        keep: pushes::wrong_route,
    },
    Promise {
        name: "faults",
        about: "14 broken manifests: each is refused by the check",
        keep: faults::keep,
    },
];
