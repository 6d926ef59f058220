//! The load: requests that are ready as bytes, on a few connections, the next one as soon as there
//! is an answer. It must not think much: it has to keep a worker of Envoy busy.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lanekeeper_policy::slot;

use super::variants::{HOST, ROLLOUT, STABLE_SLOTS};

/// Connections of each variant. On none of them is a request sent before the last one is answered:
/// Envoy does not stand that from a route that answers by itself.
const CONNECTIONS: usize = 8;

/// One in this many users comes for the first time, without a version cookie.
const NEWCOMERS: usize = 10;

const PATHS: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A request and what is expected of the answer.
#[derive(Debug)]
struct Ready {
    bytes: Vec<u8>,
    version: &'static str,
}

/// Requests of so many users, sent in turn.
#[derive(Debug)]
pub(crate) struct Requests {
    ready: Vec<Ready>,
}

impl Requests {
    pub(crate) fn of_users(users: usize) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let today = since_1970.unwrap_or_default().as_secs() / (24 * 60 * 60);
        let ready = (0..users).map(|user| {
            let name = format!("user-{user}@example.com");
            let version = match slot(ROLLOUT, name.as_bytes()) < STABLE_SLOTS {
                true => "stable",
                false => "canary",
            };
            let known = match user % NEWCOMERS {
                0 => String::new(),
                _ => format!("app-version={version}.0.{today}; "),
            };
            // With those that Envoy adds, what a request at a gateway looks like.
            let request = format!(
                "GET /api/items/{}?page=2 HTTP/1.1\r\n\
                 host: {HOST}\r\n\
                 user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
                 accept: application/json\r\n\
                 accept-language: en-GB,en;q=0.7,de;q=0.3\r\n\
                 accept-encoding: gzip, deflate, br, zstd\r\n\
                 x-user: {name}\r\n\
                 cookie: session=abcdef0123456789abcdef0123456789; {known}theme=dark\r\n\
                 \r\n",
                user % PATHS
            );
            Ready {
                bytes: request.into_bytes(),
                version,
            }
        });
        Self {
            ready: ready.collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }
}

/// What answers must be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    /// Whether users get their versions, and not everybody the baseline.
    pub(crate) assigned: bool,
}

/// The clients of one variant.
#[derive(Debug)]
pub(crate) struct Clients {
    connections: Vec<TcpStream>,
    /// The requests sent so far.
    sent: usize,
    buffer: Vec<u8>,
}

impl Clients {
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let connect = |_| {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        let connections = (0..CONNECTIONS).map(connect).collect::<Result<_>>()?;
        Ok(Self {
            connections,
            sent: 0,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Sends so many of the requests, in turn. Returns how many answers were wrong.
    pub(crate) fn send(
        &mut self,
        requests: &Requests,
        count: usize,
        expected: Expected,
    ) -> Result<usize> {
        let mut wrong = 0;
        let first = self.sent;
        let request = |n: usize| &requests.ready[(first + n) % requests.ready.len()];
        // Whose turn it is has most likely been answered: it is the one that waits longest.
        for n in 0..count + CONNECTIONS {
            let stream = &mut self.connections[n % CONNECTIONS];
            if let Some(answered) = n.checked_sub(CONNECTIONS).filter(|n| *n < count) {
                let version = match expected.assigned {
                    true => request(answered).version,
                    false => "stable",
                };
                let answer = receive(stream, &mut self.buffer)?;
                if !answer.is(expected.status, version) {
                    wrong += 1;
                }
            }
            if n < count {
                stream.write_all(&request(n).bytes)?;
            }
        }
        self.sent += count;
        Ok(wrong)
    }
}

/// An answer of Envoy.
struct Answer<'b> {
    status: &'b [u8],
    body: &'b [u8],
}

impl Answer<'_> {
    /// Whether it is what was expected. An answer of Envoy's own has no version.
    fn is(&self, status: u16, version: &str) -> bool {
        self.status == status.to_string().as_bytes()
            && (status != 200 || self.body == version.as_bytes())
    }
}

/// Reads one answer, which must have a length and nothing after it.
fn receive<'b>(stream: &mut TcpStream, buffer: &'b mut [u8]) -> Result<Answer<'b>> {
    let mut length = 0;
    loop {
        ensure!(length < buffer.len(), "an answer is longer than expected");
        let more = match stream.read(&mut buffer[length..]) {
            // By a signal, which is somebody else's business.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            more => more.context("waiting for an answer")?,
        };
        ensure!(more > 0, "Envoy closed a connection");
        length += more;
        if let Some(body) = body_of(&buffer[..length])? {
            return Ok(Answer {
                status: &buffer["HTTP/1.1 ".len()..][..3],
                body: &buffer[body..length],
            });
        }
    }
}

/// Where the body begins; `None` while the answer is not all there.
fn body_of(answer: &[u8]) -> Result<Option<usize>> {
    let answer = str::from_utf8(answer).context("an answer")?;
    let Some(end) = answer.find("\r\n\r\n") else {
        return Ok(None);
    };
    let body = end + 4;
    let (head, _) = answer.split_at(end);
    let length = head.split_once("\r\ncontent-length: ");
    let length = length.and_then(|(_, rest)| rest.split("\r\n").next()?.parse::<usize>().ok());
    let length = length.with_context(|| format!("an answer without content-length:\n{head}"))?;
    Ok((answer.len() >= body + length).then_some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_all_there_with_its_body() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nserver: envoy\r\n\r\ncanary";
        let body = answer.len() - 6;
        let parse = |length: usize| body_of(&answer.as_bytes()[..length]).expect("an answer");
        assert_eq!(parse(answer.len()), Some(body));
        assert_eq!(parse(answer.len() - 1), None);
        assert_eq!(parse(20), None);
        assert!(body_of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn users_of_both_versions_come_some_of_them_for_the_first_time() {
        let requests = Requests::of_users(1000);
        let share = |version| {
            let of = requests.ready.iter().filter(|r| r.version == version);
            of.count()
        };
        assert!((850..950).contains(&share("stable")), "{}", share("stable"));
        let is_new = |ready: &&Ready| {
            let text = String::from_utf8_lossy(&ready.bytes);
            !text.contains("app-version=")
        };
        assert_eq!(requests.ready.iter().filter(is_new).count(), 100);
    }
}
