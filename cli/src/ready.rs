//! `lanekeeper ready`

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::Failure;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Ask an Envoy whether it is ready: exit code 0 if it is, else 1. For health checks in containers
/// without a shell.
#[derive(Args, Debug)]
pub(crate) struct Ready {
    /// Where Envoy's admin API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
}

impl Ready {
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let unready = |reason: String| Failure::Input(format!("{}: {reason}", self.admin));
        match self.ask() {
            Ok(status) if status == *b"HTTP/1.1 200" => Ok(ExitCode::SUCCESS),
            Ok(status) => Err(unready(String::from_utf8_lossy(&status).into_owned())),
            Err(error) => Err(unready(error.to_string())),
        }
    }

    /// The begin of the answer: protocol and status.
    fn ask(&self) -> io::Result<[u8; 12]> {
        let mut stream = TcpStream::connect_timeout(&self.admin, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let head = format!("GET /ready HTTP/1.1\r\nhost: {}\r\n", self.admin);
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status)
    }
}
