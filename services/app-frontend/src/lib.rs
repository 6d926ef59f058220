//! The page tier of sentiment review: a page that calls the API of another host.

mod origin;

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use service_kit::{CommonArgs, Page, Service};

use crate::origin::Origin;

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
    let api = args.api_url.to_string();
    // Its settings come with the page and not after it, so they cannot be those of another version.
    let template = include_str!("page.html")
        .replace("{{API_URL}}", &api)
        .replace("{{VERSION}}", &version.to_string());
    let page = Page::new(&template, &api)?;
    let service = Service::new("app-frontend", version)?;
    let routes = Router::new().route("/", get(async move || page.clone()));
    Ok(service.router(routes, request_timeout))
}
