//! Free ports, for programs that cannot bind port 0 and say what they got.

use anyhow::{Context, Result};
use std::net::TcpListener;

/// A loopback port that was free a moment ago.
///
/// Somebody else may take it before the caller does, so prefer port 0 wherever
/// the program can report the port it was given.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free loopback port")?;
    Ok(listener.local_addr()?.port())
}

/// As [`free_port`], several that differ.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until the last one is found.
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free loopback port")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
