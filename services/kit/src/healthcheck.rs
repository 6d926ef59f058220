//! A health check for containers without a shell.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the service that listens at `address` whether it is well; an error if it is not.
pub(crate) async fn healthcheck(address: SocketAddr) -> io::Result<()> {
    let address = on_this_machine(address);
    let asked = tokio::time::timeout(TIMEOUT, ask(address)).await;
    let status = asked.map_err(|_| {
        let reason = format!("no answer from {address} within {TIMEOUT:?}");
        io::Error::new(io::ErrorKind::TimedOut, reason)
    })??;
    if status == *b"HTTP/1.1 200" {
        return Ok(());
    }
    let status = String::from_utf8_lossy(&status).into_owned();
    Err(io::Error::other(format!(
        "{address} answered {status}, not 200"
    )))
}

/// The begin of the answer: protocol and status.
async fn ask(address: SocketAddr) -> io::Result<[u8; 12]> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(status)
}

/// Where to reach who listens at `address`, which may mean every address of this machine.
fn on_this_machine(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
