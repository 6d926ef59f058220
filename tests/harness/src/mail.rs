//! A mail server that keeps what it gets, one file for each mail.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use mailin::response::{AUTH_OK, INTERNAL_ERROR, INVALID_CREDENTIALS, OK};
use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder};

/// Who may send, and how they say so.
pub const USER: &str = "lanekeeper";
/// The password of [`USER`].
pub const PASSWORD: &str = "a password for this machine alone";

/// A mail server on the loopback address, as long as this program runs.
#[derive(Debug)]
pub struct MailServer {
    address: SocketAddr,
    dir: PathBuf,
}

impl MailServer {
    /// Starts one, on a port that the system chooses. Mails go to `dir`, as `1.eml`, `2.eml` …
    pub fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for mail")?;
        let address = listener.local_addr()?;
        let (mailbox, count) = (dir.to_owned(), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = Sender {
                    mailbox: mailbox.clone(),
                    count: Arc::clone(&count),
                    is_known: false,
                    mail: Vec::new(),
                };
                // A connection that breaks off is the client's affair.
                thread::spawn(move || serve(&stream, sender));
            }
        });
        Ok(Self {
            address,
            dir: dir.to_owned(),
        })
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where the mails are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The mails so far (RFC 5322), in the order they came.
    pub fn mails(&self) -> Vec<Vec<u8>> {
        let file = |number: usize| fs::read(self.dir.join(format!("{number}.eml"))).ok();
        (1..).map_while(file).collect()
    }
}

fn serve(stream: &TcpStream, sender: Sender) -> io::Result<()> {
    let mut session = SessionBuilder::new("localhost")
        .enable_auth(AuthMechanism::Plain)
        .insecure_enable_plaintext_auth()
        .build(stream.peer_addr()?.ip(), sender);
    let mut lines = BufReader::new(stream);
    let mut reply = session.greeting();
    loop {
        let mut out = stream;
        if reply.action != Action::NoReply {
            reply.write_to(&mut out)?;
            out.flush()?;
        }
        if reply.action == Action::Close {
            return Ok(());
        }
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        reply = session.process(&line);
    }
}

/// Who is connected.
struct Sender {
    mailbox: PathBuf,
    count: Arc<AtomicUsize>,
    is_known: bool,
    mail: Vec<u8>,
}

impl Handler for Sender {
    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        self.is_known = (user, password) == (USER, PASSWORD);
        if self.is_known {
            AUTH_OK
        } else {
            INVALID_CREDENTIALS
        }
    }

    fn mail(&mut self, _: std::net::IpAddr, _: &str, _: &str) -> Response {
        self.mail.clear();
        if self.is_known {
            OK
        } else {
            INVALID_CREDENTIALS
        }
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.mail.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        // Moved into place whole: somebody may be reading.
        let [new, file] = ["new", "eml"].map(|end| self.mailbox.join(format!("{number}.{end}")));
        match fs::write(&new, &self.mail).and_then(|()| fs::rename(new, file)) {
            Ok(()) => OK,
            Err(_) => INTERNAL_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says these lines and gives back the last answer.
    fn say(server: &MailServer, lines: &[&str]) -> String {
        let mut stream = TcpStream::connect(server.address()).expect("a server");
        let mut answers = BufReader::new(stream.try_clone().expect("a stream"));
        let mut answer = String::new();
        let mut read = |answer: &mut String| loop {
            answer.clear();
            answers.read_line(answer).expect("an answer");
            // A hyphen behind the number: more lines follow.
            if answer.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        };
        read(&mut answer);
        for line in lines {
            stream.write_all(line.as_bytes()).expect("sent");
            read(&mut answer);
        }
        answer
    }

    const HELLO: &str = "EHLO localhost\r\n";
    const FROM: &str = "MAIL FROM:<a@mail.example>\r\n";
    // echo -ne '\0lanekeeper\0a password for this machine alone' | base64
    const AUTH: &str =
        "AUTH PLAIN AGxhbmVrZWVwZXIAYSBwYXNzd29yZCBmb3IgdGhpcyBtYWNoaW5lIGFsb25l\r\n";

    #[test]
    fn a_mail_is_kept_as_it_came() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = MailServer::start(dir.path()).expect("a server");
        let to = "RCPT TO:<b@mail.example>\r\n";
        let text = "Subject: x\r\n\r\n..dot\r\n.\r\n";
        let last = say(&server, &[HELLO, AUTH, FROM, to, "DATA\r\n", text]);
        assert!(last.starts_with("250"), "{last}");
        assert_eq!(server.mails(), [b"Subject: x\r\n\r\n.dot\r\n"]);
    }

    #[test]
    fn who_does_not_know_the_password_cannot_send() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = MailServer::start(dir.path()).expect("a server");
        let wrong = "AUTH PLAIN AGxhbmVrZWVwZXIAd3Jvbmc=\r\n";
        for lines in [&[HELLO, wrong][..], &[HELLO, FROM]] {
            let last = say(&server, lines);
            assert!(last.starts_with('5'), "{last}");
        }
    }
}
