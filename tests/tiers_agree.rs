//! Behind the gateway, every tier answers in the user's version: real services, a real sidecar
//! beside each version, and an application that knows nothing of versions.

mod crowd;

use harness::http::Response;
use harness::promise::{self, sms};
use promises::{SmsChecker, user_of};

/// The version that answered, in both tiers.
fn version(response: &Response) -> String {
    promise::version(response).expect("an answer")
}

#[test]
fn users_and_visitors_stay_in_one_version_in_both_tiers() {
    let checker = SmsChecker::start();
    crowd::stays_in_one_version(&checker.gateway(), 200, 5, &sms(), version);
    assert_eq!(checker.mismatches(), 0);
}

#[test]
fn an_override_reaches_canary_in_both_tiers_and_a_spoofed_version_in_none() {
    let checker = SmsChecker::start();
    let address = checker.gateway();
    let user = user_of("stable");
    let request = sms()
        .header("X-User", &user)
        .header("X-Experiment", "canary");
    let response = harness::http::send(&address, &request).expect("a response");
    assert_eq!(version(&response), "canary");
    // What the client claims does not go through two tiers either.
    let request = sms()
        .header("X-User", &user)
        .header("X-App-Version", "canary");
    let response = harness::http::send(&address, &request).expect("a response");
    assert_eq!(version(&response), "stable");
}

#[test]
fn a_request_that_reaches_the_wrong_pod_is_counted_by_its_sidecar() {
    let checker = SmsChecker::start();
    let request = sms().header("X-App-Version", "stable");
    let response = harness::http::send(&checker.sidecar("canary"), &request).expect("a response");
    // It is served, and goes on in the pod's own version.
    assert_eq!(version(&response), "canary");
    assert_eq!(checker.mismatches(), 1);
}
