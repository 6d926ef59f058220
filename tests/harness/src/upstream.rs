//! An upstream that answers with exactly what it received, so that tests can
//! look at what the proxy in front of it sent.

use crate::headers::Headers;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// A running upstream, on a loopback port of its own. It ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<State>,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct State {
    status: u16,
    headers: Headers,
    received: Vec<Echo>,
}

/// A request as the upstream received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The name of the upstream that received it.
    pub upstream: String,
    /// The method.
    pub method: String,
    /// The request target.
    pub path: String,
    /// All headers, in order, repeated ones included.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Upstream {
    /// Starts an upstream that signs its answers with `name`.
    pub fn start(name: &str) -> Result<Upstream> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = State {
            status: 200,
            headers: Headers::default(),
            received: vec![],
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            state: Mutex::new(state),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    if let Err(why) = serve(stream, &shared) {
                        eprintln!("upstream {}: {why:#}", shared.name);
                    }
                });
            }
        });
        Ok(Upstream { address, shared })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The status of all answers from now on.
    pub fn set_status(&self, status: u16) {
        self.state().status = status;
    }

    /// Headers to add to all answers from now on.
    pub fn set_response_headers(&self, headers: impl Into<Headers>) {
        self.state().headers = headers.into();
    }

    /// Every request received so far, also those whose answer nobody saw.
    pub fn received(&self) -> Vec<Echo> {
        self.state().received.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Echo {
    /// Reads the answer of an [`Upstream`] back.
    pub fn of(response: &crate::http::Response) -> Result<Echo> {
        Echo::from_json(&response.body).with_context(|| {
            format!(
                "not the answer of an echo upstream: {} {}",
                response.status,
                response.text()
            )
        })
    }

    fn to_json(&self) -> Value {
        let headers = self.headers.iter().map(|(n, v)| json!([n, latin1(v)]));
        json!({
            "upstream": self.upstream,
            "method": self.method,
            "path": self.path,
            "headers": headers.collect::<Vec<_>>(),
            "body": latin1(&self.body),
        })
    }

    fn from_json(json: &[u8]) -> Option<Echo> {
        let json: Value = serde_json::from_slice(json).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let headers = json["headers"].as_array()?.iter();
        Some(Echo {
            upstream: text(&json["upstream"])?,
            method: text(&json["method"])?,
            path: text(&json["path"])?,
            headers: headers
                .map(|h| Some((text(&h[0])?, bytes(&h[1])?)))
                .collect::<Option<_>>()?,
            body: bytes(&json["body"])?,
        })
    }
}

/// Bytes as JSON text without loss: each becomes the character of its number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

fn bytes(json: &Value) -> Option<Vec<u8>> {
    json.as_str()?
        .chars()
        .map(|c| u8::try_from(c).ok())
        .collect()
}

/// Answers the requests of one connection until it is closed.
fn serve(mut stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![];
    while let Some(echo) = receive(&mut stream, &mut buffer, &shared.name)? {
        let body = echo.to_json().to_string();
        let answer = {
            let mut state = shared.state();
            state.received.push(echo);
            answer(&state, &body)
        };
        stream.write_all(&answer)?;
    }
    Ok(())
}

fn answer(state: &State, body: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {} Echo\r\n", state.status).into_bytes();
    for (name, value) in state.headers.iter() {
        out.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    if state.headers.all("content-type").is_empty() {
        out.extend_from_slice(b"content-type: application/json\r\n");
    }
    out.extend_from_slice(format!("content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    out
}

/// One request; `None` at the end of the connection. Bodies need a
/// `Content-Length`: what a proxy sends chunked is refused.
fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>, upstream: &str) -> Result<Option<Echo>> {
    loop {
        let mut headers = vec![httparse::EMPTY_HEADER; 4096];
        let mut parsed = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(length) = parsed.parse(buffer)? {
            let headers = parsed.headers.iter();
            let mut echo = Echo {
                upstream: upstream.to_owned(),
                method: parsed.method.unwrap_or_default().to_owned(),
                path: parsed.path.unwrap_or_default().to_owned(),
                headers: headers.map(|h| (h.name, h.value)).collect(),
                body: vec![],
            };
            buffer.drain(..length);
            ensure!(
                echo.headers.get("transfer-encoding").is_none(),
                "a chunked request"
            );
            let length = echo.headers.get("content-length").unwrap_or("0").parse()?;
            while buffer.len() < length {
                ensure!(
                    fill(stream, buffer)?,
                    "the connection was closed within a body"
                );
            }
            echo.body = buffer.drain(..length).collect();
            return Ok(Some(echo));
        }
        if !fill(stream, buffer)? {
            return Ok(None);
        }
    }
}

/// Reads more; false at the end of the connection.
fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<bool> {
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk) {
        Ok(length) => {
            buffer.extend_from_slice(&chunk[..length]);
            Ok(length > 0)
        }
        // A killed Envoy does not say goodbye.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(error.into()),
    }
}
