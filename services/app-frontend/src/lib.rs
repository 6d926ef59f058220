//! The page tier of sentiment review: a page that calls the API of another host.

mod origin;
mod page;

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use service_kit::{CommonArgs, Service};

use crate::origin::Origin;
use crate::page::Page;

/// The page tier of sentiment review.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// Where to listen
    #[arg(long, env, default_value = "0.0.0.0:8080")]
    pub listen_addr: SocketAddr,

    /// The API as browsers reach it, such as https://api.example
    #[arg(long, env)]
    pub api_url: Origin,

    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The service.
pub fn router(args: &Args) -> anyhow::Result<Router> {
    let CommonArgs {
        version,
        request_timeout,
        ..
    } = args.common.clone();
    let page = Page::new(&args.api_url, &version)?;
    let service = Service::new("app-frontend", version)?;
    let routes = Router::new().route("/", get(async move || page.clone()));
    Ok(service.router(routes, request_timeout))
}
