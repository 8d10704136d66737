//! Listings as hostile bytes, through the client itself: a server that answers whatever the test makes up.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, LazyLock, Mutex};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::*;
use crate::clock::SystemClock;
use crate::config::secrets::StoreCredentials;
use crate::config::{CredentialFiles, Store};
use crate::s3::{Connection, StoreFault};

/// A client, and the body that the server answers its next request with.
struct Bench {
    runtime: tokio::runtime::Runtime,
    store: S3Read,
    body: Arc<Mutex<Vec<u8>>>,
}

impl Bench {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let body = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::clone(&body);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request: Vec<u8> = Vec::new();
                let mut chunk = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut chunk) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => request.extend(&chunk[..read]),
                    }
                }
                // Without a length: a client cannot see by the framing that anything is missing.
                let head = "HTTP/1.1 200 OK\r\nDate: Tue, 03 Mar 2026 03:00:00 GMT\r\nConnection: close\r\n\r\n";
                let body = answer.lock().expect("the body").clone();
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        let store = Store {
            endpoint: endpoint.parse().expect("a URL"),
            region: "us-east-1".into(),
            path_style: true,
            ca_file: None,
            credentials: CredentialFiles::default(),
            delete_credentials: CredentialFiles::default(),
        };
        let credentials =
            StoreCredentials { access_key: "key".into(), secret_key: "secret".into(), session_token: None };
        let connection = Connection::new(&store, &credentials, Arc::new(SystemClock)).expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, store: connection.reading("bucket"), body }
    }

    /// What the client makes of a body.
    fn read(&self, body: &[u8]) -> Result<Page, StoreFault> {
        body.clone_into(&mut self.body.lock().expect("the body"));
        let request = PageRequest { prefix: "synthetic/".into(), by_delimiter: true, token: None };
        self.runtime.block_on(self.store.page(&request)).map_err(|error| error.fault)
    }
}

static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| Mutex::new(Bench::new()));

fn read(body: &[u8]) -> Result<Page, StoreFault> {
    BENCH.lock().expect("the bench").read(body)
}

fn encode(key: &str) -> String {
    utf8_percent_encode(key, NON_ALPHANUMERIC).to_string()
}

/// A listing as a store writes it.
fn document(keys: &[String], prefixes: &[String]) -> String {
    let object = |listed: String, key: &String| {
        listed
            + &format!("<Contents><Key>{}</Key><LastModified>2026-03-01T00:00:00.000Z</LastModified>", encode(key))
            + "<ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>"
    };
    let prefix = |listed: String, prefix: &String| {
        listed + &format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", encode(prefix))
    };
    let contents = keys.iter().fold(String::new(), object);
    let common = prefixes.iter().fold(String::new(), prefix);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name>\
         <Prefix>synthetic%2F</Prefix><KeyCount>{}</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>\
         <IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>",
        keys.len() + prefixes.len()
    )
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(any::<String>().prop_filter("a key has a name", |name| !name.is_empty()), 0..6)
}

proptest! {
    #[test]
    fn every_listing_comes_back_byte_for_byte(keys in names(), prefixes in names()) {
        let page = read(document(&keys, &prefixes).as_bytes()).expect("a page");
        let listed: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
        prop_assert_eq!(listed, keys);
        prop_assert_eq!(page.prefixes, prefixes);
        prop_assert!(!page.is_truncated);
    }

    #[test]
    fn a_listing_that_is_cut_anywhere_is_none(keys in names(), prefixes in names(), at in any::<prop::sample::Index>()) {
        let whole = document(&keys, &prefixes);
        prop_assert!(read(&whole.as_bytes()[..at.index(whole.len())]).is_err());
    }

    #[test]
    fn a_damaged_listing_never_holds_more_than_it_counts(
        keys in names(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        is_inserted in any::<bool>(),
    ) {
        let mut bytes = document(&keys, &[]).into_bytes();
        let at = at.index(bytes.len());
        if is_inserted { bytes.insert(at, byte) } else { bytes[at] = byte }
        if let Ok(page) = read(&bytes) {
            prop_assert!(page.objects.len() + page.prefixes.len() <= keys.len());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_listing(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn arbitrary_tags_between_the_right_ends_list_nothing_uncounted(
        inside in "(<(Contents|Key|CommonPrefixes|Prefix|KeyCount|IsTruncated|EncodingType|Size|ETag|x)>|</[A-Za-z]{1,9}>|url|false|true|[0-9]{1,3}|&amp;|[ -;=?-~]{0,5}){0,40}",
    ) {
        let body = format!("<ListBucketResult>{inside}</ListBucketResult>");
        if let Ok(page) = read(body.as_bytes()) {
            // Whatever was read was written there.
            prop_assert!(page.objects.len() <= inside.matches("<Contents>").count());
            prop_assert!(page.prefixes.len() <= inside.matches("<CommonPrefixes>").count());
        }
    }
}
