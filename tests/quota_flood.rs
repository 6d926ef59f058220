//! A flood of made-up users wears down neither the quota of a user who was refused, nor that of users
//! who come while it lasts, nor the memory of the gateway.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::http::{Client, Request};
use promises::{Gateway, with_quotas};
use serde_json::json;

const FLOOD: usize = 200_000;
const MIB: usize = 1 << 20;

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.expect("VmRSS in kB") * 1024
}

fn admitted(client: &mut Client, user: &str, requests: usize) -> usize {
    let request = Request::get("/").header("X-User", user);
    let send = |_| client.send(&request).expect("a response").status == 200;
    (0..requests).map(send).filter(|admitted| *admitted).count()
}

#[test]
fn a_flood_of_200_000_users_refunds_nobody_shuts_nobody_out_and_takes_little_memory() {
    // Longer than any flood here takes: no state expires while it lasts.
    let quota = json!({ "name": "per-user", "key": ["user"], "limit": 10, "period": "1h" });
    let gateway = Gateway::start(&with_quotas(json!([quota])));
    let connect = |from: [u8; 4]| {
        Client::connect_from(Ipv4Addr::from(from), gateway.address()).expect("a connection")
    };
    let mut alice = connect([127, 0, 0, 1]);
    assert_eq!(admitted(&mut alice, "alice", 15), 10);
    let before = resident(gateway.envoy().process().id());

    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Half of them come from where alice is, the others from elsewhere.
        let floods: Vec<_> = (0..8)
            .map(|worker: u8| {
                let (connect, next) = (&connect, &next);
                scope.spawn(move || {
                    let mut client = connect([127, 0, worker / 4 * worker, 1]);
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= FLOOD {
                            break;
                        }
                        admitted(&mut client, &format!("flood-{n}"), 1);
                    }
                })
            })
            .collect();
        let (alice, done) = (&mut alice, &done);
        let watch = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(admitted(alice, "alice", 1), 0, "she was refused before");
            }
        });
        for user in 0..20 {
            let due = (user + 1) * FLOOD / 21;
            while next.load(Ordering::Relaxed) < due {
                assert!(!watch.is_finished(), "refunded");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let mut newcomer = connect([127, 5, 5, 5]);
            assert_eq!(
                admitted(&mut newcomer, &format!("newcomer-{user}"), 15),
                10,
                "{due}"
            );
        }
        for flood in floods {
            flood.join().expect("an end");
        }
        done.store(true, Ordering::Relaxed);
        watch.join().expect("an end");
    });
    assert_eq!(admitted(&mut alice, "alice", 5), 0);
    let grown = resident(gateway.envoy().process().id()).saturating_sub(before);
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
    assert_eq!(
        gateway.metric("lanekeeper_quota_overflow_total", &[("quota", "per-user")]),
        Some(0)
    );
    assert_eq!(gateway.crashes(), 0);
    println!("{} MiB more", grown / MIB);
}
