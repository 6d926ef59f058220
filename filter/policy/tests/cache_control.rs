//! A shared cache must not serve one version's answer to another version's user.

mod support;

use lanekeeper_policy::private_cache_control;
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn rewritten(values: &[&str]) -> String {
    let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
    String::from_utf8(private_cache_control(&values)).expect("text")
}

#[test]
fn responses_become_private_and_keep_what_browsers_need() {
    for (upstream, expected) in [
        (&[][..], "private"),
        (&[""], "private"),
        (&["public"], "private"),
        (&["private"], "private"),
        (&["max-age=60"], "max-age=60, private"),
        (&["Public, max-age=60, S-MaxAge=9"], "max-age=60, private"),
        (&["public", "immutable, s-maxage=9"], "immutable, private"),
        (&["no-cache"], "no-cache, private"),
        (&["no-store"], "no-store"),
        (&["no-store, public"], "no-store"),
        (
            &["private=\"set-cookie, x\", max-age=1"],
            "max-age=1, private",
        ),
        (
            &["ext=\"a, public, \\\", s-maxage=1\", public"],
            "ext=\"a, public, \\\", s-maxage=1\", private",
        ),
        (&[",,;public,"], ";public, private"),
        // Nobody can say where the quote ends.
        (&["max-age=1, ext=\"a", "public"], "no-store"),
    ] {
        assert_eq!(rewritten(upstream), expected, "{upstream:?}");
    }
}

#[test]
fn every_response_of_a_rollout_is_private_unless_the_policy_says_leave() {
    let private = |changes| {
        decide(&policy(changes), &get(&[("x-user", "a")]))
            .response
            .private
    };
    assert!(private(json!({})));
    assert!(!private(json!({ "cacheControl": "leave" })));
}
