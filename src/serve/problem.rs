//! What the API answers where it does not do what was asked: RFC 9457 problem details, whoever noticed.
//!
//! Takes refusals of the framework and of our own; gives one shape. Invariant: no answer of an error has another shape,
//! and none repeats a secret.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::{Ref, RefOr, Response as OpenApiResponse, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::command::CommandError;
use crate::exit::Exit;
use crate::record::RecordError;
use crate::run::failure::chain;

/// The media type of problem details.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not done, as RFC 9457 has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong with this request.
    #[schema(value_type = String)]
    detail: Box<str>,
    /// What to do next, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    hint: Option<Box<str>>,
    /// The names of what stands in the way, where it has names: the models that use a dataset.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip)]
    #[schema(ignore)]
    challenge: Option<&'static str>,
}

impl Problem {
    /// A problem of this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into().into(),
            hint: None,
            names: Vec::new(),
            challenge: None,
        }
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// What was sent can be read and not be meant.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// What is there stands in the way.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Something that this needs is not there now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Says what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// Names what stands in the way.
    #[must_use]
    pub fn with_names(mut self, names: Vec<String>) -> Self {
        self.names = names;
        self
    }

    /// Says what a caller must show, in `WWW-Authenticate`.
    #[must_use]
    pub fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// The status.
    #[cfg(test)]
    pub fn status(&self) -> u16 {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let challenge = self.challenge;
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        tracing::error!(error = %chain(&error), "a request failed: the ledger");
        Self::unavailable("the ledger cannot be used now").with_hint("the log of `serve` has the reason; try again")
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let CommandError { message, hint, exit } = error;
        let problem = match exit {
            Exit::Usage => Self::unprocessable(message),
            Exit::Refused | Exit::Locked => Self::conflict(message),
            Exit::Done
            | Exit::Failed
            | Exit::OrphansFound
            | Exit::SomeFailed
            | Exit::Interrupted
            | Exit::Terminated => {
                tracing::error!(error = %message, "a request failed");
                Self::unavailable("it could not be done now").with_hint("the log of `serve` has the reason; try again")
            }
        };
        match hint {
            Some(hint) if problem.hint.is_none() => problem.with_hint(hint),
            _ => problem,
        }
    }
}

/// Answers a path that nothing is at.
pub async fn not_found() -> Problem {
    Problem::not_found("there is nothing at this path").with_hint("/api/v1/openapi.json lists what there is")
}

/// Answers a method that a path does not know.
pub async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path does not know the method {method}"))
        .with_hint("/api/v1/openapi.json lists what there is")
}

/// Answers a request whose handler panicked. What it said is logged, and not told to the caller.
#[expect(clippy::needless_pass_by_value, reason = "the shape that the layer calls")]
pub fn panicked(payload: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it says nothing");
    tracing::error!(error = text, "a request panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "something is wrong in this program")
        .with_hint("the log of `serve` has the reason")
        .into_response()
}

/// The parameters in a path.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        read.map(|Path(value)| Self(value)).map_err(|rejection: PathRejection| {
            Problem::unprocessable(format!("the path cannot be read: {}", rejection.body_text()))
        })
    }
}

/// The parameters after the `?`.
#[derive(Debug)]
pub struct InQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(value)| Self(value)).map_err(|rejection: QueryRejection| {
            Problem::unprocessable(format!("the query cannot be read: {}", rejection.body_text()))
        })
    }
}

/// A JSON document in the body.
#[derive(Debug)]
pub struct InBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequest<S> for InBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Json::<T>::from_request(request, state).await;
        read.map(|Json(value)| Self(value)).map_err(|rejection: JsonRejection| {
            let problem = Problem::new(rejection.status(), rejection.body_text());
            match rejection.status() {
                StatusCode::UNSUPPORTED_MEDIA_TYPE => problem.with_hint("send Content-Type: application/json"),
                StatusCode::PAYLOAD_TOO_LARGE => problem.with_hint("`serve.max_body` is the longest that is read"),
                _ => problem,
            }
        })
    }
}

/// An answer of problem details, as the description has it.
pub fn answer(description: &str) -> RefOr<OpenApiResponse> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    RefOr::T(ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build())
}

/// Answers that several routes share, as the description has them.
macro_rules! shared_answers {
    ($($(#[$doc:meta])+ $name:ident: $($status:literal => $description:literal),+;)+) => {$(
        $(#[$doc])+
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<OpenApiResponse>> {
                [$(($status.to_owned(), answer($description))),+].into()
            }
        }
    )+};
}

shared_answers! {
    /// What is named is not there.
    NotFound: "404" => "there is no such thing";
    /// What was sent can be read and not be meant.
    Unprocessable: "422" => "a parameter cannot be meant";
    /// What is there stands in the way.
    Conflict: "409" => "what is there stands in the way";
    /// The body is none that this reads.
    BadBody:
        "413" => "the body is longer than `serve.max_body`",
        "415" => "the body is no `application/json`",
        "422" => "a parameter or the body cannot be meant";
}
