//! Which version a request gets, and why.

mod support;

use lanekeeper_policy::{Headers, Outcome, Request, Source};
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn is(version: &str, source: Source) -> (String, Source) {
    (version.to_owned(), source)
}

#[test]
fn the_slot_of_the_identity_decides_for_a_new_user() {
    let policy = policy(json!({}));
    assert_eq!(
        assigned(&policy, &[("x-user", &stable_user())]),
        is("stable", Source::Slot)
    );
    assert_eq!(
        assigned(&policy, &[("x-user", &canary_user())]),
        is("canary", Source::Slot)
    );
}

#[test]
fn the_header_names_the_user_before_the_cookie_does() {
    let policy = policy(json!({}));
    let cookie = format!("visitor={}", canary_user());
    let both = [("x-user", &*stable_user()), ("cookie", &cookie)];
    assert_eq!(assigned(&policy, &both), is("stable", Source::Slot));
    assert_eq!(assigned(&policy, &both[1..]), is("canary", Source::Slot));
}

#[test]
fn an_identity_counts_only_when_present_once_with_1_to_256_bytes() {
    let policy = policy(json!({}));
    let slot_of = |headers: &[(&str, &str)]| assignment(&decide(&policy, &get(headers))).slot;
    let minted = Some(murmur_slot("sms-checker", MINTED.as_bytes()));
    let (short, long) = ("u".repeat(256), "u".repeat(257));
    assert_eq!(
        slot_of(&[("x-user", &short)]),
        Some(murmur_slot("sms-checker", short.as_bytes()))
    );
    assert_eq!(slot_of(&[("x-user", &long)]), minted);
    assert_eq!(slot_of(&[("x-user", "")]), minted);
    assert_eq!(slot_of(&[("x-user", "a"), ("x-user", "b")]), minted);
    // The next source of the list is asked.
    let next = Some(murmur_slot("sms-checker", b"v"));
    assert_eq!(slot_of(&[("x-user", &long), ("cookie", "visitor=v")]), next);
}

#[test]
fn of_several_visitor_cookies_the_first_usable_one_names_the_visitor_for_good() {
    // The other one may be of a scope that we cannot replace: minting would never end.
    let policy = policy(json!({ "stickiness": "identity" }));
    let long = "x".repeat(257);
    let first = Some(murmur_slot("sms-checker", b"theirs"));
    for cookies in [
        "visitor=theirs; visitor=ours".to_owned(),
        "visitor=; visitor=theirs; visitor=ours".to_owned(),
        format!("visitor={long}; visitor=theirs"),
    ] {
        let request = get(&[("cookie", &cookies)]);
        let decision = decide(&policy, &request);
        assert_eq!(assignment(&decision).slot, first, "{cookies}");
        assert!(!assignment(&decision).minted);
    }
}

#[test]
fn of_several_trusted_cookies_none_counts() {
    let policy = policy(json!({
        "identity": [{ "cookie": "session", "trusted": true }, { "cookie": "visitor" }],
    }));
    let slot_of = |cookies: &str| assignment(&decide(&policy, &get(&[("cookie", cookies)]))).slot;
    let of = |identity: &[u8]| Some(murmur_slot("sms-checker", identity));
    assert_eq!(slot_of("session=s; visitor=v"), of(b"s"));
    assert_eq!(slot_of("session=s; session=t; visitor=v"), of(b"v"));
}

#[test]
fn identities_are_bytes() {
    let policy = policy(json!({}));
    let mut request = get(&[]);
    request.push(("x-user".to_owned(), vec![0xff, 0xfe]));
    let slot = assignment(&decide(&policy, &request)).slot;
    assert_eq!(slot, Some(murmur_slot("sms-checker", &[0xff, 0xfe])));
}

#[test]
fn a_cookie_decides_before_the_slot() {
    let policy = policy(json!({}));
    let stable = stable_user();
    let user = [
        ("x-user", &*stable),
        ("cookie", "app-version=canary.0.20454"),
    ];
    assert_eq!(assigned(&policy, &user), is("canary", Source::Cookie));
}

