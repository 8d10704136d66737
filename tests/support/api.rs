//! `serve` as callers of its API meet it: a process, an address, tokens.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Program;

/// A running `serve`. It ends with the test.
pub struct Api {
    child: Option<Child>,
    /// Its address, such as `127.0.0.1:40123`.
    pub address: String,
    client: reqwest::Client,
    log: std::sync::Arc<parking_lot::Mutex<String>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, bytes: response.bytes().await.expect("a body").to_vec() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("plain"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The document of an answer with this status.
    #[track_caller]
    pub fn with(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// The problem of an answer with this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        let problem = self.with(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{problem:#}");
        assert_eq!(problem["status"], status, "{problem:#}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem:#}");
        problem
    }
}

impl Api {
    /// Starts `serve` and waits until its API listens.
    pub async fn start(program: &Program) -> Self {
        let mut child = program.start(&["serve"]);
        let lines = BufReader::new(child.stderr.take().expect("a log")).lines();
        let (told, is_told) = mpsc::channel();
        let log: std::sync::Arc<parking_lot::Mutex<String>> = std::sync::Arc::default();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("the API listens address=") {
                    told.send(address.trim().to_owned()).ok();
                }
                kept.lock().push_str(&format!("{line}\n"));
            }
        });
        let address = tokio::task::spawn_blocking(move || is_told.recv_timeout(Duration::from_secs(60))).await;
        let address = address.expect("joined").unwrap_or_else(|_| panic!("it never listened:\n{}", log.lock()));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
        Self { child: Some(child), address, client, log }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Answer::of(request.send().await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()))).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(self.request("GET", path).bearer_auth(token)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.send(self.request("POST", path).bearer_auth(token).json(body)).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.send(self.request("DELETE", path).bearer_auth(token)).await
    }

    /// Sends bytes as they are; gives the status and the whole answer.
    pub async fn raw(&self, request: &str) -> (StatusCode, String) {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (StatusCode::from_u16(status).expect("a status"), answer)
    }

    /// Tells it to stop; gives its exit code.
    pub async fn stop(mut self) -> i32 {
        let child = self.child.take().expect("running");
        signal(&child, Signal::TERM);
        super::Ran::wait(child).await.code
    }

    /// Ends it without a word.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("killed");
        child.wait().expect("waited for");
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("signalled");
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Program {
    /// A new token of this scope, named after it.
    pub async fn token(&self, scope: &str) -> String {
        let ran = self.run(&["token", "create", "--name", &format!("{scope}er"), "--scope", scope]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let token = ran.stdout.trim_end().to_owned();
        assert!(token.starts_with("osw_") && token.len() == 47, "stdout is the token alone: {ran:?}");
        token
    }
}
