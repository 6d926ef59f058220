//! A raw HTTP/1.1 client: it sends exactly the bytes it is given, so that tests
//! can send what decent clients refuse (repeated headers, odd casing, bytes
//! that are no UTF-8, headers of 50 KB).

use crate::headers::Headers;
use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_HEADERS: usize = 4096;

/// A request. `Host` and `Content-Length` are added unless given; nothing else.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// A request of any method for a request target, usually a path.
    pub fn new(method: &str, target: &str) -> Request {
        Request {
            method: method.into(),
            target: target.into(),
            headers: vec![],
            body: vec![],
        }
    }

    /// A GET request.
    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    /// A POST request.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request::new("POST", target).body(body)
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// Appends a header; also one that is there already.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Request {
        self.headers
            .push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// The method, the target, the headers and the body.
    #[allow(clippy::type_complexity)]
    pub fn parts(&self) -> (&str, &str, &[(Vec<u8>, Vec<u8>)], &[u8]) {
        (&self.method, &self.target, &self.headers, &self.body)
    }

    fn has(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
    }

    fn bytes(&self, host: &str) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut put = |name: &[u8], value: &[u8]| {
            out.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
        };
        if !self.has("host") {
            put(b"host", host.as_bytes());
        }
        for (name, value) in &self.headers {
            put(name, value);
        }
        let sized = self.has("content-length") || self.has("transfer-encoding");
        if !sized && (!self.body.is_empty() || self.method == "POST") {
            put(b"content-length", self.body.len().to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// A response: everything the server sent, in order.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All headers, names as they came.
    pub headers: Headers,
    /// The body, without any transfer encoding.
    pub body: Vec<u8>,
}

impl Response {
    /// Reads what `curl --include --http1.1` prints: heads as they came, and the body without any
    /// transfer encoding.
    pub fn of_curl(mut printed: &[u8]) -> Result<Response> {
        loop {
            let mut headers = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
            let (length, status, headers) = parse_head(printed, &mut headers)?
                .context("curl printed no whole head of a response")?;
            printed = &printed[length..];
            if status >= 200 {
                let body = printed.to_vec();
                return Ok(Response {
                    status,
                    headers,
                    body,
                });
            }
        }
    }

    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request on a connection of its own to `host:port`.
pub fn send(address: &str, request: &Request) -> Result<Response> {
    Client::connect(address)?.send(request)
}

/// Gets an `http://host:port/path` URL.
pub fn get(url: &str) -> Result<Response> {
    get_within(TIMEOUT, url)
}

/// Gets a URL from a server that must not keep us waiting.
pub fn get_within(timeout: Duration, url: &str) -> Result<Response> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url}: not http://"))?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (address, path) = rest.split_at(slash);
    let request = Request::get(if path.is_empty() { "/" } else { path });
    Client::connect_within(timeout, address)?.send(&request)
}

/// A kept-alive connection.
#[derive(Debug)]
pub struct Client {
    address: String,
    stream: TcpStream,
    /// Bytes that were read but not yet used.
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<Client> {
        Client::connect_within(TIMEOUT, address)
    }

    /// Connects to `host:port`; no read and no write may take longer.
    pub fn connect_within(timeout: Duration, address: &str) -> Result<Client> {
        let resolved = address.to_socket_addrs()?.next();
        let resolved = resolved.with_context(|| format!("{address}: no such address"))?;
        let stream = TcpStream::connect_timeout(&resolved, timeout)
            .with_context(|| format!("cannot connect to {address}"))?;
        Client::new(address, stream, timeout)
    }

    /// Connects to `host:port` from one of this machine's addresses, such as 127.0.3.1.
    pub fn connect_from(source: Ipv4Addr, address: &str) -> Result<Client> {
        let target: SocketAddr = address.parse().with_context(|| address.to_owned())?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // Ports are scarce when there are many connections.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket
            .connect_timeout(&target.into(), TIMEOUT)
            .with_context(|| format!("cannot connect from {source} to {address}"))?;
        Client::new(address, socket.into(), TIMEOUT)
    }

    fn new(address: &str, stream: TcpStream, timeout: Duration) -> Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Client {
            address: address.to_owned(),
            stream,
            buffer: vec![],
        })
    }

    /// Sends a request and reads its response. An error when the server closes
    /// the connection instead.
    pub fn send(&mut self, request: &Request) -> Result<Response> {
        // A server may answer and close before it has read a large request:
        // what counts is whether a response can be read.
        let sent = self.stream.write_all(&request.bytes(&self.address));
        match self.response(request.method == "HEAD") {
            Err(_) if sent.is_err() => sent.map(|()| unreachable!()).context("cannot send"),
            response => response.with_context(|| {
                format!("{} {} on {}", request.method, request.target, self.address)
            }),
        }
    }

    fn response(&mut self, head: bool) -> Result<Response> {
        let (status, headers) = loop {
            let (status, headers) = self.head()?;
            // 1xx precede the response proper.
            if status >= 200 {
                break (status, headers);
            }
        };
        let mut response = Response {
            status,
            headers,
            body: vec![],
        };
        if head || status == 204 || status == 304 {
            return Ok(response);
        }
        response.body = if response
            .headers
            .all("transfer-encoding")
            .contains(&b"chunked".as_slice())
        {
            self.chunks()?
        } else if let Some(length) = response.headers.get("content-length") {
            self.take(length.parse().context("content-length")?)?
        } else {
            while self.fill()? {}
            std::mem::take(&mut self.buffer)
        };
        Ok(response)
    }

    fn head(&mut self) -> Result<(u16, Headers)> {
        loop {
            let mut headers = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
            if let Some((length, status, headers)) = parse_head(&self.buffer, &mut headers)? {
                self.buffer.drain(..length);
                return Ok((status, headers));
            }
            ensure!(self.fill()?, "the connection was closed before a response");
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = vec![];
        loop {
            match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete((start, size))) => {
                    self.buffer.drain(..start);
                    body.extend(self.take(size.try_into()?)?);
                    // The line end after the data; after the last chunk, the
                    // end of the (empty) trailers.
                    self.take(2)?;
                    if size == 0 {
                        return Ok(body);
                    }
                }
                Ok(httparse::Status::Partial) => {
                    ensure!(self.fill()?, "the connection was closed within a chunk");
                }
                Err(_) => bail!("not a chunk size"),
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            ensure!(self.fill()?, "the connection was closed within the body");
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads more; false at the end of the connection.
    fn fill(&mut self) -> Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let length = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }
}

/// The length of a response's head, its status and its headers; `None` if there is more to come.
fn parse_head<'b>(
    bytes: &'b [u8],
    headers: &mut [httparse::Header<'b>],
) -> Result<Option<(usize, u16, Headers)>> {
    let mut parsed = httparse::Response::new(headers);
    let httparse::Status::Complete(length) = parsed.parse(bytes)? else {
        return Ok(None);
    };
    let status = parsed.code.context("a response without a status")?;
    let headers = parsed.headers.iter();
    let headers = headers.map(|h| (h.name, h.value)).collect();
    Ok(Some((length, status, headers)))
}

/// The `name=value` parts of all Set-Cookie headers of a response, as a browser sends them back.
pub fn cookies(response: &Response) -> String {
    let all = response.headers.all("set-cookie").into_iter();
    all.map(|cookie| {
        String::from_utf8_lossy(cookie.split(|b| *b == b';').next().unwrap_or(b"")).into_owned()
    })
    .collect::<Vec<_>>()
    .join("; ")
}