#[test]
fn cookie_holders_stay_although_weights_move() {
    let moved = policy(json!({
        "versions": versions(json!({ "weight": 0 }), json!({ "weight": 100 })),
    }));
    let holder = [
        ("x-user", "anybody"),
        ("cookie", "app-version=stable.0.20454"),
    ];
    assert_eq!(assigned(&moved, &holder), is("stable", Source::Cookie));
}

#[test]
fn with_stickiness_identity_the_slot_always_decides() {
    let policy = policy(json!({ "stickiness": "identity" }));
    let user = [
        ("x-user", &*stable_user()),
        ("cookie", "app-version=canary.0.20454"),
    ];
    assert_eq!(assigned(&policy, &user), is("stable", Source::Slot));
}

#[test]
fn an_override_comes_before_everything_and_leaves_no_trace() {
    let policy = policy(json!({}));
    let request = get(&[
        ("x-experiment", "canary"),
        ("cookie", "app-version=stable.0.1"),
    ]);
    let decision = decide(&policy, &request);
    assert_eq!(decision.version, Some("canary"));
    assert_eq!(assignment(&decision).source, Source::Override);
    assert!(decision.response.set_cookies.is_empty());
    assert!(!assignment(&decision).minted);
}

#[test]
fn an_override_that_names_no_version_is_none() {
    let policy = policy(json!({}));
    let user = stable_user();
    for value in ["", "Canary", "nonsense", "canary, canary", "canary "] {
        let headers = [("x-user", &*user), ("x-experiment", value)];
        assert_eq!(
            assigned(&policy, &headers),
            is("stable", Source::Slot),
            "{value:?}"
        );
    }
    let twice = [
        ("x-user", &*user),
        ("x-experiment", "canary"),
        ("x-experiment", "canary"),
    ];
    assert_eq!(assigned(&policy, &twice), is("stable", Source::Slot));
}

#[test]
fn the_clients_own_version_header_counts_only_where_it_is_accepted() {
    let user = stable_user();
    let headers = [("x-user", &*user), ("x-app-version", "canary")];
    assert_eq!(
        assigned(&policy(json!({})), &headers),
        is("stable", Source::Slot)
    );
    let accepting = policy(json!({ "clientHeader": "accept" }));
    assert_eq!(assigned(&accepting, &headers), is("canary", Source::Header));
    for value in ["nonsense", "", "CANARY"] {
        let headers = [("x-user", &*user), ("x-app-version", value)];
        assert_eq!(
            assigned(&accepting, &headers),
            is("stable", Source::Slot),
            "{value:?}"
        );
    }
    let twice = [headers[0], headers[1], headers[1]];
    assert_eq!(assigned(&accepting, &twice), is("stable", Source::Slot));
}

#[test]
fn a_rollout_that_accepts_the_header_mints_nothing_and_sets_no_cookie() {
    let policy = policy(json!({ "clientHeader": "accept" }));
    for headers in [
        &[("x-app-version", "canary")][..],
        &[("x-user", "alice")],
        &[("cookie", "app-version=canary")],
        &[],
    ] {
        let request = get(headers);
        let decision = decide(&policy, &request);
        assert!(decision.response.set_cookies.is_empty(), "{headers:?}");
        assert!(!assignment(&decision).minted, "{headers:?}");
    }
    assert_eq!(assigned(&policy, &[]), is("stable", Source::Baseline));
}

#[test]
fn on_missing_baseline_gives_newcomers_the_baseline_and_remembers_nothing() {
    let policy = policy(json!({ "onMissing": "baseline" }));
    let request = get(&[("x-user", &canary_user())]);
    let decision = decide(&policy, &request);
    assert_eq!(decision.version, Some("stable"));
    assert_eq!(assignment(&decision).source, Source::Baseline);
    assert!(decision.response.set_cookies.is_empty());
    let holder = [("cookie", "app-version=canary.0.20454")];
    assert_eq!(assigned(&policy, &holder), is("canary", Source::Cookie));
}

