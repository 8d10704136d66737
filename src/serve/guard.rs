//! What every request passes before a route: to whom it is addressed, which page sent it, how long it may take.
//!
//! Invariant: a page that a browser shows from elsewhere reaches nothing, not even by a name that resolves to this host.
//! A name may come to mean this host (DNS rebinding); an address is what it is, so any address is answered.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Problem;
use crate::config::Serve;

/// Put on every answer that does not say otherwise itself.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Lets a request through to its route, or refuses it.
pub async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let serve = &app.services.config.serve;
    let mut response = match refusal(serve, request.uri(), request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Ends a request whose time is over.
pub async fn limit_time(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let limit = app.services.config.serve.request_timeout;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable(format!("it took longer than {}", humantime::format_duration(limit)))
            .with_hint("`serve.request_timeout` is the longest that a request may take")
            .into_response(),
    }
}

/// Why a request is refused before it has a route.
fn refusal(serve: &Serve, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|text| text.parse::<Authority>().ok()),
        _ => None,
    };
    let Some(host) = host else {
        return Some(Problem::new(StatusCode::BAD_REQUEST, "the request names no host, or not one"));
    };
    let is_ours = [Some(&host), uri.authority()].into_iter().flatten().all(|host| is_known_host(serve, host.host()));
    if !is_ours {
        let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, "the request is addressed to another host");
        return Some(problem.with_hint("list the names that this API is called by in [serve] hosts"));
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if origins.any(|origin| !is_known_origin(serve, &host, origin)) {
        let problem = Problem::new(StatusCode::FORBIDDEN, "the request comes from a page of another origin");
        return Some(problem.with_hint("list the origins whose pages may send requests in [serve] origins"));
    }
    None
}

fn is_known_host(serve: &Serve, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    let is_address = name.parse::<IpAddr>().is_ok()
        || name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
    is_address || name == "localhost" || serve.hosts.iter().any(|known| known == name)
}

/// A page of ours is one that this same host and port would have served; and those that are configured.
fn is_known_origin(serve: &Serve, host: &Authority, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let is_own = ["http://", "https://"]
        .iter()
        .filter_map(|scheme| origin.strip_prefix(scheme))
        .any(|origin| origin.eq_ignore_ascii_case(host.as_str()));
    is_own || serve.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn serve() -> Serve {
        Serve {
            listen: None,
            hosts: vec!["sweeper.example.org".into()],
            origins: vec!["https://console.example.org".into()],
            max_body_bytes: 1024,
            request_timeout: Duration::from_secs(1),
        }
    }

    fn status(uri: &str, headers: &[(HeaderName, &str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        refusal(&serve(), &uri.parse().expect("a URI"), &map).map(|problem| problem.status())
    }

    #[test]
    fn a_request_must_be_addressed_to_an_address_to_localhost_or_to_a_configured_name() {
        for host in ["127.0.0.1:8080", "10.1.2.3", "[::1]:8080", "localhost:9", "LOCALHOST", "sweeper.example.org:443"]
        {
            assert_eq!(status("/healthz", &[(header::HOST, host)]), None, "{host}");
        }
        for host in ["evil.example.org", "localhost.evil.example.org", "127.0.0.1.evil.example.org", "127.1.evil"] {
            assert_eq!(status("/healthz", &[(header::HOST, host)]), Some(421), "{host}");
        }
        assert_eq!(status("/healthz", &[]), Some(400));
        assert_eq!(status("/healthz", &[(header::HOST, "localhost"), (header::HOST, "localhost")]), Some(400));
        assert_eq!(status("http://evil.example.org/healthz", &[(header::HOST, "localhost")]), Some(421));
    }

    #[test]
    fn a_page_of_another_origin_reaches_nothing() {
        let host = (header::HOST, "127.0.0.1:8080");
        for origin in ["http://127.0.0.1:8080", "https://127.0.0.1:8080", "https://console.example.org"] {
            assert_eq!(status("/", &[host.clone(), (header::ORIGIN, origin)]), None, "{origin}");
        }
        for origin in ["null", "http://127.0.0.1:8081", "https://evil.example.org", "http://console.example.org", ""] {
            assert_eq!(status("/", &[host.clone(), (header::ORIGIN, origin)]), Some(403), "{origin}");
        }
        let both = [host, (header::ORIGIN, "http://127.0.0.1:8080"), (header::ORIGIN, "null")];
        assert_eq!(status("/", &both), Some(403));
    }
}
