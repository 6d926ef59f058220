//! Free ports, for programs that cannot bind port 0 and say what they got.

use anyhow::{Result, bail};
use std::net::TcpListener;
use std::ops::Range;

/// Below the ports that systems give to outgoing connections and to those who
/// ask for port 0: one of these would soon be somebody else's.
const CHOICE: Range<u16> = 10_000..32_768;

/// Loopback ports that were free a moment ago, all different.
///
/// Somebody else may take one before the caller does, so prefer port 0 wherever
/// the program can report the port it was given.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until the last one is found.
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for _ in 0..1000 {
        if listeners.len() == N {
            return Ok(ports);
        }
        let port = fastrand::u16(CHOICE);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
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
        let ports: [u16; 50] = free_ports().expect("free ports");
        assert_eq!(BTreeSet::from(ports).len(), 50);
        for port in ports {
            TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        }
    }
}
