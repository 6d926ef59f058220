//! The model tier.

use model_service::{Args, router};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Args = service_kit::settings();
    if args.common.healthcheck {
        return Ok(service_kit::healthcheck(args.listen_addr).await?);
    }
    service_kit::start_logging();
    let Some(router) = service_kit::unless_stopped(router(&args)).await? else {
        return Ok(());
    };
    Ok(service_kit::serve(args.listen_addr, router?, args.common.shutdown_timeout).await?)
}
