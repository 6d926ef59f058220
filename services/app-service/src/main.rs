//! The edge tier of the SMS checker.

use app_service::{Args, router};
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    service_kit::log_to_stdout();
    let router = router(&args)?;
    service_kit::serve(args.listen_addr, router, args.common.shutdown_timeout).await?;
    Ok(())
}
