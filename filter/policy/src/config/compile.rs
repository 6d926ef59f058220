//! Turns the document into a policy; what only shows between several fields is checked here.

use super::document::{
    ClientHeader, Document, IdentityDocument, Label, OnMismatch, OnMissing, OverrideDocument,
    PathPrefix, RolloutDocument, Serves, SidecarDocument, Stickiness,
};
use super::fault::Faults;
use super::{quotas, shares};
use crate::host::HostPattern;
use crate::policy::{
    Cors, Identity, IdentitySource, Override, Policy, Rollout, Route, Secret, Version,
};
use crate::sidecar::Sidecar;

/// Looks up environment variables.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn policy(document: Document, env: Environment<'_>, faults: &mut Faults) -> Policy {
    // A sidecar believes the version header that the gateway set; a gateway believes nobody's. One
    // policy for both would have to guess where it is.
    let gateway = !document.rollouts.is_empty() || !document.quotas.is_empty();
    if gateway == document.sidecar.is_some() && faults.is_empty() {
        let found = if gateway { "both" } else { "neither" };
        let allowed = "rollouts or quotas, for a gateway; or sidecar, for the sidecar of a pod";
        faults.add_text("policy", found, allowed);
    }
    same_name_same_versions(&document.rollouts, faults);
    no_route_twice(&document.rollouts, faults);

    let mut routes = Vec::new();
    let mut rollouts = Vec::new();
    for (index, document) in document.rollouts.into_iter().enumerate() {
        let path = format!("rollouts[{index}]");
        for host in &document.hosts {
            for prefix in &document.path_prefixes {
                routes.push(Route {
                    host: host.clone(),
                    prefix: prefix.0.clone(),
                    rollout: index,
                });
            }
        }
        rollouts.push(rollout(document, &path, env, faults));
    }
    let quotas = quotas::quotas(document.quotas, faults);
    let sidecar = document.sidecar.map(|document| sidecar(document, faults));
    Policy::new(rollouts, routes, quotas, sidecar)
}

fn rollout(
    document: RolloutDocument,
    path: &str,
    env: Environment<'_>,
    faults: &mut Faults,
) -> Rollout {
    let at = |field: &str| format!("{path}.{field}");
    for (field, empty) in [
        ("hosts", document.hosts.is_empty()),
        ("pathPrefixes", document.path_prefixes.is_empty()),
        ("versions", document.versions.is_empty()),
        ("identity", document.identity.is_empty()),
    ] {
        if empty && faults.none_under(&at(field)) {
            faults.add_text(&at(field), "[]", "a list of at least one");
        }
    }
    hosts_of_clients(&document.hosts, &at("hosts"), faults);
    for (index, exempt) in document.exempt.iter().enumerate() {
        if exempt.0 == "/" {
            let allowed = "a path below /: else the rollout would have no requests";
            faults.add_string(&format!("{path}.exempt[{index}]"), "/", allowed);
        }
    }
    if document.stickiness == Stickiness::Identity
        && document.on_missing == OnMissing::Baseline
        && document.client_header == ClientHeader::Ignore
    {
        let allowed = "split (stickiness identity assigns by slot alone)";
        faults.add_string(&at("onMissing"), "baseline", allowed);
    }
    if let Some(domain) = &document.cookie.domain {
        for host in &document.hosts {
            if !host.within(&domain.0) && faults.none_under(&at("hosts")) {
                let allowed = format!(
                    "a domain that every host of the rollout belongs to (browsers drop the cookie on {host})"
                );
                faults.add_string(&at("cookie.domain"), &domain.0, &allowed);
            }
        }
    }
    let (baseline, ranges) = shares::shares(&document, &at("versions"), faults);
    let versions = document
        .versions
        .iter()
        .map(|version| Version {
            name: version.name.0.clone(),
            state: version.state,
        })
        .collect();
    let identity = identity(&document.identity, &at("identity"), faults);
    cookies_we_set(&document, path, faults);
    different_headers(&document, path, faults);
    Rollout {
        name: document.name.0,
        versions,
        baseline,
        ranges,
        identity,
        stickiness: document.stickiness,
        epoch: document.epoch,
        cookie_name: document.cookie.name.0,
        cookie_max_age: document.cookie.max_age.0,
        cookie_domain: document.cookie.domain.map(|domain| domain.0),
        override_by: document
            .r#override
            .map(|by| override_by(by, &at("override"), env, faults)),
        client_header: document.client_header,
        on_missing: document.on_missing,
        exempt: document.exempt.into_iter().map(|prefix| prefix.0).collect(),
        cors: document.cors.map(|cors| Cors {
            origins: cors
                .allow_origins
                .into_iter()
                .map(|origin| origin.0)
                .collect(),
            credentials: cors.allow_credentials,
        }),
        cache_control: document.cache_control,
    }
}

