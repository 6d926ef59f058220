//! Free ports, for programs that cannot bind port 0 and say what they got.

use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::net::{Ipv6Addr, TcpListener};
use std::ops::Range;

/// Below the ports that systems give to outgoing connections and to those who
/// ask for port 0: one of these would soon be somebody else's.
const CHOICE: Range<u16> = 10_000..32_768;

/// Holds a loopback port, if nobody else has it. An error names the address that is in use: beside
/// 127.0.0.1 also `[::1]`, or another server might answer those who ask for `localhost`.
pub fn hold(port: u16) -> Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            return Err(error).with_context(|| format!("[::1]:{port}"));
        }
        // It is free, or this machine does not speak IPv6.
        _ => {}
    }
    TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("127.0.0.1:{port}"))
}

/// Loopback ports that were free a moment ago, all different and none of `taken`.
///
/// Somebody else may take one before the caller does, so prefer port 0 wherever
/// the program can report the port it was given.
pub fn free_ports<const N: usize>(taken: &[u16]) -> Result<[u16; N]> {
    // All are held until the last one is found.
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for _ in 0..1000 {
        if listeners.len() == N {
            return Ok(ports);
        }
        let port = fastrand::u16(CHOICE);
        if taken.contains(&port) {
            continue;
        }
        if let Ok(listener) = hold(port) {
            ports[listeners.len()] = port;
            listeners.push(listener);
        }
    }
    bail!(
        "there are no {N} free loopback ports from {} to {}",
        CHOICE.start,
        CHOICE.end - 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_free_and_differ() {
        let ports: [u16; 50] = free_ports(&[]).expect("free ports");
        assert_eq!(BTreeSet::from(ports).len(), 50);
        for port in ports {
            TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_not_chosen() {
        let taken: Vec<u16> = CHOICE.filter(|port| port % 2 == 0).collect();
        let ports: [u16; 20] = free_ports(&taken).expect("free ports");
        assert!(ports.iter().all(|port| port % 2 == 1), "{ports:?}");
    }

    #[test]
    fn an_error_names_the_address_that_is_in_use() {
        for (host, name) in [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")] {
            // Where there is no IPv6, nobody can be in the way.
            let Ok(other) = TcpListener::bind((host, 0)) else {
                continue;
            };
            let port = other.local_addr().expect("an address").port();
            let error = hold(port).expect_err("a port in use").to_string();
            assert_eq!(error, format!("{name}{port}"));
        }
    }
}
