//! The edge tier: the API that users call, in front of the model. One program for two applications;
//! its settings say which.

mod bucket;
mod model;
mod pending;
mod review;
mod sms;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use clap::{ArgAction, Parser, ValueEnum};
use service_kit::{CommonArgs, Service, deadline};

use crate::model::ModelClient;

/// The edge tier. Calls to the model go through the proxy that HTTP_PROXY names, if any.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// Where to listen
    #[arg(long, env, default_value = "0.0.0.0:8080")]
    pub listen_addr: SocketAddr,

    /// What it serves: the SMS checker with its page, or the API of sentiment review
    #[arg(long, env, value_enum, default_value_t = Task::Sms)]
    pub task: Task,

    /// The model service, such as http://model-service:8081
    #[arg(long, env)]
    pub model_service_url: String,

    /// How long the model may take; shorter than the request timeout
    #[arg(long, env, default_value = "3s", value_parser = deadline)]
    pub model_timeout: Duration,

    /// With reviews: whether answers say how sure the model is
    #[arg(long, env, default_value_t = false, action = ArgAction::Set)]
    pub show_confidence: bool,

    /// With reviews: how long a prediction counts as waiting for the user's word
    #[arg(long, env, default_value = "10m", value_parser = deadline)]
    pub confirm_within: Duration,

    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The applications that this service is an edge of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Messages: POST /sms.
    Sms,
    /// Reviews: POST /predict-sentiment-review and POST /reviews/confirm.
    Review,
}

/// The service.
pub fn router(args: &Args) -> anyhow::Result<Router> {
    let CommonArgs {
        version,
        request_timeout,
        ..
    } = args.common.clone();
    ensure!(
        args.model_timeout < request_timeout,
        "MODEL_TIMEOUT is {:?}; allowed is less than REQUEST_TIMEOUT, which is {request_timeout:?}",
        args.model_timeout,
    );
    let service = Service::new("app-service", version)?;
    let registry = service.registry();
    let path = match args.task {
        Task::Sms => "/predict",
        Task::Review => "/v1/predict",
    };
    let model = ModelClient::new(registry, &args.model_service_url, path, args.model_timeout)?;
    let routes = match args.task {
        Task::Sms => sms::routes(registry, model)?,
        Task::Review => review::routes(registry, model, args.show_confidence, args.confirm_within)?,
    };
    Ok(service.router(routes, request_timeout))
}
