//! Phrases in Redis: one hash, with a field for each phrase.

use std::time::Duration;

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::sync::Mutex;

use crate::phrases::Phrases;

/// The hash: `HSET phrases yolo "You only live once"` teaches one more.
const KEY: &str = "phrases";

/// The field that says that the built-in phrases were put in. Nobody can ask for it, for what is asked
/// is in lower case; and it goes where the phrases go.
const FILLED: &str = "FILLED";

/// The phrases of a Redis.
///
/// The one connection is made when it is needed, and given up after any error: a server that was away,
/// silent, or without its password is found again by the next request.
/// (`redis::aio::ConnectionManager` keeps a connection that is silent, and the error of one that was
/// refused.)
pub(crate) struct RedisStore {
    client: Client,
    config: AsyncConnectionConfig,
    connection: Mutex<Option<MultiplexedConnection>>,
    timeout: Duration,
    built_in: Phrases,
}

/// Redis does not answer, or not as it should. Why is in the log.
#[derive(Debug)]
pub(crate) struct Unavailable;

impl RedisStore {
    /// The Redis at `url`, which may be away. An answer takes at most `timeout`.
    pub(crate) fn new(url: &str, timeout: Duration, built_in: Phrases) -> anyhow::Result<Self> {
        // The client would take the address of a socket, too.
        let by_network = url.starts_with("redis://");
        // The value is not shown, nor what redis says of it: it may hold a password.
        let client = Client::open(url).ok().filter(|_| by_network);
        Ok(Self {
            client: client.context(
                "REDIS_URL: allowed is redis://host:port, with :password@ before the host and /number \
                 of a database after it where needed (the mesh adds TLS)",
            )?,
            // The deadline is kept for all steps together.
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None),
            connection: Mutex::new(None),
            timeout,
            built_in,
        })
    }

    /// What a phrase means, by its name.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<String>, Unavailable> {
        let asked = async {
            match self.ask(name).await {
                // The connection was closed since it was used last; one is made anew.
                Err(error) if error.is_io_error() => self.ask(name).await,
                done => done,
            }
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::warn!(error = kind(error), "Redis failed");
                Err(Unavailable)
            }
            Err(_) => {
                self.give_up();
                tracing::warn!("Redis did not answer within {:?}", self.timeout);
                Err(Unavailable)
            }
        }
    }

    async fn ask(&self, name: &str) -> RedisResult<Option<String>> {
        let mut connection = self.connection().await?;
        let found = self.ask_by(&mut connection, name).await;
        if found.is_err() {
            self.give_up();
        }
        found
    }

    async fn ask_by(
        &self,
        connection: &mut MultiplexedConnection,
        name: &str,
    ) -> RedisResult<Option<String>> {
        let (found, filled): (Option<String>, bool) = redis::pipe()
            .hget(KEY, name)
            .hexists(KEY, FILLED)
            .query_async(connection)
            .await?;
        if filled {
            return Ok(found);
        }
        // A new Redis, or one that came back without its data. What others have put there is not
        // overwritten.
        let mut fill = redis::pipe();
        fill.atomic();
        for (phrase, translation) in self.built_in.all() {
            fill.hset_nx(KEY, phrase, translation).ignore();
        }
        fill.hset(KEY, FILLED, "").ignore().hget(KEY, name);
        let (found,) = fill.query_async(connection).await?;
        Ok(found)
    }

    /// The connection; whoever comes while it is being made waits for it.
    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref() {
            return Ok(connection.clone());
        }
        let client = &self.client;
        let connection = client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await?;
        Ok(kept.insert(connection).clone())
    }

    fn give_up(&self) {
        // Who holds the lock is making a new one.
        if let Ok(mut kept) = self.connection.try_lock() {
            *kept = None;
        }
    }
}

/// What Redis calls an error, such as NOAUTH or OOM, else what the client does. No more of it: what
/// Redis says may hold what it was sent.
fn kind(error: RedisError) -> String {
    let category = error.category().to_owned();
    let all = error.into_server_errors();
    let first = all.as_deref().and_then(<[_]>::first);
    first.map_or(category, |(_, error)| error.code().to_owned())
}
