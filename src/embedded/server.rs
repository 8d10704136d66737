//! From a request on the wire to a reply on the wire: record, hooks, faults, execution, `Date`.
//!
//! Takes connections; gives each request to the S3 library, or what a fault makes of it. Invariant: a request is on
//! record, and every hook has returned, before anything of it is executed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::Delete;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpRequest, HttpResponse, S3Result, s3_error};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::MemoryStore;
use super::faults::{Effects, ReplyFault};
use super::request::{self, RecordedRequest};
use super::service::Operations;
use super::wire::{Connection, Delivery, Reply, WireRequest};

/// The headers that frame a body: those of the S3 library are replaced by what the wire does.
const FRAMING_HEADERS: [&str; 4] = ["content-length", "transfer-encoding", "connection", "date"];

/// What travels with a request through the S3 library to the operation.
pub(super) struct Exchange {
    pub(super) request: RecordedRequest,
    /// The body of a `DeleteObjects`.
    pub(super) delete: Option<Delete>,
    pub(super) effects: Effects,
}

#[derive(Clone)]
pub(super) struct Server {
    store: MemoryStore,
    service: S3Service,
}

impl Server {
    pub(super) fn new(store: MemoryStore) -> Self {
        let mut config = S3Config::default();
        // The demo moves every clock of the program by days, and the library compares a signature with the host's.
        config.presigned_url_max_skew_time_secs = u32::MAX;
        let mut builder = S3ServiceBuilder::new(Operations::new(store.clone()));
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder.set_auth(Accounts(store.clone()));
        builder.set_access(Rights(store.clone()));
        Self { store, service: builder.build() }
    }

    /// Serves until `stop`; requests that are being executed then are dropped with their connections.
    pub(super) async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let server = self.clone();
            let stop = stop.clone();
            connections.spawn(async move { stop.run_until_cancelled(server.serve_connection(stream)).await });
        }
        connections.close();
        connections.wait().await;
    }

    async fn serve_connection(self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut connection = Connection::new(stream);
        while let Some(request) = connection.read_request().await? {
            let is_last = request.is_last;
            let delivery = self.answer(request).await;
            if !connection.deliver(delivery, is_last).await? {
                break;
            }
        }
        Ok(())
    }

    async fn answer(&self, request: WireRequest) -> Delivery {
        let is_head = request.method == "HEAD";
        let (recorded, delete) = request::read(&request, self.store.0.clock.now());
        self.store.0.requests.lock().push(recorded.clone());
        self.run_hooks(&recorded).await;
        let effects = self.store.0.faults.lock().take(&recorded);
        if !effects.delay.is_zero() {
            tokio::time::sleep(effects.delay).await;
        }

        let fault = effects.reply;
        let date = effects.date;
        let exchange = Exchange { request: recorded, delete, effects };
        let mut delivery = match fault {
            Some(ReplyFault::DropConnection) => Delivery::Nothing,
            Some(ReplyFault::Status { code, s3_code }) => Delivery::Whole(error_reply(code, s3_code)),
            Some(ReplyFault::StatusAfter { code, s3_code }) => {
                self.execute(request, exchange).await;
                Delivery::Whole(error_reply(code, s3_code))
            }
            Some(ReplyFault::DropAfter) => {
                self.execute(request, exchange).await;
                Delivery::Nothing
            }
            Some(ReplyFault::CutBody { keep_bytes, framing }) => match self.execute(request, exchange).await {
                Some(reply) => Delivery::CutShort { reply, keep_bytes, framing },
                None => Delivery::Nothing,
            },
            None => self.execute(request, exchange).await.map_or(Delivery::Nothing, Delivery::Whole),
        };
        match &mut delivery {
            Delivery::Whole(reply) | Delivery::CutShort { reply, .. } => {
                self.finish(reply, date.unwrap_or_else(|| self.store.0.clock.now()), is_head);
            }
            Delivery::Nothing => {}
        }
        delivery
    }

    /// Runs the hooks where they may block: a test may want to commit a row, or wait for another task, at this moment.
    async fn run_hooks(&self, recorded: &RecordedRequest) {
        let hooks = self.store.0.hooks.lock().clone();
        if hooks.is_empty() {
            return;
        }
        let store = self.store.clone();
        let recorded = recorded.clone();
        let run = move || hooks.iter().for_each(|hook| hook(&recorded, &store));
        tokio::task::spawn_blocking(run).await.expect("a hook does not panic");
    }

    /// `None` if the S3 library gives the connection up.
    async fn execute(&self, request: WireRequest, exchange: Exchange) -> Option<Reply> {
        let mut http_request = http_request(request)?;
        http_request.extensions_mut().insert(Arc::new(exchange));
        read_response(self.service.call(http_request).await.ok()?).await
    }

    fn finish(&self, reply: &mut Reply, date: DateTime<Utc>, is_head: bool) {
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let id = self.store.0.last_request.fetch_add(1, Ordering::Relaxed) + 1;
        reply.headers.push(("date".to_owned(), date.into_bytes()));
        reply.headers.push(("x-amz-request-id".to_owned(), format!("{id:016X}").into_bytes()));
        if is_head {
            reply.body = Bytes::new();
        } else {
            reply.head_length = None;
        }
    }
}

