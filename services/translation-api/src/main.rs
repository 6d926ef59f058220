//! Translates internet slang.

use translation_api::{Args, router};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Args = service_kit::settings();
    service_kit::run(args.listen_addr, &args.common, async { router(&args) }).await
}
