//! The life of a process: log, listen, serve, stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Logs as JSON, one line per event, to stdout.
pub fn log_to_stdout() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .init();
}

/// Serves `router` until SIGTERM or SIGINT; then takes no new connections and lets requests in
/// flight finish, for at most `shutdown_timeout`.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    shutdown_timeout: Duration,
) -> io::Result<()> {
    let stop = stop_signal()?;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })?;
    tracing::info!(address = %listener.local_addr()?, "listening");

    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        tracing::info!("stopping");
        // The receiver lives as long as the server.
        let _ = stopping.send(());
    });
    tokio::select! {
        result = server => result,
        () = async {
            let _ = stopped.await;
            tokio::time::sleep(shutdown_timeout).await;
        } => {
            tracing::warn!("requests were still in flight after {shutdown_timeout:?}");
            Ok(())
        }
    }
}

fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
