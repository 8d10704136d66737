//! Somebody who is told: a local HTTP server that remembers what it was sent and answers as a test wants.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// How a request is answered.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// With a status.
    Status(u16),
    /// With a redirect to `/elsewhere`.
    Redirect,
    /// Never.
    Hang,
}

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Told {
    pub method: String,
    pub path: String,
    pub body: Value,
}

#[derive(Default)]
struct Inner {
    told: Mutex<Vec<Told>>,
    answers: Mutex<VecDeque<Answer>>,
}

/// The server. It ends with the runtime of its test.
pub struct Listener {
    pub address: String,
    inner: Arc<Inner>,
}

impl Listener {
    /// Listens on a free port, and takes everything.
    pub async fn open() -> Self {
        let inner = Arc::new(Inner::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", socket.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(socket, router).await });
        Self { address, inner }
    }

    /// The next requests are answered so, and those after them with 200 again.
    pub fn answer_next(&self, answers: &[Answer]) {
        self.inner.answers.lock().expect("not poisoned").extend(answers);
    }

    /// What it was sent since it was last asked.
    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.inner.told.lock().expect("not poisoned"))
    }

    /// The only message that it was sent since it was last asked.
    #[track_caller]
    pub fn only_message(&self) -> Value {
        let told = self.take();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert_eq!(told[0].method, "POST");
        told[0].body.clone()
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_else(|_| Bytes::new());
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    inner.told.lock().expect("not poisoned").push(Told { method, path, body });
    let answer = inner.answers.lock().expect("not poisoned").pop_front();
    match answer {
        None => StatusCode::OK.into_response(),
        Some(Answer::Status(status)) => StatusCode::from_u16(status).expect("a status").into_response(),
        Some(Answer::Redirect) => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Some(Answer::Hang) => std::future::pending().await,
    }
}
