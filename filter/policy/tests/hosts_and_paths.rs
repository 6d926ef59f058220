//! Which rollout a request belongs to.

mod support;

use lanekeeper_policy::{Outcome, normalise_path};
use proptest::prelude::*;
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn found(hosts: &[(&[&str], &[&str])], authority: &str, path: &str) -> Option<usize> {
    let rollouts: Vec<_> = hosts
        .iter()
        .enumerate()
        .map(|(n, (hosts, prefixes))| {
            rollout_with(json!({
                "name": format!("r{n}"), "hosts": hosts, "pathPrefixes": prefixes,
            }))
        })
        .collect();
    let policy = compile(json!({ "rollouts": rollouts }));
    match decide(&policy, &request("GET", authority, path, &[])).outcome {
        Outcome::Assigned(assignment) => Some(assignment.rollout),
        _ => None,
    }
}

#[test]
fn exact_names_come_before_suffixes_and_longer_suffixes_before_shorter_ones() {
    let hosts: [(&[&str], &[&str]); 4] = [
        (&["*"], &["/"]),
        (&["*.example"], &["/"]),
        (&["*.shop.example"], &["/"]),
        (&["www.shop.example"], &["/"]),
    ];
    for (authority, rollout) in [
        ("www.shop.example", 3),
        ("WWW.Shop.Example:8080", 3),
        ("www.shop.example.", 3),
        ("a.shop.example", 2),
        ("shop.example", 1),
        ("example", 0),
        ("10.0.0.1:80", 0),
        ("[::1]:80", 0),
        ("", 0),
    ] {
        assert_eq!(found(&hosts, authority, "/"), Some(rollout), "{authority}");
    }
}

#[test]
fn the_longest_path_prefix_of_the_best_host_wins() {
    let hosts: [(&[&str], &[&str]); 3] = [
        (&["shop.example"], &["/api"]),
        (&["shop.example"], &["/api/v2", "/b/"]),
        (&["*"], &["/"]),
    ];
    for (path, rollout) in [
        ("/api", Some(0)),
        ("/api/v1", Some(0)),
        ("/api/v2/x?y", Some(1)),
        ("/api//v2", Some(1)),
        ("/api/v3/../v2", Some(1)),
        ("/b/x", Some(1)),
        // The host is known, its paths are not these: nobody else steps in, as in Envoy.
        ("/apix", None),
        ("/", None),
    ] {
        assert_eq!(found(&hosts, "shop.example", path), rollout, "{path}");
    }
}

#[test]
fn addresses_are_hosts_too() {
    let hosts: [(&[&str], &[&str]); 1] = [(&["127.0.0.1", "[::1]", "localhost"], &["/"])];
    for authority in ["127.0.0.1:8080", "[::1]", "[::1]:8080", "localhost:1"] {
        assert_eq!(found(&hosts, authority, "/"), Some(0), "{authority}");
    }
    for authority in ["127.0.0.2", "[::2]:8080", "localhost.evil", "xlocalhost"] {
        assert_eq!(found(&hosts, authority, "/"), None, "{authority}");
    }
}

#[test]
fn one_resource_has_one_path() {
    for (written, normal) in [
        ("/a", "/a"),
        ("/a?x=1", "/a"),
        ("/a#f", "/a"),
        ("/%61", "/a"),
        ("//a", "/a"),
        ("/b/../a", "/a"),
        ("/./a", "/a"),
        ("/b/%2E%2e/a", "/a"),
        ("/../../a", "/a"),
        ("/a/", "/a/"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/", "/"),
        ("//", "/"),
        ("/..", "/"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%", "/a%"),
        ("/a%2", "/a%2"),
        ("/a%zz", "/a%zz"),
        ("/%7Eme", "/~me"),
        ("*", "*"),
        ("", ""),
    ] {
        let found = normalise_path(written.as_bytes());
        assert_eq!(str::from_utf8(&found), Ok(normal), "{written}");
    }
}

proptest! {
    #[test]
    fn a_normal_path_is_its_own_normal_form(
        path in prop::collection::vec(prop::sample::select(b"/.%2eEaZ?#\xff".to_vec()), 0..24),
    ) {
        let path = [b"/".as_slice(), &path].concat();
        let once = normalise_path(&path).into_owned();
        // A decoded triplet may form a new one: %252e is %2e, which is another path than a dot.
        if !once.contains(&b'%') {
            prop_assert_eq!(normalise_path(&once).into_owned(), once.clone());
        }
        prop_assert!(once.starts_with(b"/"));
        prop_assert!(!once.split(|b| *b == b'/').any(|segment| segment == b".."));
    }
}
