//! Translates internet slang into plain English: the application of the blue/green rollout.

mod phrases;
mod question;
mod redis_store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use serde::Serialize;
use service_kit::{CommonArgs, Service, deadline};

use crate::phrases::Phrases;
use crate::question::{Refused, question};
use crate::redis_store::RedisStore;

/// Translates internet slang into plain English: GET /api/v1/translate?phrase=Lol.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// Where to listen
    #[arg(long, env, default_value = "0.0.0.0:8082")]
    pub listen_addr: SocketAddr,

    /// Keep the phrases in this Redis, such as redis://redis:6379; an empty one gets the built-in
    /// phrases [default: the built-in phrases]
    #[arg(long, env)]
    pub redis_url: Option<String>,

    /// How long Redis may take; shorter than the request timeout
    #[arg(long, env, default_value = "1s", value_parser = deadline)]
    pub redis_timeout: Duration,

    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The service. Redis need not be there yet.
pub fn router(args: &Args) -> anyhow::Result<Router> {
    let CommonArgs {
        version,
        request_timeout,
        ..
    } = args.common.clone();
    ensure!(
        args.redis_timeout < request_timeout,
        "REDIS_TIMEOUT is {:?}; allowed is less than REQUEST_TIMEOUT, which is {request_timeout:?}",
        args.redis_timeout,
    );
    let built_in = Phrases::built_in()?;
    let store = match args.redis_url.as_deref() {
        // A ConfigMap has no way to say nothing but the empty text.
        None | Some("") => Store::BuiltIn(built_in),
        Some(url) => {
            let redis = RedisStore::new(url, args.redis_timeout, built_in)?;
            Store::Redis(Box::new(redis))
        }
    };
    let answer = Version {
        version: version.to_string(),
        errors: [],
    };
    let routes = Router::new()
        .route("/api/v1/translate", get(translate))
        .with_state(Arc::new(store))
        .route("/version", get(async || Json(answer)));
    let service = Service::new("translation-api", version)?;
    Ok(service.router_with_own_version(routes, request_timeout))
}

enum Store {
    BuiltIn(Phrases),
    Redis(Box<RedisStore>),
}

#[derive(Clone, Serialize)]
struct Version {
    version: String,
    errors: [String; 0],
}

/// Every answer about a phrase, good or bad, has this shape.
#[derive(Serialize)]
struct Translation {
    phrase: Option<String>,
    translation: Option<String>,
    errors: Vec<String>,
}

async fn translate(State(store): State<Arc<Store>>, RawQuery(query): RawQuery) -> Response {
    let phrase = match question(query.as_deref().unwrap_or_default()) {
        Ok(phrase) => phrase,
        Err(Refused { phrase, faults }) => {
            return answer(StatusCode::BAD_REQUEST, phrase, None, faults);
        }
    };
    let name = phrases::name(&phrase);
    let found = match store.as_ref() {
        Store::BuiltIn(phrases) => Ok(phrases.find(&name).map(str::to_owned)),
        Store::Redis(redis) => redis.find(&name).await,
    };
    let phrase = Some(phrase);
    match found {
        Ok(Some(translation)) => answer(StatusCode::OK, phrase, Some(translation), vec![]),
        Ok(None) => {
            let errors = vec!["phrase: no translation is known".to_owned()];
            answer(StatusCode::NOT_FOUND, phrase, None, errors)
        }
        Err(redis_store::Unavailable) => {
            let errors = vec!["the phrases are out of reach; try again later".to_owned()];
            let answer = answer(StatusCode::SERVICE_UNAVAILABLE, phrase, None, errors);
            ([(header::RETRY_AFTER, "1")], answer).into_response()
        }
    }
}

fn answer(
    status: StatusCode,
    phrase: Option<String>,
    translation: Option<String>,
    errors: Vec<String>,
) -> Response {
    let body = Translation {
        phrase,
        translation,
        errors,
    };
    (status, Json(body)).into_response()
}
