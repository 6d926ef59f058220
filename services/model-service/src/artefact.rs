//! Getting a model: from a file, or from a URL by way of the cache.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use prometheus::{IntGaugeVec, Opts, Registry};
use reqwest::Url;
use text::{Model, sha256};

use crate::cache::Cache;
use crate::fetch::Fetcher;

/// The SHA-256 of an artefact, in lower case. Nothing else can be one: it becomes a file name.
#[derive(Clone, PartialEq, Eq)]
pub struct Checksum(String);

impl Checksum {
    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }

    /// In hexadecimal.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Checksum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err("allowed are 64 hexadecimal digits, as sha256sum prints them".to_owned()),
        }
    }
}

/// Where an artefact comes from.
pub(crate) struct Source {
    /// How its variables begin.
    name: &'static str,
    location: Location,
    checksum: Option<Checksum>,
}

enum Location {
    File(PathBuf),
    Url(Url, Checksum),
}

impl Source {
    /// The source that the variables beginning with `name` set.
    pub(crate) fn new(
        name: &'static str,
        file: Option<PathBuf>,
        url: Option<&str>,
        checksum: Option<Checksum>,
    ) -> anyhow::Result<Self> {
        let location = match (file, url, &checksum) {
            (Some(file), None, _) => Location::File(file),
            (None, Some(url), Some(checksum)) => {
                // The value is not shown: it may hold a password.
                let allowed = || format!("{name}_URL: allowed is http://host/path");
                let url = Url::parse(url).with_context(allowed)?;
                ensure!(url.scheme() == "http" && url.has_host(), allowed());
                Location::Url(url, checksum.clone())
            }
            _ => bail!("allowed are {name}_FILE, or {name}_URL and {name}_SHA256"),
        };
        Ok(Self {
            name,
            location,
            checksum,
        })
    }

    /// What to call it: a URL without what may be secret.
    fn describe(&self) -> String {
        match &self.location {
            Location::File(file) => file.display().to_string(),
            Location::Url(url, _) => crate::fetch::describe(url),
        }
    }
}

/// A model that is ready to serve.
pub(crate) struct Artefact {
    pub(crate) model: Model,
    pub(crate) checksum: Checksum,
}

impl Artefact {
    /// A gauge that says which model this is.
    pub(crate) fn register_info(
        &self,
        registry: &Registry,
        name: &str,
        help: &str,
    ) -> prometheus::Result<()> {
        let labels = ["task", "classifier", "sha256"];
        let info = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        registry.register(Box::new(info.clone()))?;
        let (task, classifier) = (self.model.task().as_str(), self.model.name());
        info.with_label_values(&[task, classifier, self.checksum.as_str()])
            .set(1);
        Ok(())
    }
}

/// Loads artefacts.
pub(crate) struct Store {
    cache: Cache,
    fetcher: Fetcher,
}

impl Store {
    /// A store with its cache in `cache`, which need not exist before something is fetched.
    pub(crate) fn new(cache: PathBuf, fetch_timeout: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            cache: Cache::new(cache),
            fetcher: Fetcher::new(fetch_timeout)?,
        })
    }

    /// Gets the artefact, checks that it is the expected one and that it is sound. Errors name the
    /// source.
    pub(crate) async fn load(&self, source: &Source) -> anyhow::Result<Artefact> {
        let bytes = match &source.location {
            Location::File(file) => fs::read(file).map_err(anyhow::Error::from),
            Location::Url(url, checksum) => self.fetch(url, checksum).await,
        };
        let read = bytes.and_then(|bytes| {
            let checksum = Checksum::of(&bytes);
            if let Some(expected) = &source.checksum {
                check(&checksum, expected)?;
            }
            let model = Model::from_json(&bytes)?;
            Ok(Artefact { model, checksum })
        });
        let artefact = read.with_context(|| {
            let kind = source.name.to_lowercase();
            format!("{kind} artefact {}", source.describe())
        })?;
        tracing::info!(
            role = source.name.to_lowercase(),
            task = artefact.model.task().as_str(),
            classifier = artefact.model.name(),
            sha256 = artefact.checksum.as_str(),
            "model loaded"
        );
        Ok(artefact)
    }

    /// From the cache, else from `url`, and then into the cache.
    async fn fetch(&self, url: &Url, checksum: &Checksum) -> anyhow::Result<Vec<u8>> {
        if let Some(bytes) = self.cache.get(checksum)? {
            return Ok(bytes);
        }
        let bytes = self.fetcher.fetch(url).await?;
        check(&Checksum::of(&bytes), checksum)?;
        self.cache.put(checksum, &bytes)?;
        Ok(bytes)
    }
}

fn check(actual: &Checksum, expected: &Checksum) -> anyhow::Result<()> {
    if actual == expected {
        return Ok(());
    }
    Err(anyhow!(
        "its SHA-256 is {}; allowed is only {}",
        actual.as_str(),
        expected.as_str()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_64_hexadecimal_digits() {
        let digits = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdefABCD";
        let read: Checksum = format!(" {digits}\n").parse().expect("a checksum");
        assert_eq!(read.as_str(), digits.to_lowercase());
        for bad in [
            "",
            "abc",
            &digits[1..],
            &format!("{digits}0"),
            &"/".repeat(64),
        ] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad}");
        }
    }
}
