//! A bucket of its own on the real MinIO.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, EncodingType, VersioningConfiguration};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::setting;

/// A bucket, and the root credentials to fill it and to look into it.
#[derive(Clone)]
pub struct Bucket {
    pub client: Client,
    pub endpoint: String,
    pub name: String,
    pub access_key: String,
    pub secret_key: String,
}

pub fn client(endpoint: &str, access_key: &str, secret_key: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "tests"))
        .build();
    Client::from_conf(config)
}

impl Bucket {
    pub async fn create() -> Self {
        let (endpoint, access_key, secret_key) =
            (setting("MINIO_ENDPOINT"), setting("MINIO_USER"), setting("MINIO_PASSWORD"));
        let client = client(&endpoint, &access_key, &secret_key);
        let name = format!("t-{}", Uuid::new_v4().simple());
        client.create_bucket().bucket(&name).send().await.expect("a bucket is made");
        Self { client, endpoint, name, access_key, secret_key }
    }

    pub async fn put(&self, key: &str, body: &[u8]) {
        let body = ByteStream::from(body.to_vec());
        self.client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap_or_else(|error| panic!("PUT {key:?}: {error:?}"));
    }

    pub async fn delete(&self, key: &str) {
        self.client.delete_object().bucket(&self.name).key(key).send().await.expect("deleted");
    }

    /// Puts many small objects, several at once.
    pub async fn put_many(&self, keys: impl IntoIterator<Item = String>) {
        use futures::StreamExt;
        let puts = futures::stream::iter(keys).map(|key| async move { self.put(&key, b"x").await });
        puts.buffer_unordered(16).collect::<()>().await;
    }

    pub async fn set_versioning(&self, status: BucketVersioningStatus) {
        let configuration = VersioningConfiguration::builder().status(status).build();
        self.client
            .put_bucket_versioning()
            .bucket(&self.name)
            .versioning_configuration(configuration)
            .send()
            .await
            .expect("set");
    }

    /// Every current key with its entity tag, decoded exactly.
    pub async fn contents(&self) -> BTreeMap<String, String> {
        let mut contents = BTreeMap::new();
        let mut token = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.name)
                .encoding_type(EncodingType::Url)
                .set_continuation_token(token)
                .send()
                .await
                .expect("listed");
            for object in page.contents() {
                let encoded = object.key().expect("a key").replace('+', " ");
                let key = percent_decode_str(&encoded).decode_utf8().expect("UTF-8").into_owned();
                contents.insert(key, object.e_tag().expect("an ETag").to_owned());
            }
            token = page.next_continuation_token().map(ToOwned::to_owned);
            if token.is_none() {
                return contents;
            }
        }
    }

    /// Waits until the store's `Date`, in whole seconds, is past every object: bounded, and for a fact, not for a time.
    pub async fn settle(&self) {
        let key = "settle-probe";
        self.put(key, b"").await;
        let written = self.client.list_objects_v2().bucket(&self.name).prefix(key).send().await.expect("listed");
        let written = written.contents()[0].last_modified().expect("a time").to_millis().expect("in range");
        self.delete(key).await;
        for _ in 0..200 {
            if http_date(&self.endpoint).await.timestamp_millis() >= written {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the store's clock does not move");
    }
}

/// The `Date` that the store answers with.
pub async fn http_date(endpoint: &str) -> chrono::DateTime<chrono::Utc> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the store is up");
    let request = format!("GET /minio/health/live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("answered");
    let date = reply.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a Date");
    chrono::DateTime::parse_from_rfc2822(date.trim()).expect("a date").to_utc()
}
