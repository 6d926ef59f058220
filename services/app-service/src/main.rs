//! The edge tier.

use app_service::{Args, router};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Args = service_kit::settings();
    if args.common.healthcheck {
        return Ok(service_kit::healthcheck(args.listen_addr).await?);
    }
    let router = router(&args)?;
    Ok(service_kit::serve(args.listen_addr, router, args.common.shutdown_timeout).await?)
}
