//! A journal whose rows hold anything that its schema lets in: read as what they are, or refused; never a panic.

use proptest::prelude::*;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use uuid::Uuid;

use super::*;
use crate::list::content::SentIntents as _;
use crate::model::{RunId, Sha256Hash};

const SCOPE: &str = "synthetic";
const PREFIX: &str = "p/";

/// A row as somebody else may have written it.
#[derive(Debug, Clone)]
struct HostileRow {
    key: Vec<u8>,
    size: i64,
    etag: String,
    last_modified: Option<String>,
    outcome: Option<&'static str>,
    batch: i64,
    reason: String,
}

fn rows() -> impl Strategy<Value = Vec<HostileRow>> {
    let key = prop_oneof![
        "p/[a-z\u{0}\u{10ffff}]{0,4}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..6).prop_map(|tail| [PREFIX.as_bytes(), &tail].concat()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    let time = proptest::option::of(prop_oneof![
        Just("2026-03-01T00:00:00+00:00".to_owned()),
        "[0-9T:.+-]{0,30}",
        "\\PC{0,12}",
    ]);
    let outcome = prop::sample::select(vec![
        None,
        Some("deleted"),
        Some("already_gone"),
        Some("skipped"),
        Some("failed"),
        Some("unconfirmed"),
    ]);
    let row = (key, any::<i64>(), "\\PC{0,6}", time, outcome, any::<i64>(), "\\PC{0,6}").prop_map(
        |(key, size, etag, last_modified, outcome, batch, reason)| HostileRow {
            key,
            size,
            etag,
            last_modified,
            outcome,
            batch,
            reason,
        },
    );
    proptest::collection::vec(row, 0..12)
}

async fn written(rows: &[HostileRow], plan: Sha256Hash, run: RunId) -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite3");
    let now = "2026-03-01T00:00:00Z".parse().expect("a time");
    let ledger = Ledger::open_or_create(&path, now).await.expect("a ledger");
    let mut other = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.expect("a door");
    for row in rows {
        sqlx::query(
            "INSERT INTO intents (scope, key, plan_hash, run_id, id, prefix, batch, size_bytes, etag, last_modified, outcome, reason) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
        )
        .bind(SCOPE)
        .bind(&row.key)
        .bind(plan.to_string())
        .bind(run.to_string())
        .bind(&Uuid::nil().as_bytes()[..])
        .bind(PREFIX.as_bytes())
        .bind(row.batch)
        .bind(row.size)
        .bind(&row.etag)
        .bind(&row.last_modified)
        .bind(row.outcome)
        .bind(&row.reason)
        .execute(&mut other)
        .await
        .expect("the schema lets it in");
    }
    (folder, ledger)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    #[test]
    fn hostile_rows_are_read_as_they_are_or_refused(rows in rows()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (plan, run) = (Sha256Hash([1; 32]), RunId(Uuid::from_u128(7)));
        let (sent, verified, told, totals) = runtime.block_on(async {
            let (_folder, ledger) = written(&rows, plan, run).await;
            let sent = ledger.sent_intents(SCOPE).sent_after(PREFIX, None).await;
            let verified = ledger.to_verify(SCOPE, plan, PREFIX, None).await;
            let told = ledger.deletion_rows(SCOPE, run, None).await;
            (sent, verified, told, ledger.deletion_totals(run).await)
        });
        let is_row = |key: &str, size: u64| {
            rows.iter().any(|row| row.key == key.as_bytes() && u64::try_from(row.size).unwrap_or(0) == size)
        };
        for object in sent.into_iter().flatten().chain(verified.into_iter().flatten().map(|(object, _)| object)) {
            prop_assert!(object.key.as_str().starts_with(PREFIX) && is_row(object.key.as_str(), object.size_bytes));
        }
        for row in told.into_iter().flatten() {
            prop_assert!(is_row(&row.key, row.bytes));
        }
        if let Ok(totals) = totals {
            let keys: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.key).collect();
            prop_assert_eq!(totals.requested, keys.len() as u64);
            let parts = [totals.deleted, totals.already_gone, totals.skipped, totals.failed, totals.unconfirmed];
            prop_assert_eq!(parts.iter().sum::<u64>(), totals.requested);
        }
    }
}
