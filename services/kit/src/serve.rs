//! The life of a process: log, listen, serve, stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::serve::Listener;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::CommonArgs;
use crate::healthcheck::healthcheck;

/// How long a connection may go without a whole head of a request. It counts for idle connections
/// too, and a proxy that reuses one just when it is closed fails a request: hence not shorter.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The life of a service's process: to ask the one that runs whether it is well, if that is what it was
/// started for; else to serve what `router` makes, until SIGTERM or SIGINT. Then it takes no new
/// connections and lets requests in flight finish.
pub async fn run<E: From<io::Error>>(
    address: SocketAddr,
    settings: &CommonArgs,
    router: impl Future<Output = Result<Router, E>>,
) -> Result<(), E> {
    if settings.healthcheck {
        return Ok(healthcheck(address).await?);
    }
    start_logging();
    let Some(router) = unless_stopped(router).await? else {
        return Ok(());
    };
    Ok(serve(address, router?, settings.shutdown_timeout).await?)
}

/// Logs as JSON, one line per event, to stdout, from here on.
fn start_logging() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .init();
}

/// Does `work` that comes before serving; `None` if SIGTERM or SIGINT comes first. By themselves they
/// do not end the first process of a container.
async fn unless_stopped<T>(work: impl Future<Output = T>) -> io::Result<Option<T>> {
    let stop = stop_signal()?;
    tokio::select! {
        done = work => Ok(Some(done)),
        () = stop => Ok(None),
    }
}

async fn serve(address: SocketAddr, router: Router, shutdown_timeout: Duration) -> io::Result<()> {
    let stop = stop_signal()?;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    serve_until(stop, listener, router, HEAD_TIMEOUT, shutdown_timeout).await;
    Ok(())
}

async fn serve_until(
    stop: impl Future<Output = ()>,
    mut listener: TcpListener,
    router: Router,
    head_timeout: Duration,
    shutdown_timeout: Duration,
) {
    let (stopping, stopped) = watch::channel(());
    let mut http = http1::Builder::new();
    http.timer(HeadTimer(stopped.clone()))
        .header_read_timeout(head_timeout);
    let service = TowerToHyperService::new(router);
    let mut stop = pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // What goes wrong with a connection is the client's doing.
            tokio::select! {
                _ = &mut connection => {}
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    tracing::info!("stopping");
    // Only connections hold receivers from here on.
    drop((listener, http, stopped));
    let _ = stopping.send(());
    if tokio::time::timeout(shutdown_timeout, stopping.closed())
        .await
        .is_err()
    {
        tracing::warn!("requests were still in flight after {shutdown_timeout:?}");
    }
}

/// Times heads of requests. No head has time left once the service stops: hyper's shutdown waits for
/// those that have begun to arrive.
struct HeadTimer(watch::Receiver<()>);

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let mut stopped = self.0.clone();
        Box::pin(HeadTime(Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                _ = stopped.changed() => {}
            }
        })))
    }
}

/// An async block cannot be a [`Sleep`] by itself.
struct HeadTime(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Sleep for HeadTime {}

impl Future for HeadTime {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_head_that_comes_too_slowly_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let limit = Duration::from_millis(100);
        tokio::spawn(serve_until(
            pending(),
            listener,
            Router::new(),
            limit,
            limit,
        ));
        for head in ["", "GET / HTTP/1.1\r\nhost: app\r\nx-slow: "] {
            let mut connection = TcpStream::connect(address).await.expect("connects");
            connection.write_all(head.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            let closed = connection.read_to_end(&mut answer);
            tokio::time::timeout(Duration::from_secs(10), closed)
                .await
                .unwrap_or_else(|_| panic!("still open after {head:?}"))
                .expect("closed in order");
            assert!(answer.is_empty(), "{answer:?}");
        }
    }
}
