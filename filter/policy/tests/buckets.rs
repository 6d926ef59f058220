//! A user is of one bucket in every tier: the unit by which experiments compare versions.

mod support;

use lanekeeper_policy::{BUCKETS, SLOTS};
use proptest::prelude::*;
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn bucket_of(user: &str) -> u32 {
    murmur_slot("sms-checker", user.as_bytes()) % 32
}

#[test]
fn the_bucket_is_the_slot_modulo_32() {
    let policy = policy(json!({}));
    let bucket = |headers: &[(&str, &str)]| decide(&policy, &get(headers)).bucket;
    assert_eq!(bucket(&[("x-user", "alice")]), Some(7_590 % 32));
    assert_eq!(bucket(&[("cookie", "visitor=v")]), Some(bucket_of("v")));
    assert_eq!(bucket(&[]), Some(bucket_of(MINTED)), "a new visitor's");
}

#[test]
fn it_stays_whatever_version_the_user_has() {
    let page = policy(json!({}));
    let api = policy(json!({ "clientHeader": "accept", "onMissing": "baseline" }));
    let alice = ("x-user", "alice");
    let with_cookie = [alice, ("cookie", "app-version=canary.0.20454")];
    assert_eq!(decide(&page, &get(&with_cookie)).version, Some("canary"));
    for (policy, headers) in [
        (&page, &with_cookie[..]),
        (&api, &[alice]),
        // As her page has it, which was of the version of her slot, or of her cookie.
        (&api, &[alice, ("x-app-version", "stable")]),
        (
            &api,
            &[with_cookie[0], with_cookie[1], ("x-app-version", "canary")],
        ),
    ] {
        let bucket = decide(policy, &get(headers)).bucket;
        assert_eq!(bucket, Some(bucket_of("alice")), "{headers:?}");
    }
}

#[test]
fn who_chose_the_version_or_is_nobody_has_none() {
    let split = policy(json!({ "exempt": ["/health"] }));
    let nameless = policy(json!({ "identity": [{ "header": "x-user", "trusted": true }] }));
    let api = policy(json!({ "clientHeader": "accept", "onMissing": "baseline" }));
    let alice = ("x-user", "alice");
    for (policy, request) in [
        (&split, get(&[alice, ("x-experiment", "canary")])),
        // Of a page that the override led to canary.
        (&api, get(&[alice, ("x-app-version", "canary")])),
        (
            &api,
            get(&[
                alice,
                ("cookie", "app-version=stable.0.20454"),
                ("x-app-version", "canary"),
            ]),
        ),
        (
            &split,
            request("GET", "sms-checker.local", "/health", &[alice]),
        ),
        (&split, request("GET", "other.local", "/sms", &[alice])),
        (&nameless, get(&[])),
        (&split, get(&[("cookie", "app-version=canary.0.20454")])),
    ] {
        let decision = decide(policy, &request);
        assert_eq!(decision.bucket, None, "{request:?}");
        assert!(decision.remove.is_empty(), "{request:?}");
    }
}

#[test]
fn a_clients_own_bucket_is_replaced_or_removed() {
    let policy = policy(json!({}));
    let spoofed = ("X-Rollout-Bucket", "7");
    let alice = decide(&policy, &get(&[spoofed, spoofed, ("x-user", "alice")])).bucket;
    assert_eq!(alice, Some(bucket_of("alice")));
    let request = get(&[spoofed, ("x-experiment", "canary")]);
    let tester = decide(&policy, &request);
    assert_eq!(
        (tester.bucket, &*tester.remove),
        (None, &["x-rollout-bucket"][..])
    );
}

#[test]
fn one_percent_of_the_users_are_of_every_bucket() {
    let policy = policy(json!({
        "versions": versions(json!({ "weight": 99 }), json!({ "weight": 1 })),
    }));
    let rollout = &policy.rollouts()[0];
    for bucket in 0..BUCKETS {
        let slots = (bucket..SLOTS).step_by(BUCKETS as usize);
        let of_canary = slots
            .filter(|slot| rollout.version_of_slot(*slot) == 1)
            .count();
        assert!((3..=4).contains(&of_canary), "{bucket}: {of_canary} slots");
    }
}

proptest! {
    #[test]
    fn no_request_has_a_bucket_that_is_none(user in prop::collection::vec(any::<u8>(), 0..300)) {
        let policy = policy(json!({}));
        let mut request = get(&[]);
        request.push(("x-user".to_owned(), user));
        let bucket = decide(&policy, &request).bucket;
        prop_assert!(bucket.is_some_and(|bucket| bucket < BUCKETS));
    }
}
