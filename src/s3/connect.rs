//! Builds the client: explicit endpoint and credentials, bounded time, no retries of its own.
//!
//! Invariant: nothing ambient (profiles, `AWS_ENDPOINT_URL`, proxies) can redirect a request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use secrecy::ExposeSecret;

use super::meter::Meter;
use super::{S3Copy, S3Delete, S3Put, S3Read};
use crate::clock::Clock;
use crate::config::Store;
use crate::config::secrets::StoreCredentials;

/// Longest wait for a connection. It is part of the ten seconds that a proof may be old when its request leaves.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for a whole reply.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// Servers close idle connections after 20 s; ours close before.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// A client that was built and has not been told yet what it may do.
#[derive(Clone)]
pub struct Connection {
    client: Client,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The certificate authority cannot be read.
    #[error("failed to read `store.ca_file` `{path}`")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS settings are not accepted.
    #[error("failed to set up TLS: {0}")]
    Tls(String),
}

/// The SDK signs with the same clock that the rest of the program reads.
#[derive(Debug)]
struct SigningClock(Arc<dyn Clock>);

impl aws_smithy_async::time::TimeSource for SigningClock {
    fn now(&self) -> std::time::SystemTime {
        self.0.now().into()
    }
}

impl Connection {
    /// Builds a client for `store`. No request is sent.
    ///
    /// - Errors: [`ConnectError`].
    pub fn new(store: &Store, credentials: &StoreCredentials, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        let mut trust = TrustStore::default();
        if let Some(path) = &store.ca_file {
            let pem = std::fs::read(path).map_err(|source| ConnectError::CaFile { path: path.clone(), source })?;
            trust = trust.with_pem_certificate(pem);
        }
        let tls = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
        let http = Builder::new()
            .pool_idle_timeout(POOL_IDLE)
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(ATTEMPT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(ATTEMPT_TIMEOUT)
            .build();
        let session = credentials.session_token.as_ref().map(|token| token.expose_secret().to_owned());
        let (access_key, secret_key) = (credentials.access_key.expose_secret(), credentials.secret_key.expose_secret());
        let provider = Credentials::new(access_key, secret_key, session, None, "orphan-sweeper");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .endpoint_url(store.endpoint.as_str().trim_end_matches('/'))
            .region(Region::new(store.region.clone()))
            .force_path_style(store.path_style)
            .credentials_provider(SharedCredentialsProvider::new(provider))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .time_source(SigningClock(clock))
            .interceptor(Meter)
            .build();
        Ok(Self { client: Client::from_conf(config) })
    }

    /// A connection by a client that a test built.
    #[cfg(test)]
    pub fn of_client(client: Client) -> Self {
        Self { client }
    }

    /// The part that reads `bucket`.
    pub fn reading(&self, bucket: &str) -> S3Read {
        S3Read::new(self.client.clone(), bucket)
    }

    /// The part that deletes from `bucket`.
    pub fn deleting(&self, bucket: &str) -> S3Delete {
        S3Delete::new(self.client.clone(), bucket)
    }

    /// The part that puts the objects of a self-test into `bucket`.
    pub fn putting(&self, bucket: &str) -> S3Put {
        S3Put::new(self.client.clone(), bucket)
    }

    /// The part that copies within the store.
    pub fn copying(&self) -> S3Copy {
        S3Copy::new(self.client.clone())
    }

    /// The client itself, for `doctor --probe`, which writes to its own scratch prefix.
    pub fn client(&self) -> &Client {
        &self.client
    }
}