#[test]
fn without_entropy_a_newcomer_gets_the_baseline_and_no_cookie() {
    let policy = policy(json!({}));
    let headers = get(&[]);
    let request = Request {
        headers: Headers::new(&headers),
        now: NOON,
    };
    let decision = policy.decide(request, &mut || None);
    assert_eq!(decision.version, Some("stable"));
    assert_eq!(assignment(&decision).source, Source::Baseline);
    assert!(decision.response.set_cookies.is_empty());
}

#[test]
fn entropy_is_drawn_only_to_mint() {
    let policy = policy(json!({}));
    for headers in [
        &[("x-user", "alice")][..],
        &[("cookie", "visitor=v")],
        &[("cookie", "app-version=canary.0.20454")],
        &[("x-experiment", "canary")],
    ] {
        let headers = get(headers);
        let request = Request {
            headers: Headers::new(&headers),
            now: NOON,
        };
        policy.decide(request, &mut || panic!("nobody new is here"));
    }
}

#[test]
fn a_visitor_keeps_the_version_that_the_minted_id_stands_for() {
    let policy = policy(json!({ "stickiness": "identity" }));
    // An id in canary's slots: the baseline would be an answer for the wrong reason.
    let id =
        (0..).find(|n: &u128| murmur_slot("sms-checker", format!("{n:032x}").as_bytes()) >= 9_000);
    let id = id.expect("there is one");
    let first = get(&[]);
    let request = Request {
        headers: Headers::new(&first),
        now: NOON,
    };
    let decision = policy.decide(request, &mut || Some(id.to_be_bytes()));
    assert_eq!(decision.version, Some("canary"));
    assert_eq!(assignment(&decision).source, Source::Slot);
    assert!(assignment(&decision).minted);
    let cookie = format!("visitor={id:032x}");
    assert_eq!(
        assigned(&policy, &[("cookie", &cookie)]),
        is("canary", Source::Slot)
    );
}

#[test]
fn draining_keeps_its_holders_and_takes_nobody_new() {
    let policy = policy(json!({
        "versions": versions(json!({ "weight": 90 }), json!({ "weight": 10, "state": "draining" })),
    }));
    let newcomer = canary_user();
    assert_eq!(
        assigned(&policy, &[("x-user", &newcomer)]),
        is("stable", Source::Slot)
    );
    let holder = [("cookie", "app-version=canary.0.20454")];
    assert_eq!(assigned(&policy, &holder), is("canary", Source::Cookie));
    assert_eq!(
        assigned(&policy, &[("x-experiment", "canary")]),
        is("canary", Source::Override)
    );
}

#[test]
fn holders_of_a_version_that_is_off_are_re_assigned_and_told_so() {
    let policy = policy(json!({
        "versions": versions(json!({ "weight": 90 }), json!({ "weight": 10, "state": "off" })),
    }));
    let user = canary_user();
    let request = get(&[("x-user", &user), ("cookie", "app-version=canary.0.20454")]);
    let decision = decide(&policy, &request);
    assert_eq!(decision.version, Some("stable"));
    assert_eq!(assignment(&decision).source, Source::Slot);
    assert!(decision.response.set_cookies[0].starts_with("app-version=stable.0.20454;"));
    let user = [("x-user", &*user), ("x-experiment", "canary")];
    assert_eq!(assigned(&policy, &user), is("stable", Source::Slot));
}

#[test]
fn who_was_moved_off_a_version_stays_where_he_is_when_it_comes_back() {
    let back = policy(json!({}));
    let user = [
        ("x-user", &*canary_user()),
        ("cookie", "app-version=stable.0.20454"),
    ];
    assert_eq!(assigned(&back, &user), is("stable", Source::Cookie));
}

#[test]
fn raising_the_epoch_assigns_everybody_anew() {
    let policy = policy(json!({ "epoch": 3 }));
    let user = stable_user();
    for cookie in [
        "app-version=canary.2.20454",
        "app-version=canary",
        "app-version=canary.4.1",
    ] {
        let headers = [("x-user", &*user), ("cookie", cookie)];
        assert_eq!(
            assigned(&policy, &headers),
            is("stable", Source::Slot),
            "{cookie}"
        );
    }
    let holder = [("x-user", &*user), ("cookie", "app-version=canary.3.20454")];
    assert_eq!(assigned(&policy, &holder), is("canary", Source::Cookie));
}

