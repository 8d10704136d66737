//! `[serve]`: where the HTTP API of `serve` listens, and whom it answers.

use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use super::reader::{Placed, Reader};

/// The HTTP API. Source: `[serve]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where it listens; `None` where it is off. Source: `serve.listen`.
    pub listen: Option<SocketAddr>,
    /// Names that a request may be addressed to, beside `localhost` and every address. Source: `serve.hosts`.
    pub hosts: Vec<String>,
    /// Origins whose pages may send requests, beside our own. Source: `serve.origins`.
    pub origins: Vec<String>,
    /// Longest body that is read, in bytes. Source: `serve.max_body`.
    pub max_body_bytes: usize,
    /// Longest time that a request may take, but a deletion's. Source: `serve.request_timeout`.
    pub request_timeout: Duration,
}

const LISTEN: &str = "an address such as \"127.0.0.1:8080\", or \"off\"";
const HOST: &str = "a host name without a port, such as \"sweeper.example.org\"";
const ORIGIN: &str = "scheme, host and port of a page, such as \"https://sweeper.example.org\"";
/// The default of `serve.listen`.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// The default of `serve.max_body`: the longest body is a decision on some thousand ids.
const DEFAULT_MAX_BODY_BYTES: u64 = 256 * 1024;
/// Above this a body would cost memory for no request that there is.
const MOST_BODY_BYTES: u64 = 16 * 1024 * 1024;
/// The default of `serve.request_timeout`.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads `[serve]`.
pub(super) fn read(mut table: Reader<'_>) -> Serve {
    let listen = table.text("listen", LISTEN).map_or(Some(DEFAULT_LISTEN), |placed| match placed.value.as_str() {
        "off" => None,
        text => text.parse().map_or_else(
            |_| {
                table.wrong(&placed, format!("`{text}` is no address with a port; write {LISTEN}"));
                None
            },
            Some,
        ),
    });
    let hosts = read_list(&mut table, "hosts", HOST, |text| is_host(text).then(|| text.to_ascii_lowercase()));
    let origins = read_list(&mut table, "origins", ORIGIN, read_origin);
    let max_body_bytes = table.size("max_body").unwrap_or(DEFAULT_MAX_BODY_BYTES);
    if !(1024..=MOST_BODY_BYTES).contains(&max_body_bytes) {
        table.problem("max_body", "is not between 1KiB and 16MiB; write a size between them, or remove it");
    }
    let request_timeout = table.duration("request_timeout", DEFAULT_REQUEST_TIMEOUT);
    if request_timeout.value.is_zero() {
        table.wrong(&request_timeout, "is no time at all; write a duration such as \"30s\"");
    }
    table.finish();
    Serve {
        listen,
        hosts,
        origins,
        max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
        request_timeout: request_timeout.value,
    }
}

fn read_list(
    table: &mut Reader<'_>,
    key: &'static str,
    expected: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let written: Vec<Placed<String>> = table.texts(key).map(|placed| placed.value).unwrap_or_default();
    let read = |placed: &Placed<String>| {
        let value = read(&placed.value);
        if value.is_none() {
            table.wrong(placed, format!("`{}` is not it; write {expected}", placed.value));
        }
        value
    };
    written.iter().filter_map(read).collect()
}

fn is_host(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && text.bytes().all(is_plain)
}

/// An origin as a browser writes it: no path, no default port.
fn read_origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_origin = matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty();
    is_origin.then(|| url.origin().ascii_serialization())
}
