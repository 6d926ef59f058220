//! The model tier: says what a text is. The artefact of its model says which task it serves.

mod artefact;
mod cache;
mod classifier;
mod comparison;
mod fetch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use clap::Parser;
use service_kit::{CommonArgs, Service, deadline};

use crate::artefact::{Checksum, Source, Store};
use crate::classifier::Classifier;
use crate::comparison::Comparison;

/// The model tier. Its artefact says what it does: POST /predict says whether a message is spam, POST
/// /v1/predict whether a review is favourable.
#[derive(Clone, Parser)]
pub struct Args {
    /// Where to listen
    #[arg(long, env, default_value = "0.0.0.0:8081")]
    pub listen_addr: SocketAddr,

    /// The model artefact
    #[arg(
        long,
        env,
        conflicts_with = "model_url",
        required_unless_present = "model_url"
    )]
    pub model_file: Option<PathBuf>,

    /// Or where to fetch it, http://host/path, unless the cache has it
    #[arg(long, env, requires = "model_sha256")]
    pub model_url: Option<String>,

    /// The SHA-256 that the artefact must have
    #[arg(long, env)]
    pub model_sha256: Option<Checksum>,

    /// Where artefacts that are fetched are kept, by their SHA-256
    #[arg(long, env, default_value = "/var/cache/models")]
    pub model_cache: PathBuf,

    /// How long fetching an artefact may take, all attempts included
    #[arg(long, env, default_value = "25s", value_parser = deadline)]
    pub model_fetch_timeout: Duration,

    /// In a shadow: the artefact of the model that most users have, to compare its answers
    #[arg(long, env, conflicts_with = "champion_url")]
    pub champion_file: Option<PathBuf>,

    /// Or where to fetch it
    #[arg(long, env, requires = "champion_sha256")]
    pub champion_url: Option<String>,

    /// The SHA-256 that it must have
    #[arg(long, env)]
    pub champion_sha256: Option<Checksum>,

    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The service. It exists only with a sound model.
pub async fn router(args: &Args) -> anyhow::Result<Router> {
    let store = Store::new(args.model_cache.clone(), args.model_fetch_timeout)?;
    let (file, url) = (args.model_file.clone(), args.model_url.as_deref());
    let source = Source::new("MODEL", file, url, args.model_sha256.clone())?;
    let model = store.load(&source).await?;
    let (file, url) = (args.champion_file.clone(), args.champion_url.as_deref());
    let champion = match (&file, url, &args.champion_sha256) {
        (None, None, None) => None,
        (_, _, checksum) => {
            let source = Source::new("CHAMPION", file, url, checksum.clone())?;
            Some(store.load(&source).await?)
        }
    };

    let service = Service::new("model-service", args.common.version.clone())?;
    let comparison = champion
        .map(|champion| Comparison::register(service.registry(), champion, &model))
        .transpose()?;
    let classifier = Classifier::register(service.registry(), model, comparison)?;
    Ok(service.router(classifier.routes(), args.common.request_timeout))
}
