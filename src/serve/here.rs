//! The API of this process alone, at a free port of the loopback interface: what `selftest` asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::desk::Desk;
use super::exporter::Exporter;
use super::{http, ticker};
use crate::command::{CommandError, Host};
use crate::config::secrets::LedgerPlace;
use crate::exit::Exit;
use crate::record::Ledger;
use crate::run::{Services, Stop};

/// The API, answering.
pub struct Here {
    /// Where.
    pub address: SocketAddr,
    stop: Stop,
    serving: JoinHandle<()>,
    desk: Desk,
    ledger: Ledger,
}

impl Here {
    /// Answers from now on, until it is closed: no signal ends it, so that what was asked for is answered.
    ///
    /// - Errors: no port is free, or the ledger cannot be opened.
    pub async fn open(host: &Host, services: &Services, place: &LedgerPlace) -> Result<Self, CommandError> {
        let stop = Stop::default();
        let listener = http::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let address = listener.local_addr().map_err(|error| CommandError {
            message: format!("the address of the API is not known: {error}"),
            hint: None,
            exit: Exit::Failed,
        })?;
        let (services, desk) = (services.with_stop(stop.clone()), Desk::open()?);
        let shared = (&Arc::default(), &desk, &Exporter::install());
        let (serving, ledger) = ticker::start_api(host, &services, place, listener, shared).await?;
        Ok(Self { address, stop, serving, desk, ledger })
    }

    /// Answers what is in flight, and ends.
    pub async fn close(self) {
        self.stop.token.cancel();
        self.serving.await.ok();
        self.desk.finish().await;
        self.ledger.close().await;
    }
}
