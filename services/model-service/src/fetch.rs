//! Fetching an artefact over HTTP.

use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use reqwest::{Client, Response, StatusCode, Url, redirect};

/// The largest artefact, in bytes: it is held in memory, and a pod has 128 MiB.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// For a connection, and for each part of the answer.
const STALLED: Duration = Duration::from_secs(10);

/// Before the second attempt; doubled before each other one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often the log says how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Fetches artefacts, and does not give up at once.
pub(crate) struct Fetcher {
    client: Client,
    timeout: Duration,
}

/// Why an attempt failed.
enum Failure {
    /// The next one may not.
    Passing(anyhow::Error),
    /// The next one would, too.
    Lasting(anyhow::Error),
}

impl Fetcher {
    /// `timeout` is for all attempts together.
    pub(crate) fn new(timeout: Duration) -> anyhow::Result<Self> {
        let client = Client::builder()
            .connect_timeout(STALLED)
            .read_timeout(STALLED)
            .redirect(redirect::Policy::custom(follow))
            .build()?;
        Ok(Self { client, timeout })
    }

    /// What is at `url`.
    pub(crate) async fn fetch(&self, url: &Url) -> anyhow::Result<Vec<u8>> {
        let give_up = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            tracing::info!(url = describe(url), attempt, "fetching the artefact");
            let left = give_up.saturating_duration_since(Instant::now());
            let error = match tokio::time::timeout(left, self.attempt(url)).await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(Failure::Lasting(error))) => return Err(error),
                Ok(Err(Failure::Passing(error))) => error,
                Err(_) => anyhow!("no whole answer in time"),
            };
            if Instant::now() + pause >= give_up {
                let timeout = self.timeout;
                return Err(error.context(format!(
                    "not fetched within {timeout:?} (MODEL_FETCH_TIMEOUT), attempts: {attempt}"
                )));
            }
            tracing::warn!(error = format!("{error:#}"), retry_in = ?pause, "not fetched");
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
            attempt += 1;
        }
    }

    async fn attempt(&self, url: &Url) -> Result<Vec<u8>, Failure> {
        let answer = self.client.get(url.clone()).send().await;
        let answer = answer.map_err(explain)?;
        let status = answer.status();
        let passing = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        match status {
            StatusCode::OK => read(answer).await,
            _ if passing => Err(Failure::Passing(unexpected(status))),
            _ => Err(Failure::Lasting(unexpected(status))),
        }
    }
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    // The address that was asked first is among the previous ones.
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error(format!("too many redirects; allowed are {MAX_REDIRECTS}"))
    } else if attempt.url().scheme() != "http" {
        attempt.error("allowed are redirects to http://")
    } else {
        attempt.follow()
    }
}

fn unexpected(status: StatusCode) -> anyhow::Error {
    anyhow!("the source answered {}, not 200", status.as_u16())
}

/// The body, as far as it is not too large.
async fn read(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let expected = answer.content_length();
    small_enough(expected.unwrap_or_default()).map_err(Failure::Lasting)?;
    let mut bytes = Vec::new();
    let mut said = Instant::now();
    while let Some(part) = answer.chunk().await.map_err(explain)? {
        bytes.extend_from_slice(&part);
        small_enough(bytes.len() as u64).map_err(Failure::Lasting)?;
        if said.elapsed() > PROGRESS {
            tracing::info!(bytes = bytes.len(), of = expected, "fetching the artefact");
            said = Instant::now();
        }
    }
    tracing::info!(bytes = bytes.len(), "fetched the artefact");
    Ok(bytes)
}

fn small_enough(bytes: u64) -> anyhow::Result<()> {
    ensure!(
        bytes <= MAX_BYTES as u64,
        "it has {bytes} bytes or more; allowed are {MAX_BYTES}"
    );
    Ok(())
}

fn explain(error: reqwest::Error) -> Failure {
    let lasting = error.is_redirect() || error.is_builder();
    // The address may hold a password, or a signature.
    let error = anyhow::Error::from(error.without_url());
    match lasting {
        true => Failure::Lasting(error),
        false => Failure::Passing(error),
    }
}

/// What to call `url` in logs and errors: without user, password and query, which may be secret.
pub(crate) fn describe(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // An error says that it can have neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_told() {
        let url = Url::parse("http://me:secret@store:9000/m/a.json?signature=secret#secret");
        assert_eq!(describe(&url.expect("a URL")), "http://store:9000/m/a.json");
    }
}
