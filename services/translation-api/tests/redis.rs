//! The translation API in front of a real Redis, which is killed, stopped and locked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use service_kit::testing::{Process, client};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_translation-api");

/// A Redis of the test's own, without persistence: when it is started again, it is empty.
struct Redis {
    port: u16,
    dir: TempDir,
    server: Child,
}

impl Redis {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = free.local_addr().expect("address").port();
        drop(free);
        let dir = tempfile::tempdir().expect("a directory");
        let server = Self::run(port, &dir);
        Self { port, dir, server }
    }

    fn run(port: u16, dir: &TempDir) -> Child {
        let mut server = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed; on Debian: sudo apt-get install redis-server");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.try_wait().expect("runs");
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(20), "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command; the first line of the answer.
    fn say(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        write!(connection, "{command}\r\n").expect("sent");
        let mut line = String::new();
        BufReader::new(connection)
            .read_line(&mut line)
            .expect("answers");
        line.trim_end().to_owned()
    }

    fn kill(&mut self) {
        self.server.kill().expect("killed");
        self.server.wait().expect("ended");
    }

    fn start_again(&mut self) {
        self.server = Self::run(self.port, &self.dir);
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.server.id());
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("runs").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn start(url: &str) -> Process {
    // So long that an answer within the client's ten seconds kept Redis's deadline, not the request's.
    let deadlines = [("REQUEST_TIMEOUT", "60s"), ("REDIS_TIMEOUT", "500ms")];
    let environment = [&[("REDIS_URL", url)], deadlines.as_slice()].concat();
    Process::start(PROGRAM, &environment).expect("starts")
}

async fn translate(api: &Process, phrase: &str) -> (u16, Value) {
    let url = format!("{}/api/v1/translate?phrase={phrase}", api.url);
    let response = client().expect("client").get(url).send().await;
    let response = response.expect("answers");
    let status = response.status().as_u16();
    assert_eq!(
        response.headers().contains_key("retry-after"),
        status == 503
    );
    (status, response.json().await.expect("JSON"))
}

fn lol() -> (u16, Value) {
    let translation = "I am laughing out loud";
    (
        200,
        json!({ "phrase": "Lol", "translation": translation, "errors": [] }),
    )
}

fn unavailable() -> (u16, Value) {
    let error = "the phrases are out of reach; try again later";
    (
        503,
        json!({ "phrase": "Lol", "translation": null, "errors": [error] }),
    )
}

#[tokio::test]
async fn an_empty_redis_gets_the_phrases_and_one_with_phrases_keeps_them() {
    let redis = Redis::start();
    let api = start(&redis.url());
    assert_eq!(redis.say("EXISTS phrases"), ":0");
    assert_eq!(translate(&api, "xyzzy").await.0, 404);
    assert_eq!(redis.say("HEXISTS phrases lol"), ":1");
    assert_eq!(translate(&api, "Lol").await, lol());

    redis.say("HSET phrases xyzzy \"Nothing happens\"");
    redis.say("HDEL phrases lol");
    let known = translate(&api, "XYZZY").await;
    assert_eq!(known.1["translation"], "Nothing happens");
    assert_eq!(translate(&api, "Lol").await.0, 404);
    // Nor does another replica of the service bring them back.
    assert_eq!(translate(&start(&redis.url()), "Lol").await.0, 404);
}

#[tokio::test]
async fn whoever_comes_first_the_built_in_phrases_are_there_and_the_operators_win() {
    let redis = Redis::start();
    // The README's example is a new phrase.
    let example = "HSET phrases yolo \"You only live once\"";
    assert!(include_str!("../../README.md").contains(example));
    let built_in: Value = serde_json::from_str(include_str!("../phrases.json")).expect("JSON");
    let phrases = built_in.as_object().expect("an object").len();
    for operator_first in [true, false] {
        redis.say("FLUSHALL");
        let replicas = [
            start(&redis.url()),
            start(&redis.url()),
            start(&redis.url()),
        ];
        let teach = || {
            assert_eq!(redis.say(example), ":1");
            redis.say("HSET phrases lol \"Lots of love\"");
        };
        if operator_first {
            teach();
        }
        // All of them at once.
        let [a, b, c] = replicas.each_ref().map(|api| translate(api, "Brb"));
        for (status, answer) in <[_; 3]>::from(tokio::join!(a, b, c)) {
            assert_eq!((status, &answer["translation"]), (200, &built_in["brb"]));
        }
        if !operator_first {
            teach();
        }
        for api in &replicas {
            let (_, answer) = translate(api, "Yolo").await;
            assert_eq!(answer["translation"], "You only live once");
            let (_, answer) = translate(api, "Lol").await;
            assert_eq!(answer["translation"], "Lots of love");
            // What says that they are there is not one of them.
            for asked in ["FILLED", "filled"] {
                assert_eq!(translate(api, asked).await.0, 404);
            }
        }
        let fields = format!(":{}", phrases + 2);
        assert_eq!(redis.say("HLEN phrases"), fields);
        // Gone without the server, and without anybody's leave.
        redis.say("DEL phrases");
        assert_eq!(translate(&replicas[0], "Lol").await, lol());
    }
}

#[tokio::test]
async fn a_redis_that_is_killed_is_a_503_until_it_is_back() {
    let mut redis = Redis::start();
    let api = start(&redis.url());
    assert_eq!(translate(&api, "Lol").await, lol());
    for _ in 0..2 {
        redis.kill();
        for _ in 0..3 {
            assert_eq!(translate(&api, "Lol").await, unavailable());
        }
        redis.start_again();
        // The first question already, and although Redis came back empty.
        assert_eq!(translate(&api, "Lol").await, lol());
    }
    // Away and back between two questions: nobody notices.
    redis.kill();
    redis.start_again();
    assert_eq!(translate(&api, "Lol").await, lol());
}

#[tokio::test]
async fn a_redis_that_is_not_there_yet_keeps_nobody_from_starting() {
    let mut redis = Redis::start();
    redis.kill();
    let api = start(&redis.url());
    let health = client().expect("client").get(format!("{}/health", api.url));
    assert_eq!(health.send().await.expect("answers").status(), 200);
    assert_eq!(translate(&api, "Lol").await, unavailable());
    redis.start_again();
    assert_eq!(translate(&api, "Lol").await, lol());
}

#[tokio::test]
async fn a_redis_that_hangs_is_a_503_within_the_deadline() {
    let redis = Redis::start();
    let api = start(&redis.url());
    assert_eq!(translate(&api, "Lol").await, lol());
    redis.signal("STOP");
    assert_eq!(translate(&api, "Lol").await, unavailable());
    // Now the deadline is that of a new connection.
    assert_eq!(translate(&api, "Lol").await, unavailable());
    redis.signal("CONT");
    assert_eq!(translate(&api, "Lol").await, lol());
}

#[tokio::test]
async fn a_redis_that_refuses_or_holds_something_else_is_a_503_until_it_is_mended() {
    let redis = Redis::start();
    let api = start(&redis.url().replace("://", "://:secret@"));
    redis.say("CONFIG SET requirepass other");
    assert_eq!(translate(&api, "Lol").await, unavailable());
    let mut changes = TcpStream::connect(("127.0.0.1", redis.port)).expect("connects");
    let commands = "AUTH other\r\nCONFIG SET requirepass secret\r\nSET phrases none\r\n";
    changes.write_all(commands.as_bytes()).expect("sent");
    let mut answers = BufReader::new(&changes).lines().map_while(Result::ok);
    assert!(answers.by_ref().take(3).all(|line| line == "+OK"));
    assert_eq!(translate(&api, "Lol").await, unavailable());
    (&changes).write_all(b"DEL phrases\r\n").expect("sent");
    assert_eq!(answers.next().as_deref(), Some(":1"));
    assert_eq!(translate(&api, "Lol").await, lol());

    // Why is in the log, in the words of Redis.
    let log = api.stop().expect("stops");
    let failed = log.iter().filter(|line| line["message"] == "Redis failed");
    let kinds: Vec<_> = failed.map(|line| &line["error"]).collect();
    assert_eq!(kinds, ["authentication failed", "WRONGTYPE"]);
    let log = json!(log).to_string();
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn a_redis_that_wants_a_password_or_is_full_is_a_503_and_says_so_in_the_log() {
    let redis = Redis::start();
    redis.say("CONFIG SET maxmemory 1");
    let api = start(&redis.url());
    assert_eq!(translate(&api, "Lol").await, unavailable());
    redis.say("CONFIG SET requirepass secret");
    assert_eq!(translate(&api, "Lol").await, unavailable());
    let log = api.stop().expect("stops");
    let failed = log.iter().filter(|line| line["message"] == "Redis failed");
    let kinds: Vec<_> = failed.map(|line| &line["error"]).collect();
    assert_eq!(kinds, ["OOM", "NOAUTH"]);
}
