//! `lanekeeper assign` answers as the filter does, and anybody can recompute its slots.

use std::collections::BTreeSet;

use serde_json::{Value, json};

mod run;
use run::{Ran, files, lanekeeper, lanekeeper_with, policies};

const GATEWAY: &str = "gateway.yaml";

/// 2027-01-15, day 20833.
const NOW: &str = "1800000000";

const SHOP: &str = "\
rollouts:
  - name: shop
    hosts: ['*.shop.example', shop.example]
    pathPrefixes: [/api]
    versions:
      - { name: stable, weight: 50, baseline: true }
      - { name: canary, weight: 50 }
    override: { header: x-experiment, secret: { header: x-secret, env: SHOP_SECRET } }
";

/// Asks about the gateway's policy of the repository.
fn gateway(args: &[&str], stdin: &str) -> Ran {
    let all = [&["assign", "--policy", GATEWAY, "--now", NOW], args].concat();
    lanekeeper(&policies(), &all, stdin)
}

fn answer(args: &[&str]) -> Value {
    let ran = gateway(&[args, &["--output", "json"]].concat(), "");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
    serde_json::from_str(&ran.out).unwrap()
}

/// MurmurHash3_x86_32 with seed 0, written from its description and not from the crate.
fn murmur3(data: &[u8]) -> u32 {
    let scramble = |k: u32| {
        k.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let mut hash = 0_u32;
    let mut blocks = data.chunks_exact(4);
    for block in &mut blocks {
        hash ^= scramble(u32::from_le_bytes(block.try_into().unwrap()));
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    let mut tail = [0; 4];
    tail[..blocks.remainder().len()].copy_from_slice(blocks.remainder());
    hash ^= scramble(u32::from_le_bytes(tail));
    hash ^= data.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[test]
fn slots_can_be_recomputed() {
    let known = [("alice", 7_590), ("bob", 6_127), ("carol", 2_743)];
    let others = ["", "é", "user@example.com", "a b"].map(|tail| format!("x{tail}"));
    for (user, slot) in known {
        assert_eq!(
            murmur3(format!("sms-checker:{user}").as_bytes()) % 10_000,
            slot
        );
    }
    for user in known
        .iter()
        .map(|(user, _)| *user)
        .chain(others.iter().map(String::as_str))
    {
        let slot = murmur3(format!("sms-checker:{user}").as_bytes()) % 10_000;
        let version = if slot < 9_000 { "stable" } else { "canary" };
        assert_eq!(
            answer(&["--user", user]),
            json!({
                "user": user,
                "host": "sms-checker.local",
                "path": "/",
                "rollout": "sms-checker",
                "version": version,
                "source": "slot",
                "slot": slot,
                "minted": false,
                "setCookies": [format!("app-version={version}.0.20833; Path=/; Max-Age=2592000; SameSite=Lax")],
                "removedHeaders": [],
            })
        );
    }
}

#[test]
fn ten_thousand_users_in_one_call() {
    let users: Vec<String> = (0..10_000).map(|number| format!("user-{number}")).collect();
    let ran = gateway(&["--users-from", "-"], &users.join("\n"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let expected = users.iter().map(|user| {
        let slot = murmur3(format!("sms-checker:{user}").as_bytes()) % 10_000;
        let version = if slot < 9_000 { "stable" } else { "canary" };
        format!("{user}\t{version}\tslot\t{slot}")
    });
    assert!(ran.out.lines().eq(expected));
}

#[test]
fn users_from_a_file_as_json_lines() {
    let directory = files(&[("users", "alice\r\n\r\nbob\r\n"), ("shop.yaml", SHOP)]);
    let args = [
        "assign",
        "--policy",
        "shop.yaml",
        "--users-from",
        "users",
        "--output",
        "json",
    ];
    let ran = lanekeeper_with(directory.path(), &args, "", &[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let users: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["user"].clone())
        .collect();
    assert_eq!(users, ["alice", "bob"]);
}

#[test]
fn text_is_for_people() {
    let ran = gateway(
        &[
            "--user",
            "alice",
            "--user",
            "bob",
            "--header",
            "X-Shadow: true",
        ],
        "",
    );
    assert_eq!(
        ran.out,
        "\
user        alice
request     GET sms-checker.local/
rollout     sms-checker
version     stable
source      slot: stable owns slot 7590
slot        7590
set-cookie  app-version=stable.0.20833; Path=/; Max-Age=2592000; SameSite=Lax
removed     x-shadow

user        bob
request     GET sms-checker.local/
rollout     sms-checker
version     stable
source      slot: stable owns slot 6127
slot        6127
set-cookie  app-version=stable.0.20833; Path=/; Max-Age=2592000; SameSite=Lax
removed     x-shadow
"
    );
}

#[test]
fn every_source_is_explained() {
    let cases: [(&[&str], &str); 5] = [
        (
            &["--header", "x-experiment: canary"],
            "override: the override header asks for canary",
        ),
        (
            &["--cookie", "app-version=canary.0.20833"],
            "cookie: the version cookie names canary",
        ),
        (&[], "slot: stable owns slot 7590"),
        (
            &["--path", "/health"],
            "exempt: the path is exempt: baseline, no cookie",
        ),
        (
            &["--host", "other.example"],
            "unmatched: no rollout has this host and path: no version header",
        ),
    ];
    for (args, expected) in cases {
        let ran = gateway(&[&["--user", "alice"], args].concat(), "");
        let source = ran.out.lines().find_map(|line| line.strip_prefix("source"));
        assert_eq!(source.map(str::trim), Some(expected), "{}", ran.out);
    }
    let policy = "\
rollouts:
  - name: api
    hosts: [api.example]
    clientHeader: accept
    onMissing: baseline
    versions: [{ name: stable, weight: 0, baseline: true }, { name: canary, weight: 100 }]
";
    for (header, expected) in [
        (
            "x-app-version: canary",
            "header: the client's own x-app-version names canary",
        ),
        ("x-other: canary", "baseline: nothing says otherwise"),
    ] {
        let args = ["assign", "--policy", "-", "--header", header];
        let ran = lanekeeper(files(&[]).path(), &args, policy);
        assert!(ran.out.contains(expected), "{}{}", ran.out, ran.err);
    }
    // In a list of users there is no room for reasons.
    let ran = gateway(&["--users-from", "-", "--host", "other.example"], "alice\n");
    assert_eq!(ran.out, "alice\t-\tunmatched\t-\n");
}

#[test]
fn a_stranger_gets_a_visitor_id() {
    let ids: BTreeSet<String> = (0..3)
        .map(|_| {
            let answer = answer(&[]);
            assert_eq!(
                (&answer["minted"], &answer["source"]),
                (&json!(true), &json!("slot"))
            );
            let id = answer["user"].as_str().unwrap().to_owned();
            let cookie = answer["setCookies"][0].as_str().unwrap();
            assert!(cookie.starts_with(&format!("visitor={id}; ")), "{cookie}");
            assert_eq!(id.len(), 32);
            assert_eq!(
                answer["slot"],
                json!(murmur3(format!("sms-checker:{id}").as_bytes()) % 10_000)
            );
            id
        })
        .collect();
    assert_eq!(ids.len(), 3, "no id comes twice");
    let ran = gateway(&[], "");
    assert!(ran.out.contains(" (visitor id, minted)\n"), "{}", ran.out);

    let known = answer(&["--cookie", "visitor=alice"]);
    assert_eq!(
        (&known["minted"], &known["slot"]),
        (&json!(false), &json!(7590))
    );
}

#[test]
fn cookies_are_secure_where_the_client_speaks_https() {
    let answer = answer(&["--user", "alice", "--header", "x-forwarded-proto: https"]);
    assert!(
        answer["setCookies"][0]
            .as_str()
            .unwrap()
            .ends_with("; Secure")
    );
}

#[test]
fn defaults_come_from_the_policy_and_the_environment() {
    let directory = files(&[
        ("policy.yaml", SHOP),
        ("other.yaml", &SHOP.replace("shop.example", "other.example")),
    ]);
    let args = ["assign", "--user", "zoe"];
    let ran = lanekeeper(directory.path(), &args, "");
    assert!(ran.out.contains("GET shop.example/api\n"), "{}", ran.out);
    // Its first identity is the cookie `visitor`, which is renewed with the version.
    assert!(ran.out.contains("set-cookie  visitor=zoe; "), "{}", ran.out);

    let ran = lanekeeper_with(
        directory.path(),
        &args,
        "",
        &[("LANEKEEPER_POLICY", "other.yaml")],
    );
    assert!(ran.out.contains("GET other.example/api\n"), "{}", ran.out);
}

#[test]
fn an_override_needs_its_secret() {
    let directory = files(&[("policy.yaml", SHOP)]);
    let ask = |version: &str, env: &[(&str, &str)]| {
        let header = format!("x-experiment: {version}");
        let args = [
            "assign",
            "--user",
            "a",
            "--header",
            &header,
            "--header",
            "x-secret: s3",
        ];
        lanekeeper_with(directory.path(), &args, "", env)
    };
    for version in ["stable", "canary"] {
        let ran = ask(version, &[("SHOP_SECRET", "s3")]);
        let reason = format!("override: the override header asks for {version}");
        assert!(
            ran.out.contains(&reason) && ran.out.contains("removed     x-secret"),
            "{}",
            ran.out
        );
        assert_eq!(ran.err, "");
        assert!(
            ask(version, &[("SHOP_SECRET", "s4")])
                .out
                .contains("source      slot: ")
        );
    }
    let ran = ask("canary", &[]);
    assert!(ran.out.contains("source      slot: "), "{}", ran.out);
    assert_eq!(
        ran.err,
        "note: SHOP_SECRET is not set, so no override that needs it is honoured\n"
    );
}

#[test]
fn what_cannot_be_answered_is_said() {
    let wildcard = SHOP.replace(", shop.example", "");
    let sidecar = "sidecar: { serves: own }\n";
    let directory = files(&[
        ("shop.yaml", SHOP),
        ("wildcard.yaml", &wildcard),
        ("sidecar.yaml", sidecar),
        ("users", "\nb;c\n"),
    ]);
    let cases: [(i32, &[&str], &str); 15] = [
        (
            1,
            &["--policy", "absent.yaml"],
            "absent.yaml: cannot be read: ",
        ),
        (
            1,
            &[],
            "name the policy with --policy FILE or the environment variable LANEKEEPER_POLICY",
        ),
        (
            1,
            &["--policy", "sidecar.yaml"],
            "sidecar.yaml: the policy has no rollouts, so there is nothing to assign",
        ),
        (
            1,
            &["--policy", "shop.yaml", "--users-from", "absent"],
            "absent: cannot be read: ",
        ),
        (
            1,
            &["--policy", "shop.yaml", "--users-from", "users"],
            "users:2: \"b;c\": what the cookie visitor can carry: 1 to 256 bytes without control characters, semicolons or spaces at the ends",
        ),
        (
            2,
            &["--policy", "wildcard.yaml"],
            "--host is needed: every host of the policy is a pattern",
        ),
        (
            2,
            &["--policy", "shop.yaml", "--user", ""],
            "--user \"\": what the cookie visitor can carry: ",
        ),
        (
            2,
            &[
                "--policy",
                "shop.yaml",
                "--user",
                "a",
                "--cookie",
                "visitor=b",
            ],
            "--user \"a\": goes into the cookie visitor, which --cookie sets already",
        ),
        (
            2,
            &["--policy", "-", "--users-from", "-"],
            "--policy and --users-from cannot both be the standard input",
        ),
        (
            2,
            &["--user", "a", "--users-from", "-"],
            "cannot be used with",
        ),
        (
            2,
            &["--host", "*.shop.example"],
            "a host, with or without a port",
        ),
        (
            2,
            &["--path", "api"],
            "a path that begins with /, without spaces",
        ),
        (2, &["--cookie", "visitor"], "a cookie as name=value"),
        (2, &["--header", ":path: /"], "a header as 'name: value'"),
        (
            2,
            &["--header", "Host: a"],
            "any header but host, which is --host",
        ),
    ];
    for (code, args, message) in cases {
        let ran = lanekeeper(directory.path(), &[&["assign"], args].concat(), "");
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{args:?}");
        assert!(ran.err.contains(message), "{args:?}: {}", ran.err);
    }
    // The gateway's first identity is a header.
    let ran = gateway(&["--user", "alice", "--header", "X-User: bob"], "");
    assert!(
        ran.err
            .contains("--user \"alice\": goes into the header x-user, which --header sets already"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("Usage: lanekeeper assign"), "{}", ran.err);

    let two = format!("{SHOP}---\n{SHOP}");
    let ran = lanekeeper(directory.path(), &["assign", "--policy", "-"], &two);
    assert_eq!(
        ran.err,
        "<stdin>: policy: several: a file with one policy\n"
    );
}
