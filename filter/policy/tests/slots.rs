//! Who falls where: reproducible by anybody, in the shares that were asked for, and moving no more
//! users than the weights do.

mod support;

use lanekeeper_policy::{Policy, SLOTS, slot};
use proptest::prelude::*;
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn slots_are_those_of_the_published_examples() {
    // Computed with a third implementation (Python).
    for (identity, expected) in [
        (&b"alice"[..], 7_590),
        (b"bob", 6_127),
        (b"carol", 2_743),
        (b"", 1_348),
        (b"\xff\xfe", 9_544),
        (&[b'x'; 256], 6_507),
    ] {
        assert_eq!(slot("sms-checker", identity), expected, "{identity:?}");
    }
}

proptest! {
    #[test]
    fn any_identity_has_the_slot_of_an_independent_murmur3(
        rollout in "[a-z0-9-]{1,63}",
        identity in prop::collection::vec(any::<u8>(), 0..=256),
    ) {
        prop_assert_eq!(slot(&rollout, &identity), murmur_slot(&rollout, &identity));
    }

    #[test]
    fn moving_weights_between_two_versions_moves_half_the_sum_of_the_changes(
        before in 0u32..=SLOTS,
        after in 0u32..=SLOTS,
    ) {
        let moved = moved(&two_versions(before), &two_versions(after));
        prop_assert_eq!(moved, before.abs_diff(after));
    }
}

proptest! {
    #[test]
    fn the_slots_of_a_version_are_those_by_which_newcomers_are_given_it(
        (first, length) in (0u32..5_000, 1u32..5_000),
    ) {
        let last = first + length - 1;
        let slots = json!({ "slots": [format!("{first}-{last}"), "9999"] });
        let policy = policy(json!({ "versions": versions(json!({}), slots) }));
        let slots = policy.rollouts()[0].slots();
        prop_assert_eq!(slots, [owned(&policy, 0), owned(&policy, 1)]);
    }
}

fn two_versions(canary: u32) -> Policy {
    let percent = |slots: u32| json!({ "weight": f64::from(slots) / 100.0 });
    policy(json!({ "versions": versions(percent(SLOTS - canary), percent(canary)) }))
}

fn moved(before: &Policy, after: &Policy) -> u32 {
    let (before, after) = (&before.rollouts()[0], &after.rollouts()[0]);
    let moved = (0..SLOTS).filter(|s| before.version_of_slot(*s) != after.version_of_slot(*s));
    moved.count() as u32
}

fn owned(policy: &Policy, version: usize) -> u32 {
    let rollout = &policy.rollouts()[0];
    (0..SLOTS)
        .filter(|slot| rollout.version_of_slot(*slot) == version)
        .count() as u32
}

#[test]
fn ten_percent_are_a_thousand_slots_dealt_out_in_the_order_written() {
    let policy = policy(json!({}));
    let rollout = &policy.rollouts()[0];
    assert_eq!(owned(&policy, 1), 1_000);
    assert_eq!(
        [0, 8_999, 9_000, 9_999].map(|slot| rollout.version_of_slot(slot)),
        [0, 0, 1, 1]
    );
}

#[test]
fn a_hundredth_of_a_percent_is_one_slot() {
    let policy = policy(json!({
        "versions": versions(json!({ "weight": 99.99 }), json!({ "weight": 0.01 })),
    }));
    assert_eq!(owned(&policy, 1), 1);
}

#[test]
fn explicit_slots_move_exactly_those_that_are_written_differently() {
    let of = |a: &[&str], b: &[&str], c: &[&str]| {
        policy(json!({ "versions": [
            { "name": "a", "slots": a, "baseline": true },
            { "name": "b", "slots": b },
            { "name": "c", "slots": c },
        ]}))
    };
    let before = of(&["0-4999"], &["5000-7499"], &["7500-9999"]);
    let after = of(&["0-3999"], &["5000-7499"], &["4000-4999", "7500-9999"]);
    assert_eq!(moved(&before, &after), 1_000);
    assert_eq!(owned(&after, 2), 3_500);
}

#[test]
fn slots_that_nobody_owns_belong_to_the_baseline() {
    let policy = policy(json!({
        "versions": versions(json!({}), json!({ "slots": ["100-199", "300"] })),
    }));
    assert_eq!(owned(&policy, 1), 101);
    assert_eq!(owned(&policy, 0), 9_899);
}

#[test]
fn slots_of_a_version_that_is_not_live_fall_to_the_baseline_and_move_nobody_else() {
    let of = |state: &str| {
        policy(json!({ "versions": [
            { "name": "a", "weight": 50, "baseline": true },
            { "name": "b", "weight": 25, "state": state },
            { "name": "c", "weight": 25 },
        ]}))
    };
    for state in ["draining", "off"] {
        assert_eq!(moved(&of("live"), &of(state)), 2_500);
        assert_eq!(owned(&of(state), 2), 2_500);
    }
}

#[test]
fn two_rollouts_pick_different_users() {
    let both = (0..10_000).filter(|n| {
        let user = format!("user-{n}");
        slot("one", user.as_bytes()) >= 9_000 && slot("two", user.as_bytes()) >= 9_000
    });
    // One percent by chance: 100, with a standard deviation of 10.
    assert!((60..=140).contains(&both.count()));
}

#[test]
fn users_spread_evenly() {
    let canary = (0..100_000)
        .filter(|n| slot("sms-checker", format!("user-{n}").as_bytes()) >= 9_000)
        .count();
    // 10,000 expected, standard deviation 95; four of them.
    assert!((9_620..=10_380).contains(&canary), "{canary}");
}
