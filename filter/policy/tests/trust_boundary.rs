//! Nothing a client sends is trusted unless the policy says so.

mod support;

use lanekeeper_policy::{Outcome, Policy};
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn headers_that_only_the_filter_may_set_do_not_pass() {
    let policy = policy(json!({}));
    let spoofed = [
        ("X-App-Version", "canary"),
        ("x-app-version", "canary"),
        ("X-SHADOW", "true"),
        ("x-rollout-bucket", "7"),
    ];
    let request = get(&spoofed);
    let decision = decide(&policy, &request);
    assert_eq!(decision.version, Some("stable"));
    assert_eq!(decision.remove, ["x-shadow"]);
    assert_ne!(decision.bucket, Some(7), "the client's");
}

#[test]
fn where_no_rollout_is_they_do_not_pass_either() {
    let policy = policy(json!({}));
    let spoofed = [
        ("x-app-version", "canary"),
        ("x-shadow", "true"),
        ("x-rollout-bucket", "7"),
    ];
    let request = request("GET", "other.local", "/", &spoofed);
    let decision = decide(&policy, &request);
    assert_eq!(decision.outcome, Outcome::Unmatched);
    assert_eq!(decision.version, None);
    assert_eq!(
        decision.remove,
        ["x-shadow", "x-rollout-bucket", "x-app-version"]
    );
    assert_eq!(decision.response, Default::default());
}

#[test]
fn a_policy_that_decides_nothing_lets_nothing_pass_either() {
    let policy = Policy::pass_through();
    let request = get(&[("x-app-version", "canary")]);
    let decision = decide(&policy, &request);
    assert_eq!(
        (decision.version, &*decision.remove),
        (None, &["x-app-version"][..])
    );
}

fn with_secret(secret: Option<&str>) -> Result<Policy, String> {
    let by = json!({ "header": "x-experiment", "secret": { "header": "x-key", "env": "KEY" } });
    let document = json!({ "rollouts": [rollout_with(json!({ "override": by }))] });
    Policy::compile(&document, &|name| {
        (name == "KEY").then(|| secret.map(str::to_owned))?
    })
    .map_err(|faults| faults.to_string())
}

#[test]
fn an_override_may_demand_a_secret_which_is_not_handed_on() {
    let policy = with_secret(Some("s3cret")).expect("a policy");
    let asked = |key: &[&str]| {
        let keys = key.iter().map(|key| ("x-key", *key));
        let headers: Vec<_> = [("x-user", &*stable_user()), ("x-experiment", "canary")]
            .into_iter()
            .chain(keys)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let headers: Vec<_> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let request = get(&headers);
        let decision = decide(&policy, &request);
        assert_eq!(decision.remove.contains(&"x-key"), !key.is_empty());
        decision.version.map(str::to_owned).expect("a version")
    };
    assert_eq!(asked(&["s3cret"]), "canary");
    for wrong in [
        &[][..],
        &[""],
        &["S3cret"],
        &["s3cret "],
        &["s3cret", "s3cret"],
    ] {
        assert_eq!(asked(wrong), "stable", "{wrong:?}");
    }
}

#[test]
fn a_header_that_is_a_secret_of_one_rollout_passes_elsewhere() {
    let policy = with_secret(Some("s3cret")).expect("a policy");
    let request = request("GET", "other.local", "/", &[("x-key", "theirs")]);
    assert!(decide(&policy, &request).remove.is_empty());
}

#[test]
fn a_secret_that_no_request_can_carry_is_a_fault_and_none_is_ever_shown() {
    for useless in [
        None,
        Some(""),
        Some("s3cret\n"),
        Some(" s3cret"),
        Some("s3cr\u{e9}t"),
    ] {
        let faults = with_secret(useless).expect_err("no secret");
        let expected = "rollouts[0].override.secret.env: \"KEY\": a variable of the plugin";
        assert!(faults.starts_with(expected), "{faults}");
        assert!(!faults.contains("s3cr"), "{faults}");
    }
    let policy = with_secret(Some("s3cret")).expect("a policy");
    assert!(!format!("{policy:?}").contains("s3cret"));
    // Written where the variable's name belongs.
    let by = json!({ "header": "x-experiment", "secret": "s3cret" });
    let faults = faults(json!({ "rollouts": [rollout_with(json!({ "override": by }))] })).concat();
    assert!(
        faults.starts_with("rollouts[0].override.secret: a secret: an object"),
        "{faults}"
    );
}
