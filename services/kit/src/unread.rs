//! What a client still sends when its answer is there.
//!
//! A socket that is closed before all is read resets the connection, and the reset overtakes the
//! answer: a proxy in between makes a 503 of it. So the rest is read and dropped, within bounds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// How much of a body is read after the answer, in bytes. Who sends more may miss the answer.
const MAX_UNREAD: usize = 8 * 1024 * 1024;

/// Answers, then reads and drops what the handler left of the body, for at most `limit`.
pub(crate) async fn read_rest(
    State(limit): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let lent = Lent::new(body);
    let request = Request::from_parts(parts, Body::new(lent.clone()));
    let response = next.run(request).await;
    if let Some(rest) = lent.take_back(waits) {
        // An error says that the time is over.
        tokio::spawn(async move { drop(tokio::time::timeout(limit, read(rest)).await) });
    }
    response
}

async fn read(mut body: Body) {
    let mut left = MAX_UNREAD;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => break,
        }
    }
}

/// A body that can be taken back from who reads it.
#[derive(Clone)]
struct Lent(Arc<Mutex<Inner>>);

struct Inner {
    /// Until its end.
    body: Option<Body>,
    /// Whether anybody has begun to read it.
    begun: bool,
}

impl Lent {
    fn new(body: Body) -> Self {
        let body = Some(body);
        Self(Arc::new(Mutex::new(Inner { body, begun: false })))
    }

    /// What is left of it. Of a client that waits for `100 Continue` and never got it, nothing: to
    /// read would be to ask for the body.
    fn take_back(&self, waits: bool) -> Option<Body> {
        self.with(|inner| match waits && !inner.begun {
            true => None,
            false => inner.body.take(),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|inner| {
            inner.begun = true;
            let Some(body) = &mut inner.body else {
                return Poll::Ready(None);
            };
            let frame = Pin::new(body).poll_frame(context);
            if let Poll::Ready(None | Some(Err(_))) = frame {
                inner.body = None;
            }
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.with(|inner| inner.body.as_ref().is_none_or(Body::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        let hint = |body: &Body| body.size_hint();
        self.with(|inner| inner.body.as_ref().map(hint).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{Json, MAX_BODY, Service};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Connects to a service with this time for a request.
    async fn connect(limit: Duration) -> TcpStream {
        let routes = Router::new().route("/", post(async |_: Json<()>| ()));
        let version = "v1".parse().expect("a version");
        let service = Service::new("test", version).expect("a service");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let router = service.router(routes, limit);
        tokio::spawn(async { axum::serve(listener, router).await });
        TcpStream::connect(address).await.expect("connects")
    }

    fn head(request: &str, more: &str) -> Vec<u8> {
        format!("{request} HTTP/1.1\r\nhost: test\r\n{more}\r\n\r\n").into_bytes()
    }

    /// Reads until what came ends like this.
    async fn read_to(connection: &mut TcpStream, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let byte = tokio::time::timeout(PATIENCE, connection.read_u8()).await;
            let so_far = || String::from_utf8_lossy(&read);
            read.push(byte.expect("in time").unwrap_or_else(|error| {
                panic!("{error} after {:?}", so_far());
            }));
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    #[tokio::test]
    async fn whoever_sends_a_large_body_gets_the_answer_and_the_connection_goes_on() {
        let mut connection = connect(PATIENCE).await;
        let json = "content-type: application/json";
        for (request, more, length, status) in [
            ("POST /", json, 1_000_000, "413"),
            // More would be too large, whatever it is.
            ("POST /", "content-type: text/plain", MAX_BODY, "415"),
            ("PUT /", json, 1_000_000, "405"),
            ("POST /nowhere", json, 1_000_000, "404"),
            ("GET /health", json, 1_000_000, "200"),
        ] {
            for sized in [true, false] {
                let body = vec![b'['; length];
                let (framing, body) = match sized {
                    true => (format!("content-length: {}", body.len()), body),
                    false => {
                        let size = format!("{:x}\r\n", body.len()).into_bytes();
                        let chunk = [&size, body.as_slice(), b"\r\n0\r\n\r\n"].concat();
                        ("transfer-encoding: chunked".to_owned(), chunk)
                    }
                };
                let head = head(request, &format!("{more}\r\n{framing}"));
                connection.write_all(&head).await.expect("sent");
                connection.write_all(&body).await.expect("sent");
                let answer = read_to(&mut connection, "}").await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}")),
                    "{answer}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_not_read_for_ever() {
        let mut connection = connect(10 * PATIENCE).await;
        let head = head("POST /nowhere", "transfer-encoding: chunked");
        connection.write_all(&head).await.expect("sent");
        let answer = read_to(&mut connection, "}").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        let mut sent = 0;
        while connection.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
            // What is on its way fits into the buffers of the two sockets.
            assert!(sent < 8 * MAX_UNREAD, "it reads on after {sent} bytes");
        }
        assert!(sent >= MAX_UNREAD, "{sent}");
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_not_read_for_ever() {
        let mut connection = connect(Duration::from_millis(200)).await;
        let head = head("POST /nowhere", "content-length: 1000000");
        connection.write_all(&head).await.expect("sent");
        let answer = read_to(&mut connection, "}").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let trickle = async {
            while connection.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let closed = tokio::time::timeout(PATIENCE, trickle).await;
        closed.expect("the connection is closed");
    }

    #[tokio::test]
    async fn a_client_that_waits_to_be_asked_for_its_body_is_not_asked() {
        let mut connection = connect(PATIENCE).await;
        let head = head("POST /nowhere", "expect: 100-continue\r\ncontent-length: 9");
        connection.write_all(&head).await.expect("sent");
        let mut answer = String::new();
        let all = tokio::time::timeout(PATIENCE, connection.read_to_string(&mut answer)).await;
        all.expect("closed").expect("in order");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}