/// Of the entries of the list at `path`, no two may have one name.
pub(crate) fn names_are_used_once(names: &[&Label], path: &str, faults: &mut Faults) {
    for (index, Label(name)) in names.iter().enumerate() {
        let twice = names.iter().take(index).any(|Label(other)| other == name);
        // A name that could not be read is empty.
        if twice && !name.is_empty() {
            let at = format!("{path}[{index}].name");
            faults.add_string(&at, name, "a name used only once");
        }
    }
}

/// Clients do not call services by their cluster names.
pub(crate) fn hosts_of_clients(hosts: &[HostPattern], path: &str, faults: &mut Faults) {
    for (index, host) in hosts.iter().enumerate() {
        if matches!(host, HostPattern::Service(_)) {
            let allowed = "a host name, *.suffix or * (name.* is for sidecars)";
            faults.add_string(&format!("{path}[{index}]"), &host.to_string(), allowed);
        }
    }
}

/// Whether the cookies that the filter sets can be told apart and will be kept by browsers.
fn cookies_we_set(rollout: &RolloutDocument, path: &str, faults: &mut Faults) {
    let ours = &rollout.cookie.name.0;
    let mut names = vec![(format!("{path}.cookie.name"), ours)];
    for (index, entry) in rollout.identity.iter().enumerate() {
        let at = format!("{path}.identity[{index}].cookie");
        let Some(cookie) = &entry.cookie else {
            continue;
        };
        if cookie.0 == *ours {
            let allowed = "another name than the version cookie's (cookie.name)";
            faults.add_string(&at, ours, allowed);
        }
        if !entry.trusted && entry.mint != Some(false) {
            names.push((at, &cookie.0));
        }
    }
    for (at, name) in names {
        let name_in_lower_case = name.to_ascii_lowercase();
        if name_in_lower_case.starts_with("__host-") || name_in_lower_case.starts_with("__secure-")
        {
            let allowed = "a name without the prefixes __Host- and __Secure-, which browsers refuse without https";
            faults.add_string(&at, name, allowed);
        }
    }
}

/// One header cannot be two things: who is asked for a version must not also be who asks.
fn different_headers(rollout: &RolloutDocument, path: &str, faults: &mut Faults) {
    let asked = rollout.r#override.as_ref();
    let secret = asked.and_then(|by| by.secret.as_ref());
    let mut headers = Vec::new();
    for (index, entry) in rollout.identity.iter().enumerate() {
        headers.extend(
            entry
                .header
                .as_ref()
                .map(|header| (format!("identity[{index}].header"), header)),
        );
    }
    headers.extend(asked.map(|by| ("override.header".to_owned(), &by.header)));
    headers.extend(secret.map(|secret| ("override.secret.header".to_owned(), &secret.header)));
    for (index, (field, header)) in headers.iter().enumerate() {
        let other = headers
            .iter()
            .take(index)
            .find(|(_, other)| other == header);
        if let Some((other, _)) = other.filter(|_| !header.0.is_empty()) {
            let allowed = format!("another header than that of {other}");
            faults.add_string(&format!("{path}.{field}"), &header.0, &allowed);
        }
    }
}

fn identity(documents: &[IdentityDocument], path: &str, faults: &mut Faults) -> Vec<Identity> {
    let last_cookie = documents
        .iter()
        .rposition(|entry| entry.cookie.is_some() && !entry.trusted);
    let mut minting = None;
    let mut identity = Vec::new();
    for (index, entry) in documents.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let mint = entry
            .mint
            .unwrap_or(last_cookie == Some(index) && minting.is_none());
        let source = match (&entry.header, &entry.cookie) {
            (Some(header), None) => IdentitySource::Header(header.0.clone()),
            (None, Some(cookie)) => IdentitySource::Cookie(cookie.0.clone()),
            (header, _) => {
                if faults.none_under(&at) {
                    let many = if header.is_some() { "both" } else { "neither" };
                    faults.add_text(&at, many, "either a header or a cookie");
                }
                continue;
            }
        };
        if entry.mint == Some(true) && (entry.cookie.is_none() || entry.trusted) {
            let allowed = "true only for a cookie that is not trusted";
            faults.add_text(&format!("{at}.mint"), "true", allowed);
        }
        if mint {
            if let Some(other) = minting {
                let allowed = format!("true only once ({path}[{other}] mints already)");
                faults.add_text(&format!("{at}.mint"), "true", &allowed);
            }
            minting = Some(index);
        }
        identity.push(Identity {
            source,
            trusted: entry.trusted,
            mint,
        });
    }
    identity
}