fn http_request(request: WireRequest) -> Option<HttpRequest> {
    let mut http_request = HttpRequest::new(Body::from(request.body));
    *http_request.method_mut() = request.method.parse().ok()?;
    *http_request.uri_mut() = request.target.parse().ok()?;
    for (name, value) in &request.headers {
        let value = value.as_bytes().try_into().ok()?;
        http_request.headers_mut().try_entry(name).ok()?.or_try_insert(value).ok()?;
    }
    Some(http_request)
}

async fn read_response(response: HttpResponse) -> Option<Reply> {
    let text_of = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let head_length = text_of("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let is_xml = text_of("content-type").is_some_and(|kind| kind.starts_with("application/xml"));
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .filter(|(name, _)| !FRAMING_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    let body = response.into_body().store_all_limited(usize::MAX).await.ok()?;
    let body = if is_xml { escape_like_minio(&body) } else { body };
    Some(Reply { status, headers, body, head_length: Some(head_length) })
}

/// Writes what XML cannot carry as MinIO does: a control character as a reference, which no parser of XML 1.0 accepts,
/// and the two non-characters as U+FFFD.
fn escape_like_minio(body: &Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(body) else { return body.clone() };
    let is_changed = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    if !text.contains(is_changed) {
        return body.clone();
    }
    let escape = |c: char| match c {
        '\u{fffe}' | '\u{ffff}' => "\u{fffd}".to_owned(),
        c if is_changed(c) => format!("&#x{:X};", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

fn error_reply(status: u16, s3_code: &str) -> Reply {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>{s3_code}</Code><Message>injected fault</Message></Error>"
    );
    let headers = vec![("content-type".to_owned(), b"application/xml".to_vec())];
    Reply { status, headers, body: body.into(), head_length: Some(0) }
}

/// Who may sign requests.
struct Accounts(MemoryStore);

#[async_trait::async_trait]
impl S3Auth for Accounts {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = self.0.0.credentials.lock().get(access_key).cloned();
        secret.map(SecretKey::from).ok_or_else(|| s3_error!(InvalidAccessKeyId))
    }
}

/// What they may do.
struct Rights(MemoryStore);

#[async_trait::async_trait]
impl S3Access for Rights {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let access_key = context.credentials().map(|credentials| credentials.access_key.clone());
        let operation = exchange(context.extensions_mut().get())?.request.operation;
        match access_key.map(|access_key| (access_key, operation)) {
            Some(wish) if !self.0.0.forbidden.lock().contains(&wish) => Ok(()),
            _ => Err(s3_error!(AccessDenied, "Access Denied.")),
        }
    }
}

/// What travelled with the request.
pub(super) fn exchange(extension: Option<&Arc<Exchange>>) -> S3Result<Arc<Exchange>> {
    extension.cloned().ok_or_else(|| s3_error!(InternalError, "the request did not come through the server"))
}
