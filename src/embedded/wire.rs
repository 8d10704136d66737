//! HTTP/1.1 over one connection, down to the bytes.
//!
//! Takes and gives requests and replies. It is written out here, rather than left to an HTTP library, because the faults
//! that matter most live below one: a body that ends early and looks complete, a length that is never reached, no reply
//! at all. Invariant: a request is read to its end before anything is answered, so that closing the connection is a clean
//! end for the client and never a reset.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::faults::Framing;

/// The longest request head that is read; nothing that signs an S3 request comes near it.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The longest request body that is read: everything is held in memory.
const MAX_BODY_BYTES: usize = 1024 * 1024 * 1024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A request with its body.
#[derive(Debug)]
pub(super) struct WireRequest {
    pub(super) method: String,
    pub(super) target: String,
    /// Names in lower case, values as they came.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// Whether the client wants no further exchange on this connection.
    pub(super) is_last: bool,
}

impl WireRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A reply before it is framed.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Names in lower case; those that frame the body are set when it is sent.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Bytes,
    /// The `Content-Length` of a reply that has no body because the request was a HEAD.
    pub(super) head_length: Option<u64>,
}

/// How a reply reaches the client.
#[derive(Debug)]
pub(super) enum Delivery {
    Whole(Reply),
    CutShort { reply: Reply, keep_bytes: usize, framing: Framing },
    Nothing,
}

/// One connection of a client.
pub(super) struct Connection {
    stream: TcpStream,
    unread: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unread: BytesMut::new() }
    }

    /// The next request; `None` once the client has closed the connection.
    pub(super) async fn read_request(&mut self) -> io::Result<Option<WireRequest>> {
        let Some(head_length) = self.read_head().await? else { return Ok(None) };
        let head = self.unread.split_to(head_length);
        let head = std::str::from_utf8(&head).map_err(io::Error::other)?;
        let mut lines = head.trim_end().split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Err(io::Error::other("not a request line"));
        };
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let is_close = header(&headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let is_last = is_close || version != "HTTP/1.1";

        let body = self.read_body(&headers).await?;
        Ok(Some(WireRequest { method: method.to_owned(), target: target.to_owned(), headers, body, is_last }))
    }

    async fn read_head(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(at) = self.unread.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) {
                return Ok(Some(at + END_OF_HEAD.len()));
            }
            if self.unread.len() > MAX_HEAD_BYTES {
                return Err(io::Error::other("request head too long"));
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    async fn read_body(&mut self, headers: &[(String, String)]) -> io::Result<Bytes> {
        if header(headers, "transfer-encoding").is_some() {
            // S3 wants the length of every body beforehand, and so does MinIO.
            return Err(io::Error::other("a body without a length"));
        }
        let Some(length) = header(headers, "content-length") else { return Ok(Bytes::new()) };
        let length: usize = length.parse().map_err(io::Error::other)?;
        if length > MAX_BODY_BYTES {
            return Err(io::Error::other("request body too long"));
        }
        if header(headers, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        while self.unread.len() < length {
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.unread.split_to(length).freeze())
    }

    /// Sends a reply, and gives whether the connection can carry another exchange.
    pub(super) async fn deliver(&mut self, delivery: Delivery, is_last: bool) -> io::Result<bool> {
        let (bytes, is_last) = match delivery {
            Delivery::Whole(reply) => (whole(&reply, is_last), is_last),
            Delivery::CutShort { reply, keep_bytes, framing } => (cut_short(&reply, keep_bytes, framing), true),
            Delivery::Nothing => (Vec::new(), true),
        };
        self.stream.write_all(&bytes).await?;
        if is_last {
            self.stream.shutdown().await?;
        }
        Ok(!is_last)
    }
}

fn whole(reply: &Reply, is_last: bool) -> Vec<u8> {
    let mut bytes = head(reply);
    // A reply of 204 has no body by its nature, and a length would break the HTTP rules.
    if reply.status != 204 {
        let length = reply.head_length.unwrap_or(reply.body.len() as u64);
        push_header(&mut bytes, "content-length", length.to_string().as_bytes());
    }
    if is_last {
        push_header(&mut bytes, "connection", b"close");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&reply.body);
    bytes
}

fn cut_short(reply: &Reply, keep_bytes: usize, framing: Framing) -> Vec<u8> {
    let mut bytes = head(reply);
    match framing {
        Framing::CloseDelimited => push_header(&mut bytes, "connection", b"close"),
        Framing::ContentLength => {
            push_header(&mut bytes, "content-length", reply.body.len().to_string().as_bytes());
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&reply.body[..keep_bytes.min(reply.body.len())]);
    bytes
}

fn head(reply: &Reply) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} \r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        push_header(&mut bytes, name, value);
    }
    bytes
}

fn push_header(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}