fn override_by(
    document: OverrideDocument,
    path: &str,
    env: Environment<'_>,
    faults: &mut Faults,
) -> Override {
    let secret = document.secret.map(|secret| {
        // A secret that no header can carry would never match.
        let sendable = |value: &String| {
            !value.is_empty()
                && value.trim() == value
                && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        };
        let value = env(&secret.env.0).filter(sendable);
        if value.is_none() && faults.none_under(path) {
            faults.add_string(
                &format!("{path}.secret.env"),
                &secret.env.0,
                "a variable of the plugin (vmConfig.env, environment_variables) that holds visible ASCII, without spaces or a newline at its ends",
            );
        }
        Secret {
            header: secret.header.0,
            value: value.unwrap_or_default(),
        }
    });
    Override {
        header: document.header.0,
        secret,
    }
}

fn sidecar(document: SidecarDocument, faults: &mut Faults) -> Sidecar {
    let own = document.serves == Serves::Own;
    for (field, hosts, allowed) in [
        ("stamp", &document.stamp, own),
        ("unsafeTo", &document.unsafe_to, !own),
    ] {
        let at = format!("sidecar.{field}");
        if !hosts.is_empty() && !allowed && faults.none_under("sidecar.serves") {
            let serves = if own { "shadow" } else { "own" };
            faults.add_text(&at, "a list", &format!("nothing without serves: {serves}"));
        }
    }
    if !own && document.on_mismatch == OnMismatch::Refuse {
        let allowed = "observe (a shadow gets requests for all versions)";
        faults.add_string("sidecar.onMismatch", "refuse", allowed);
    }
    Sidecar {
        serves: document.serves,
        stamp: document.stamp,
        refuses: document.on_mismatch == OnMismatch::Refuse,
        versions: document.versions.into_iter().map(|label| label.0).collect(),
        unsafe_to: document.unsafe_to,
    }
}

/// A page and the API it calls are two entries of one rollout; if they differed, a user would be in
/// two versions at once.
fn same_name_same_versions(rollouts: &[RolloutDocument], faults: &mut Faults) {
    for (index, rollout) in rollouts.iter().enumerate() {
        let earlier = rollouts.iter().take(index).enumerate();
        let same_name = |(_, other): &(usize, &RolloutDocument)| other.name == rollout.name;
        let Some((first, other)) = earlier.into_iter().find(same_name) else {
            continue;
        };
        let splits = |rollout: &RolloutDocument| {
            rollout.on_missing == OnMissing::Split && rollout.client_header == ClientHeader::Ignore
        };
        let same_slots = rollout.identity == other.identity || !splits(rollout) || !splits(other);
        let parts = [
            ("identity", same_slots),
            ("versions", rollout.versions == other.versions),
            ("epoch", rollout.epoch == other.epoch),
            ("stickiness", rollout.stickiness == other.stickiness),
            ("cookie.name", rollout.cookie.name == other.cookie.name),
        ];
        if !faults.none_under(&format!("rollouts[{index}]")) {
            continue;
        }
        for (field, same) in parts {
            let at = format!("rollouts[{index}].{field}");
            if !same {
                let allowed = format!(
                    "the same as rollouts[{first}].{field} (both are {})",
                    rollout.name.0
                );
                faults.add_text(&at, "different", &allowed);
            }
        }
    }
}

fn no_route_twice(rollouts: &[RolloutDocument], faults: &mut Faults) {
    let mut seen: Vec<(&HostPattern, &str, usize)> = Vec::new();
    for (index, rollout) in rollouts.iter().enumerate() {
        for host in &rollout.hosts {
            for PathPrefix(prefix) in &rollout.path_prefixes {
                let at = format!("rollouts[{index}].hosts");
                if !faults.none_under(&at) {
                    continue;
                }
                let same = |(h, p, _): &&(&HostPattern, &str, usize)| (*h, *p) == (host, prefix);
                if let Some((_, _, other)) = seen.iter().find(same) {
                    let allowed = if *other == index {
                        "hosts and paths that are listed once".to_owned()
                    } else {
                        format!("a host and path that rollouts[{other}] does not have")
                    };
                    faults.add_text(&at, &format!("{host} {prefix}"), &allowed);
                }
                seen.push((host, prefix, index));
            }
        }
    }
}
