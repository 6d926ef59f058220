//! The model tier of the SMS checker.

use clap::Parser;
use model_service::{Args, router};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    service_kit::log_to_stdout();
    let router = router(&args)?;
    service_kit::serve(args.listen_addr, router, args.common.shutdown_timeout).await?;
    Ok(())
}
