//! Sends a message: bounded attempts, each of bounded time, and no word of the address.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Message;
use crate::config::{Event, Notify};
use crate::metrics::{self, Channel};
use crate::report::notice::Delivery;

/// How often a message is sent at most.
const MAX_ATTEMPTS: u32 = 3;
/// The pause before the second attempt; before the third it is three times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a connection, where the whole wait is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a message goes: an address, or why there is none although one was wanted.
pub type Address = Result<SecretString, String>;

/// Tells what a run came to.
#[derive(Debug, Clone)]
pub struct Notifier {
    webhook: Option<Address>,
    heartbeat: Option<Address>,
    settings: Notify,
}

/// What came of one attempt.
enum Attempt {
    Taken,
    Again(String),
    Refused(String),
}

impl Notifier {
    /// Who is told by these settings; `None`: nobody wants to be.
    pub fn new(settings: &Notify, webhook: Option<Address>, heartbeat: Option<Address>) -> Self {
        Self { webhook, heartbeat, settings: settings.clone() }
    }

    /// Whether anybody wants to be told anything.
    pub fn is_configured(&self) -> bool {
        self.webhook.is_some() || self.heartbeat.is_some()
    }

    /// Whether anybody wants to know of `event`.
    pub fn wants(&self, event: Event) -> bool {
        self.settings.events.contains(&event)
    }

    /// Sends a message to the webhook; `None`: there is none.
    pub async fn tell(&self, message: &Message, stop: &CancellationToken) -> Option<Delivery> {
        let body = message.body(self.settings.format);
        let address = self.webhook.as_ref()?;
        Some(self.deliver(Channel::Webhook, address, Some(&body), stop).await)
    }

    /// Tells the monitor that all is well; `None`: there is none.
    pub async fn beat(&self, stop: &CancellationToken) -> Option<Delivery> {
        let address = self.heartbeat.as_ref()?;
        Some(self.deliver(Channel::Heartbeat, address, None, stop).await)
    }

    async fn deliver(
        &self,
        channel: Channel,
        address: &Address,
        body: Option<&Value>,
        stop: &CancellationToken,
    ) -> Delivery {
        let delivery = match address {
            Ok(address) => self.attempts(address, body, stop).await,
            Err(why) => Delivery { delivered: false, attempts: 0, error: Some(why.clone()) },
        };
        metrics::notified(channel, delivery.delivered);
        match &delivery.error {
            None => tracing::info!(channel = channel.as_str(), "told"),
            Some(error) => {
                tracing::warn!(channel = channel.as_str(), attempts = delivery.attempts, error = %error, "nobody could be told");
            }
        }
        delivery
    }

    async fn attempts(&self, address: &SecretString, body: Option<&Value>, stop: &CancellationToken) -> Delivery {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return Delivery { delivered: false, attempts: 0, error: Some(said(error)) },
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match attempt(&client, address, body).await {
                Attempt::Taken => return Delivery { delivered: true, attempts, error: None },
                Attempt::Refused(why) => return Delivery { delivered: false, attempts, error: Some(why) },
                Attempt::Again(why) => why,
            };
            if attempts >= MAX_ATTEMPTS || !wait(attempts, stop).await {
                return Delivery { delivered: false, attempts, error: Some(error) };
            }
        }
    }

    fn client(&self) -> reqwest::Result<Client> {
        Client::builder()
            .timeout(self.settings.timeout)
            .connect_timeout(self.settings.timeout.min(CONNECT_TIMEOUT))
            // Where a message goes is the configuration's to say.
            .redirect(Policy::none())
            .user_agent(concat!("orphan-sweeper/", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

async fn attempt(client: &Client, address: &SecretString, body: Option<&Value>) -> Attempt {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = client.request(method, address.expose_secret());
    if let Some(body) = body {
        request = request.json(body);
    }
    match request.send().await {
        // What it says beyond its status is nothing to us, and is not read.
        Ok(response) if response.status().is_success() => Attempt::Taken,
        Ok(response) => {
            let status = response.status();
            let why = format!("it answered with status {}", status.as_u16());
            let may_change = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
            if may_change { Attempt::Again(why) } else { Attempt::Refused(why) }
        }
        Err(error) if error.is_builder() => Attempt::Refused(said(error)),
        Err(error) => Attempt::Again(said(error)),
    }
}

/// Waits before the next attempt; says whether to go on. Who wants to stop waits for no second one.
async fn wait(attempts: u32, stop: &CancellationToken) -> bool {
    let pause = FIRST_PAUSE * 3_u32.pow(attempts - 1) / crate::failpoint::hurry();
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        () = stop.cancelled() => false,
    }
}

/// What went wrong, without the address: it is a secret, and the client's own text repeats it.
fn said(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    crate::run::failure::chain(&error.without_url())
}
