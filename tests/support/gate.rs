//! A gate before the real store: it lets every request through, and runs a test's hook before each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What passes the gate.
#[derive(Debug, Clone)]
pub struct Passing {
    pub method: String,
    pub target: String,
    /// How many requests of the same kind passed before, counted from 1.
    pub number: usize,
}

impl Passing {
    pub fn is_prefix_listing(&self) -> bool {
        self.method == "GET" && self.target.contains("list-type=2") && self.target.contains("delimiter=")
    }

    pub fn is_group_listing(&self) -> bool {
        self.method == "GET" && self.target.contains("list-type=2") && !self.target.contains("delimiter=")
    }

    pub fn is_batch_delete(&self) -> bool {
        self.method == "POST" && self.target.contains("delete")
    }
}

type Hook = Arc<dyn Fn(Passing) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An open gate; it closes with the test's runtime.
pub struct Gate {
    pub endpoint: String,
}

impl Gate {
    /// Opens a gate before `store`, an address such as `http://127.0.0.1:9000`.
    pub async fn open<F>(store: &str, hook: impl Fn(Passing) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let store = store.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let hook: Hook = Arc::new(move |passing| Box::pin(hook(passing)));
        let counts: Arc<[AtomicUsize; 4]> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (store, hook, counts) = (store.clone(), hook.clone(), counts.clone());
                tokio::spawn(async move { pass(client, &store, hook, &counts).await });
            }
        });
        Self { endpoint }
    }
}

async fn pass(client: TcpStream, store: &str, hook: Hook, counts: &[AtomicUsize; 4]) {
    let Ok(server) = TcpStream::connect(store).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = Vec::new();
    'requests: loop {
        let head_end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if from_client.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                break 'requests;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        let mut words = head.split_whitespace();
        let mut passing = Passing {
            method: words.next().unwrap_or_default().into(),
            target: words.next().unwrap_or_default().into(),
            number: 0,
        };
        let kind = if passing.is_prefix_listing() {
            0
        } else if passing.is_group_listing() {
            1
        } else if passing.is_batch_delete() {
            2
        } else {
            3
        };
        passing.number = counts[kind].fetch_add(1, Ordering::SeqCst) + 1;
        let length = head.lines().find_map(|line| {
            line.to_lowercase().strip_prefix("content-length:").map(|length| length.trim().parse().unwrap_or(0))
        });
        let length: usize = length.unwrap_or(0);
        while buffer.len() < head_end + length {
            if from_client.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                break 'requests;
            }
        }
        hook(passing).await;
        if to_server.write_all(&buffer[..head_end + length]).await.is_err() {
            break;
        }
        buffer.drain(..head_end + length);
    }
    drop(to_server);
    back.await.ok();
}