#[test]
fn a_page_and_the_api_it_calls_agree() {
    let policy = compile(json!({ "rollouts": [
        rollout(),
        rollout_with(json!({
            "hosts": ["api.sms-checker.local"],
            "clientHeader": "accept",
            "onMissing": "baseline",
        })),
    ]}));
    let page = get(&[("x-user", &canary_user())]);
    let version = decide(&policy, &page).version.expect("a version");
    let call = request(
        "POST",
        "api.sms-checker.local",
        "/",
        &[("x-app-version", version)],
    );
    let decision = decide(&policy, &call);
    assert_eq!(decision.version, Some(version));
    assert_eq!(assignment(&decision).source, Source::Header);

    // A page reached by an override, in the browser of a user of stable: where both hosts share a
    // domain, the call has the cookie, too.
    let cookie = ("cookie", "app-version=stable");
    let page = get(&[cookie, ("x-experiment", "canary")]);
    let version = decide(&policy, &page).version.expect("a version");
    let headers = [cookie, ("x-app-version", version)];
    let call = request("POST", "api.sms-checker.local", "/", &headers);
    assert_eq!(
        (version, decide(&policy, &call).version),
        ("canary", Some("canary"))
    );
    // Without a version that serves, the cookie counts.
    let headers = [("cookie", "app-version=canary"), ("x-app-version", "gone")];
    let call = request("POST", "api.sms-checker.local", "/", &headers);
    assert_eq!(assignment(&decide(&policy, &call)).source, Source::Cookie);
}

#[test]
fn there_may_be_many_versions() {
    let policy = policy(json!({ "versions": (0..20).map(|n| json!({
        "name": format!("v{n}"), "weight": 5, "baseline": n == 7,
    })).collect::<Vec<_>>() }));
    let user = [("cookie", "app-version=v19.0.20454")];
    assert_eq!(assigned(&policy, &user), is("v19", Source::Cookie));
    let slot = murmur_slot("sms-checker", b"alice");
    let expected = format!("v{}", slot / 500);
    assert_eq!(
        assigned(&policy, &[("x-user", "alice")]),
        is(&expected, Source::Slot)
    );
}

#[test]
fn preflights_and_exempt_paths_get_the_baseline_and_nothing_else() {
    let policy = policy(json!({ "exempt": ["/healthz", "/assets/"] }));
    let holder = ("cookie", "app-version=canary.0.1");
    let preflight = [
        ("origin", "http://a"),
        ("access-control-request-method", "POST"),
        holder,
    ];
    let exempt = [
        request("OPTIONS", "sms-checker.local", "/sms", &preflight),
        request("GET", "sms-checker.local", "/healthz", &[holder]),
        request("GET", "sms-checker.local", "/healthz/live?x=1", &[]),
        request(
            "GET",
            "sms-checker.local",
            "/assets/app.js",
            &[("x-experiment", "canary")],
        ),
        request("GET", "sms-checker.local", "/x/..//%61ssets/app.js", &[]),
    ];
    for request in &exempt {
        let decision = decide(&policy, request);
        assert_eq!(decision.outcome, Outcome::Exempt);
        assert_eq!(decision.version, Some("stable"));
        assert_eq!(decision.response, Default::default());
    }
    let counted = [
        request(
            "OPTIONS",
            "sms-checker.local",
            "/sms",
            &[("origin", "http://a")],
        ),
        request("GET", "sms-checker.local", "/healthzz", &[]),
        request("GET", "sms-checker.local", "/assets/../sms", &[]),
        request("GET", "sms-checker.local", "/assets/%2e%2e/sms", &[]),
        request("GET", "sms-checker.local", "/sms?/assets/", &[]),
        // What a server behind may take for /sms.
        request("GET", "sms-checker.local", "/assets/..%2fsms", &[]),
        request("GET", "sms-checker.local", "/assets/..%5Csms", &[]),
        request("GET", "sms-checker.local", "/assets/..\\sms", &[]),
    ];
    for request in &counted {
        assert!(
            matches!(decide(&policy, request).outcome, Outcome::Assigned(_)),
            "{request:?}"
        );
    }
}
