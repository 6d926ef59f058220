//! Whatever a client sends, it gets an ordinary answer.

mod support;

use lanekeeper_policy::{Headers, Policy, Request, private_cache_control};
use proptest::prelude::*;
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn policies() -> Vec<Policy> {
    vec![
        policy(json!({})),
        policy(json!({ "stickiness": "identity", "exempt": ["/healthz", "/a/"] })),
        policy(json!({ "clientHeader": "accept", "onMissing": "baseline" })),
        compile(json!({ "sidecar": { "serves": "own", "stamp": ["*", "a.*"] } })),
        Policy::pass_through(),
    ]
}

/// A header that means something to the filter, or any other, with a value that may mean something.
fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let names = [
        ":authority",
        ":path",
        ":method",
        "cookie",
        "x-user",
        "x-experiment",
        "x-app-version",
        "X-App-Version",
        "x-shadow",
        "x-forwarded-proto",
        "origin",
        "access-control-request-method",
    ];
    let values = [
        "sms-checker.local",
        "sms-checker.local:80",
        "/",
        "/a/../healthz",
        "OPTIONS",
        "canary",
        "visitor=x; app-version=canary.0.20454",
        "app-version=stable.0.1;;=;app-version",
        "app-version=canary.99999999999.99999999999",
        "app-version=",
        "=",
        ";",
        "https",
    ];
    let value = prop_oneof![
        prop::sample::select(values.to_vec()).prop_map(|value| value.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..64),
    ];
    (
        prop::sample::select(names.to_vec()).prop_map(str::to_owned),
        value,
    )
}

proptest! {
    #[test]
    fn any_headers_give_a_version_of_the_policy_and_clean_cookies(
        fields in prop::collection::vec(header(), 0..12),
        now in any::<u64>(),
        id in any::<Option<[u8; 16]>>(),
    ) {
        for policy in policies() {
            let request = Request { headers: Headers::new(&fields), now };
            let decision = policy.decide(request, &mut || id);
            if let Some(version) = decision.version {
                prop_assert!(["stable", "canary"].contains(&version));
            }
            for cookie in &decision.response.set_cookies {
                prop_assert!(cookie.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", cookie);
                prop_assert!(cookie.contains("; Path=/; Max-Age=2592000; SameSite=Lax"), "{}", cookie);
            }
            if let Some(sidecar) = policy.sidecar() {
                sidecar.outbound(request.headers);
                sidecar.mismatch(request.headers, "canary");
            }
        }
    }

    #[test]
    fn any_cache_control_becomes_one_that_shared_caches_obey(
        values in prop::collection::vec(prop::collection::vec(
            prop::sample::select(b"public, s-maxage=1\"\\;no-store\xff".to_vec()), 0..40), 0..4),
    ) {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let value = private_cache_control(&values);
        prop_assert!(is_not_shared(&value), "{}", String::from_utf8_lossy(&value));
    }

    #[test]
    fn any_text_is_a_policy_or_a_list_of_faults(text in ".{0,200}") {
        if let Err(faults) = Policy::from_json(text.as_bytes(), &|_| None) {
            prop_assert!(!faults.is_empty());
        }
    }

    #[test]
    fn any_json_in_any_field_is_read_or_refused(
        field in prop::sample::select(vec![
            "name", "hosts", "pathPrefixes", "versions", "identity", "stickiness", "epoch",
            "cookie", "override", "clientHeader", "onMissing", "exempt", "cacheControl",
        ]),
        value in prop::sample::select(vec![
            json!(null), json!(true), json!(-1), json!(1e300), json!(""), json!("\u{0}"), json!([]),
            json!([null]), json!([[]]), json!([{}]), json!({}), json!({ "name": null }), json!("*"),
            json!([{ "name": "a", "weight": 1e9 }]), json!([{ "slots": ["0-9999", "0-9999"] }]),
        ]),
    ) {
        // No panic is what is asked; some of these are right.
        let _ = faults(json!({ "rollouts": [rollout_with(json!({ field: value }))] }));
    }
}

#[test]
fn a_thousand_cookies_and_a_cookie_of_fifty_kilobytes_are_read_to_the_end() {
    let policy = policy(json!({}));
    let many: String = (0..1_000).map(|n| format!("c{n}={n}; ")).collect();
    let long = "x".repeat(50_000);
    for noise in [
        many,
        format!("noise={long}; "),
        format!("{long}; "),
        ";".repeat(50_000),
    ] {
        let cookie = format!("{noise}app-version=canary.0.20454");
        let headers = [("x-user", &*stable_user()), ("cookie", &*cookie)];
        assert_eq!(assigned(&policy, &headers).0, "canary");
    }
}

#[test]
fn ten_kilobytes_of_identity_are_nobody() {
    let policy = policy(json!({}));
    let long = "x".repeat(10_240);
    let request = get(&[("x-user", &long)]);
    assert!(assignment(&decide(&policy, &request)).minted);
}

/// Whether a cache that follows RFC 9110, 5.6.4 and RFC 9111, 5.2 finds `private` or `no-store`, and
/// nothing that would let it share.
fn is_not_shared(value: &[u8]) -> bool {
    let mut directives = vec![String::new()];
    let mut characters = value.iter().map(|b| char::from(*b));
    while let Some(character) = characters.next() {
        let directive = directives.last_mut().expect("there is one");
        match character {
            ',' => directives.push(String::new()),
            '"' => loop {
                match characters.next() {
                    None => return false,
                    Some('"') => break,
                    Some('\\') => drop(characters.next()),
                    Some(_) => {}
                }
            },
            character => directive.push(character.to_ascii_lowercase()),
        }
    }
    let names: Vec<&str> = directives
        .iter()
        .map(|d| d.split('=').next().unwrap_or("").trim())
        .collect();
    let says = |name: &str| names.contains(&name);
    (says("private") || says("no-store")) && !says("public") && !says("s-maxage")
}
