//! The page tier of sentiment review.

use app_frontend::{Args, router};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Args = service_kit::settings();
    service_kit::run(args.listen_addr, &args.common, async { router(&args) }).await
}
