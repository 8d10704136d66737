//! Temporary credentials of MinIO with a policy of their own: what a least-privilege test needs, and no admin client.

use aws_sdk_s3::config::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use orphan_sweeper::clock::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Bucket, Program};

/// What `AssumeRole` gave.
#[derive(Clone)]
pub struct Temporary {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: String,
}

impl Temporary {
    /// Credentials of the bucket's owner, cut down to `policy`. Source: STS `AssumeRole`.
    pub async fn with_policy(bucket: &Bucket, policy: &str) -> Self {
        let body = form_urlencoded(&[
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("DurationSeconds", "3600"),
            ("Policy", policy),
        ]);
        let host = bucket.endpoint.trim_start_matches("http://").trim_end_matches('/');
        let headers = [("host", host), ("content-type", "application/x-www-form-urlencoded")];
        let identity = Credentials::new(&bucket.access_key, &bucket.secret_key, None, None, "tests").into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("sts")
            .time(SystemClock.now().into())
            .settings(SigningSettings::default())
            .build()
            .expect("complete")
            .into();
        let address = format!("http://{host}/");
        let signable =
            SignableRequest::new("POST", &address, headers.into_iter(), SignableBody::Bytes(body.as_bytes()))
                .expect("signable");
        let (instructions, _) = sign(signable, &parameters).expect("signed").into_parts();
        let headers = headers.into_iter().chain(instructions.headers());
        let signed = headers.fold(String::new(), |signed, (name, value)| format!("{signed}{name}: {value}\r\n"));
        let request =
            format!("POST / HTTP/1.1\r\n{signed}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let mut stream = tokio::net::TcpStream::connect(host).await.expect("the store is up");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("answered");
        let field = |name: &str| {
            let after = reply.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {reply}")).1;
            after.split_once('<').expect("a closing tag").0.to_owned()
        };
        Self {
            access_key: field("AccessKeyId"),
            secret_key: field("SecretAccessKey"),
            session_token: field("SessionToken"),
        }
    }

    /// A client of the test with these credentials.
    pub fn client(&self, bucket: &Bucket) -> aws_sdk_s3::Client {
        let credentials =
            Credentials::new(&self.access_key, &self.secret_key, Some(self.session_token.clone()), None, "tests");
        let config = bucket.client.config().to_builder().credentials_provider(credentials).build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// Makes it the pair that looks.
    pub fn read_with(&self, program: &mut Program) {
        program.set("AWS_ACCESS_KEY_ID", &self.access_key);
        program.set("AWS_SECRET_ACCESS_KEY", &self.secret_key);
        program.set("AWS_SESSION_TOKEN", &self.session_token);
    }

    /// Makes it the pair that deletes.
    pub fn delete_with(&self, program: &mut Program) {
        program.set("ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID", &self.access_key);
        program.set("ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY", &self.secret_key);
        program.set("ORPHAN_SWEEPER_DELETE_SESSION_TOKEN", &self.session_token);
    }
}

fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
