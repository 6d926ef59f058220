//! The Envoys of the bench: one that all variants run in, each behind a listener of its own, and
//! one that is the upstream.

use serde_json::{Value, json};

use super::variants::{Modules, Variant};

/// The versions and what an answer of each consists of. The baseline comes last.
pub(crate) const VERSIONS: [&str; 2] = ["canary", "stable"];

/// Where the routes of a gateway lead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Upstream {
    /// Nowhere: they answer by themselves.
    None,
    /// To these ports, one for each of [`VERSIONS`].
    Ports([u16; 2]),
}

/// The gateway, with a listener for each variant that has the variant's name.
pub(crate) fn gateway(variants: &[&Variant], modules: &Modules, upstream: Upstream) -> String {
    let listeners = variants.iter().map(|variant| {
        let mut routes: Vec<Value> = (0..VERSIONS.len())
            .map(|version| route(version, upstream))
            .collect();
        if let Some(canary) = routes.first_mut() {
            let header = json!({ "name": "x-app-version", "string_match": { "exact": "canary" } });
            canary["match"]["headers"] = json!([header]);
        }
        listener(variant.name, variant.filters(modules), &routes)
    });
    let clusters = match upstream {
        Upstream::None => Vec::new(),
        Upstream::Ports(ports) => VERSIONS
            .into_iter()
            .zip(ports)
            .map(|(name, port)| cluster(name, port))
            .collect(),
    };
    bootstrap(listeners.collect(), clusters)
}

/// An upstream, with a listener for each version that has the version's name.
pub(crate) fn upstream() -> String {
    let listeners = (0..VERSIONS.len()).map(|version| {
        let route = route(version, Upstream::None);
        listener(VERSIONS[version], Vec::new(), &[route])
    });
    bootstrap(listeners.collect(), Vec::new())
}

fn bootstrap(listeners: Vec<Value>, clusters: Vec<Value>) -> String {
    let resources = json!({ "listeners": listeners, "clusters": clusters });
    json!({ "static_resources": resources }).to_string()
}

fn listener(name: &str, mut filters: Vec<Value>, routes: &[Value]) -> Value {
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        },
    }));
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "http_filters": filters,
        "route_config": {
            "virtual_hosts": [{ "name": name, "domains": ["*"], "routes": routes }],
        },
    });
    json!({
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": connection_manager,
        }]}],
    })
}

fn route(version: usize, upstream: Upstream) -> Value {
    let name = VERSIONS[version];
    match upstream {
        Upstream::None => {
            let body = json!({ "inline_string": name });
            let answer = json!({ "status": 200, "body": body });
            json!({ "match": { "prefix": "/" }, "direct_response": answer })
        }
        Upstream::Ports(_) => json!({ "match": { "prefix": "/" }, "route": { "cluster": name } }),
    }
}

fn cluster(name: &str, port: u16) -> Value {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}
