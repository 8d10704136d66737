//! Connections: accepted while nobody asked to stop, bounded in number and in the time of their headers.
//!
//! Takes a listener and the routes. Invariant: when it ends, what was being answered was answered, or had its time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::command::CommandError;
use crate::exit::Exit;

/// Connections at a time; those beyond wait to be accepted.
const MOST_CONNECTIONS: usize = 256;
/// Longest time that a client may take for its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest headers that are read.
const MOST_HEADER_BYTES: usize = 32 * 1024;
/// How long requests in flight may go on after a stop was asked for.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept: out of file descriptors, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds the address that is configured.
///
/// - Errors: it is taken, or is none of this host's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, CommandError> {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the API listens beyond this host, without TLS: put a proxy with TLS in front, or tokens can be read on the way");
    }
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program listens there: stop it, or write another address in [serve] listen, or \"off\" for no API"
            }
            std::io::ErrorKind::PermissionDenied => "ports below 1024 are for root: write a higher one in [serve] listen",
            _ => "write an address of this host in [serve] listen",
        };
        CommandError {
            message: format!("the API cannot listen at {address}: {error}"),
            hint: Some(hint.into()),
            exit: Exit::Failed,
        }
    })
}

/// Answers requests until `stop`, and then those in flight.
pub async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let (graceful, free) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MOST_HEADER_BYTES);
    loop {
        let permit = Arc::clone(&free).acquire_owned();
        let Some(Ok(permit)) = stop.run_until_cancelled(permit).await else { break };
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that hangs up is no failure of ours.
            connection.await.ok();
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in flight when their time was over");
    }
}
