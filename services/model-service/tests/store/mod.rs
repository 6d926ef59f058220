//! A store of artefacts: a real HTTP server, which also answers as it should not.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};

/// What to answer.
pub(crate) enum Answer {
    /// 200 with this body.
    Body(Vec<u8>),
    /// The half of this body, and the end.
    Half(Vec<u8>),
    /// The half of this body, whose length the head does not say, and the end.
    HalfUntold(Vec<u8>),
    /// A body whose head promises so many bytes.
    Promised(u64),
    /// A body without an end or a length.
    Endless,
    /// This status.
    Status(u16),
    /// 302 to this location.
    Redirect(String),
    /// Nothing, for ever.
    Silence,
}

/// A running store; it ends with the test.
pub(crate) struct Store {
    /// Where it is.
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
}

impl Store {
    /// A store that answers the `n`-th request, from 0, for `path`.
    pub(crate) fn start(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let (counter, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (counter, answer) = (Arc::clone(&counter), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &counter, &*answer));
            }
        });
        Self { url, requests }
    }

    /// A store that has `body` for everybody.
    pub(crate) fn with(body: Vec<u8>) -> Self {
        Self::start(move |_, _| Answer::Body(body.clone()))
    }

    /// A store that answers only when `clients` have asked.
    pub(crate) fn for_several(clients: usize, body: Vec<u8>) -> Self {
        let all = Barrier::new(clients);
        Self::start(move |_, _| {
            all.wait();
            Answer::Body(body.clone())
        })
    }

    /// A store that says when it is asked, and answers when it is told to.
    pub(crate) fn on_command(body: Vec<u8>) -> (Self, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
        let (asked, is_asked) = mpsc::sync_channel(1);
        let (go, told) = mpsc::sync_channel(1);
        let told = std::sync::Mutex::new(told);
        let store = Self::start(move |_, _| {
            // Nobody listens any more when the test is over.
            let _ = asked.send(());
            let _ = told.lock().expect("one request").recv();
            Answer::Body(body.clone())
        });
        (store, is_asked, go)
    }

    /// How often it was asked.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, counter: &AtomicUsize, answer: &dyn Fn(usize, &str) -> Answer) {
    let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(request) = head.next() else { return };
    // The rest of the head.
    head.take_while(|line| !line.is_empty()).for_each(drop);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let answer = answer(counter.fetch_add(1, Ordering::SeqCst), path);
    // A client that leaves is what some tests are about.
    let _ = write(stream, answer);
}

fn write(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut head = |rest: &str| stream.write_all(format!("HTTP/1.1 {rest}\r\n\r\n").as_bytes());
    match answer {
        Answer::Body(body) => {
            head(&format!(
                "200 OK\r\nconnection: close\r\ncontent-length: {}",
                body.len()
            ))?;
            stream.write_all(&body)
        }
        Answer::Half(body) => {
            head(&format!("200 OK\r\ncontent-length: {}", body.len()))?;
            stream.write_all(&body[..body.len() / 2])
        }
        Answer::HalfUntold(body) => {
            head("200 OK\r\nconnection: close")?;
            stream.write_all(&body[..body.len() / 2])
        }
        Answer::Promised(bytes) => {
            head(&format!("200 OK\r\ncontent-length: {bytes}"))?;
            forever(&stream)
        }
        Answer::Endless => {
            head("200 OK\r\nconnection: close")?;
            loop {
                stream.write_all(&[b' '; 64 * 1024])?;
            }
        }
        Answer::Status(status) => head(&format!(
            "{status} Whatever\r\nconnection: close\r\ncontent-length: 0"
        )),
        Answer::Redirect(to) => head(&format!(
            "302 Found\r\nlocation: {to}\r\nconnection: close\r\ncontent-length: 0"
        )),
        Answer::Silence => forever(&stream),
    }
}

/// Until the client leaves.
fn forever(stream: &TcpStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map(drop)
}
