//! Who asks: the token in `Authorization: Bearer`, and whether it may be used for this.
//!
//! Invariant: no route of the API is reached without a token of its scope, from loopback either; a token that was revoked
//! counts no longer from the next request on.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Problem;
use crate::model::Sha256Hash;
use crate::record::TokenScope;

/// A token is shorter; a longer one is none.
const LONGEST_TOKEN: usize = 200;

/// Who asks, as a handler sees it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name of the token: whoever decides something decides it by this name.
    pub name: String,
}

/// What a route asks for.
#[derive(Clone)]
pub struct Needed {
    /// What the handlers share.
    pub app: Shared,
    /// The scope.
    pub scope: TokenScope,
}

/// Lets a caller through whose token has the scope.
pub async fn require(State(needed): State<Needed>, mut request: Request, next: Next) -> Response {
    match check(&needed, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn check(needed: &Needed, headers: &HeaderMap) -> Result<Caller, Problem> {
    const MAKE: &str = "make a token with `orphan-sweeper token create`, and send it as `Authorization: Bearer TOKEN`";
    let unauthorized = |detail: &str, challenge| {
        Problem::new(StatusCode::UNAUTHORIZED, detail).with_hint(MAKE).with_challenge(challenge)
    };
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(unauthorized("this needs a token", "Bearer realm=\"orphan-sweeper\""));
    }
    let refused =
        || unauthorized("the token does not count", "Bearer realm=\"orphan-sweeper\", error=\"invalid_token\"");
    let shown = bearer(headers).ok_or_else(refused)?;
    let ledger = &needed.app.services.ledger;
    let token = ledger.token_of(Sha256Hash::of(shown.as_bytes())).await?.ok_or_else(refused)?;
    if let Err(error) = ledger.note_token_use(&token, needed.app.services.clock.now()).await {
        tracing::warn!(error = %error, "the use of a token could not be noted");
    }
    if !token.scope.allows(needed.scope) {
        let detail = format!("this needs a token of the scope `{}`; this one has `{}`", needed.scope, token.scope);
        return Err(Problem::new(StatusCode::FORBIDDEN, detail)
            .with_hint(MAKE)
            .with_challenge(insufficient(needed.scope)));
    }
    Ok(Caller { name: token.name })
}

/// The one token that a request shows.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (shown.next(), shown.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= LONGEST_TOKEN).then_some(token)
}

fn insufficient(scope: TokenScope) -> &'static str {
    match scope {
        TokenScope::Read => "Bearer realm=\"orphan-sweeper\", error=\"insufficient_scope\", scope=\"read\"",
        TokenScope::Approve => "Bearer realm=\"orphan-sweeper\", error=\"insufficient_scope\", scope=\"approve\"",
        TokenScope::Delete => "Bearer realm=\"orphan-sweeper\", error=\"insufficient_scope\", scope=\"delete\"",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_bearer_token_is_read_and_nothing_else() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
            }
            bearer(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(read(&["Bearer abc"]), Some("abc".into()));
        assert_eq!(read(&["bearer  abc "]), Some("abc".into()));
        for wrong in [&["Basic abc"][..], &["Bearer"], &["Bearer "], &["abc"], &["Bearer a", "Bearer b"], &[]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(read(&[&format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1))]), None);
    }
}
