//! One connection, which is made anew when it has to be.

use std::error::Error;
use std::io;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, COOKIE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::target::Target;

/// How much of a body is looked at; all of it is read.
const LOOKED_AT: usize = 64 * 1024;
/// How long the name of a version may be, in bytes.
const LONGEST_VERSION: usize = 100;

/// A connection to the target.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Rc<Target>,
    open: Option<SendRequest<Empty<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(target: Rc<Target>) -> Self {
        Self { target, open: None }
    }

    /// Sends a request with these headers, and reads the whole answer; or why there is none.
    pub(crate) async fn get(&mut self, headers: HeaderMap) -> Result<Answer, String> {
        let target = Rc::clone(&self.target);
        // Whatever goes wrong, it is not used any more: it is out of `open` until all is well.
        match timeout(target.timeout, self.exchange(headers)).await {
            Ok(done) => done,
            Err(_) => Err(format!("no answer within {:?}", target.timeout)),
        }
    }

    async fn exchange(&mut self, headers: HeaderMap) -> Result<Answer, String> {
        let mut request = self.request(headers);
        if let Some(mut open) = self.open.take()
            && open.ready().await.is_ok()
        {
            match open.try_send_request(request).await {
                Ok(response) => return self.read(open, response).await,
                // Closed while it was idle; nothing of the request was sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(explain(error.error())),
                },
            }
        }
        let mut open = self.connect().await?;
        match open.send_request(request).await {
            Ok(response) => self.read(open, response).await,
            Err(error) => Err(explain(&error)),
        }
    }

    fn request(&self, headers: HeaderMap) -> Request<Empty<Bytes>> {
        let cookies = self.target.headers.get_all(COOKIE).into_iter();
        let cookies = cookies.chain(headers.get_all(COOKIE));
        let cookies: Vec<_> = cookies.map(HeaderValue::as_bytes).collect();
        let cookies = HeaderValue::from_bytes(&cookies.join(&b"; "[..]));
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(self.target.path.clone());
        *request.headers_mut() = self.target.headers.clone();
        request.headers_mut().extend(headers);
        // All of them in one field (RFC 6265, 5.4).
        if let Ok(cookies) = cookies
            && !cookies.is_empty()
        {
            request.headers_mut().insert(COOKIE, cookies);
        }
        if self.target.new_connections {
            let close = HeaderValue::from_static("close");
            request.headers_mut().insert(CONNECTION, close);
        }
        request
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let address = (self.target.host.as_str(), self.target.port);
        let cannot = |error: io::Error| format!("cannot connect: {error}");
        let stream = TcpStream::connect(address).await.map_err(cannot)?;
        stream.set_nodelay(true).map_err(cannot)?;
        let (open, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| explain(&error))?;
        // What goes wrong with it, the request learns as well.
        spawn_local(async { drop(connection.await) });
        Ok(open)
    }

    async fn read(
        &mut self,
        open: SendRequest<Empty<Bytes>>,
        response: Response<Incoming>,
    ) -> Result<Answer, String> {
        let (head, mut rest) = response.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = rest.frame().await {
            let frame = frame.map_err(|error| explain(&error))?;
            if let Ok(data) = frame.into_data() {
                let room = LOOKED_AT - body.len();
                body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        if !self.target.new_connections {
            self.open = Some(open);
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

fn explain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "the connection was closed before the answer".to_owned();
    }
    if error.is_parse() {
        return "what came is not HTTP/1.1".to_owned();
    }
    let source = error.source().map(ToString::to_string);
    source.unwrap_or_else(|| error.to_string())
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// The version that every tier of `x-served-by` names; all of them, if they do not agree.
    pub(crate) fn served_by(&self) -> Option<String> {
        let mut versions: Vec<&str> = Vec::new();
        for value in self.headers.get_all("x-served-by") {
            for tier in value.to_str().ok()?.split(',') {
                let (_, version) = tier.trim().split_once(";v=")?;
                if !versions.contains(&version) {
                    versions.push(version);
                }
            }
        }
        printable(&versions.join("+"))
    }

    /// The field `version` of a JSON body.
    pub(crate) fn json_version(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        printable(body.get("version")?.as_str()?)
    }
}

/// A version that can be shown on a terminal, as any server may say anything.
fn printable(version: &str) -> Option<String> {
    let fine = (1..=LONGEST_VERSION).contains(&version.len())
        && !version.chars().any(|c| c.is_control() || c.is_whitespace());
    fine.then(|| version.to_owned())
}
