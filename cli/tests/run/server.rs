//! A server that does as a test says.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Requests are counted from 0, in the order of their arrival.
    pub(crate) number: usize,
    pub(crate) connection: usize,
    pub(crate) head: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

#[derive(Debug)]
pub(crate) enum Reply {
    /// The head after `HTTP/1.1 `, and the body.
    Is(String, Cow<'static, str>),
    /// Bytes, and the end of the connection.
    Ends(&'static str),
    /// Nothing, for ever.
    Silence,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn start(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (reply, log) = (Arc::new(reply), Arc::clone(&asked));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (reply, log) = (Arc::clone(&reply), Arc::clone(&log));
                thread::spawn(move || serve(stream.unwrap(), connection, &*reply, &log));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        let asked = self.asked();
        let connections: BTreeSet<_> = asked.iter().map(|asked| asked.connection).collect();
        connections.len()
    }
}

/// Whatever goes wrong, the client went away.
fn serve(
    stream: TcpStream,
    connection: usize,
    reply: &dyn Fn(&Asked) -> Reply,
    log: &Mutex<Vec<Asked>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let mut stream = stream;
    loop {
        let head: Vec<String> = lines
            .by_ref()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let mut asked = Asked {
            number: 0,
            connection,
            head: head.join("\n"),
        };
        if asked.head.is_empty() {
            return None;
        }
        {
            let mut log = log.lock().unwrap();
            asked.number = log.len();
            log.push(asked.clone());
        }
        match reply(&asked) {
            Reply::Is(head, body) => {
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}"
                )
                .ok()?;
                if head.contains("connection: close") {
                    return None;
                }
            }
            Reply::Ends(bytes) => {
                stream.write_all(bytes.as_bytes()).ok()?;
                return None;
            }
            Reply::Silence => thread::park(),
        }
    }
}
