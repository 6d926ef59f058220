//! What is promised, one function each: what it saw, or an error.

mod faults;
mod headers;
mod in_a_cluster;
mod pages;
mod pods;
mod pushes;
mod rollout;
mod shadow;
mod sound;
mod users;
mod watched;

use anyhow::{Result, bail};

use crate::cluster::Cluster;
use crate::kind::Kind;
use crate::mesh::Mesh;

/// One promise.
pub(crate) struct Promise {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keep: Keep,
}

/// Where a promise can be seen, and how.
#[derive(Clone, Copy)]
pub(crate) enum Keep {
    Everywhere(fn(&mut dyn Cluster) -> Result<Vec<String>>),
    Mesh(fn(&mut Mesh) -> Result<Vec<String>>),
    Kind(fn(&mut Kind) -> Result<Vec<String>>),
}

/// The system in which promises are tested.
pub(crate) enum Running {
    Mesh(Mesh),
    Kind(Kind),
}

impl Running {
    pub(crate) fn cluster(&mut self) -> &mut dyn Cluster {
        match self {
            Self::Mesh(mesh) => mesh,
            Self::Kind(kind) => kind,
        }
    }
}

impl Keep {
    /// Whether it can be seen in this system.
    pub(crate) fn is_for(self, system: &Running) -> bool {
        matches!(
            (self, system),
            (Self::Everywhere(_), _)
                | (Self::Mesh(_), Running::Mesh(_))
                | (Self::Kind(_), Running::Kind(_))
        )
    }

    pub(crate) fn keep(self, system: &mut Running) -> Result<Vec<String>> {
        match (self, system) {
            (Self::Everywhere(keep), system) => keep(system.cluster()),
            (Self::Mesh(keep), Running::Mesh(mesh)) => keep(mesh),
            (Self::Kind(keep), Running::Kind(kind)) => keep(kind),
            _ => bail!("not a promise of this system"),
        }
    }
}

pub(crate) const PROMISES: [Promise; 25] = [
    Promise {
        name: "manifests",
        about: "no message about the manifests",
        keep: Keep::Mesh(sound::manifests),
    },
    Promise {
        name: "injection",
        about: "every pod has a sidecar, which starts first",
        keep: Keep::Kind(in_a_cluster::injection),
    },
    Promise {
        name: "image",
        about: "every proxy that has a plugin has the module of the image that the digest names",
        keep: Keep::Kind(in_a_cluster::image),
    },
    Promise {
        name: "envoys",
        about: "nothing that an Envoy refuses or waits for",
        keep: Keep::Everywhere(sound::envoys),
    },
    Promise {
        name: "users",
        about: "300 users with 10 requests each: nobody flips, the tiers agree",
        keep: Keep::Everywhere(users::keep),
    },
    Promise {
        name: "pages",
        about: "a page calls the API of another host, and both are of one version",
        keep: Keep::Everywhere(pages::keep),
    },
    Promise {
        name: "shadow",
        about: "the shadow gets a copy of every request to the model, and no user notices",
        keep: Keep::Everywhere(shadow::keep),
    },
    Promise {
        name: "hanging",
        about: "a shadow that hangs under load: no user notices",
        keep: Keep::Mesh(shadow::hangs),
    },
    Promise {
        name: "spread",
        about: "a visitor's requests meet one pod of the version, those of many visitors all of them",
        keep: Keep::Everywhere(pods::spread),
    },
    Promise {
        name: "ejection",
        about: "one failing pod of three is passed over, a version's only pod never",
        keep: Keep::Mesh(pods::ejection),
    },
    Promise {
        name: "headers",
        about: "an override works, what a client makes up does not cross the gateway",
        keep: Keep::Everywhere(headers::keep),
    },
    Promise {
        name: "stamp",
        about: "an application that forwards no headers reaches the model of its version",
        keep: Keep::Everywhere(headers::stamp),
    },
    Promise {
        name: "weights",
        about: "10 to 50 and draining, under load: in force within 5 s, no request fails",
        keep: Keep::Everywhere(rollout::weights),
    },
    Promise {
        name: "outage",
        about: "canary without pods: 503 for its holders, until it is off",
        keep: Keep::Everywhere(rollout::outage),
    },
    Promise {
        name: "policies",
        about: "a bad policy changes nothing",
        keep: Keep::Everywhere(pushes::bad_policy),
    },
    Promise {
        name: "registry",
        about: "a policy is pushed while the registry is away",
        keep: Keep::Everywhere(pushes::no_registry),
    },
    Promise {
        name: "modules",
        about: "a module that cannot be had, by failStrategy",
        keep: Keep::Everywhere(pushes::no_module),
    },
    Promise {
        name: "misled",
        about: "a wrong route: whoever is led to another version is refused, if the policy says so",
        keep: Keep::Everywhere(pushes::wrong_route),
    },
    Promise {
        name: "strict",
        about: "istio/overlays/strict: who has no certificate is refused, and who is not named too",
        keep: Keep::Kind(in_a_cluster::strict),
    },
    Promise {
        name: "restart",
        about: "a rollout restart of canary under load: no request fails",
        keep: Keep::Kind(in_a_cluster::restart),
    },
    Promise {
        name: "deletion",
        about: "pods that are deleted under load",
        keep: Keep::Kind(in_a_cluster::deletion),
    },
    Promise {
        name: "replicas",
        about: "a gateway with two replicas: a quota counts in each",
        keep: Keep::Kind(in_a_cluster::replicas),
    },
    Promise {
        name: "drain",
        about: "a node is drained under load: the disruption budgets hold",
        keep: Keep::Kind(in_a_cluster::drain),
    },
    Promise {
        name: "monitoring",
        about: "the operator of Prometheus: every pod is scraped, every rule and panel has data",
        keep: Keep::Kind(watched::keep),
    },
    Promise {
        name: "faults",
        about: "17 broken manifests: each is refused by the check",
        keep: Keep::Mesh(faults::keep),
    },
];
