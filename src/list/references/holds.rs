//! The table of protected ids, read in the transaction that proves the live ids.
//!
//! Invariant: as many rows arrive as are there, and a row that cannot be read ends the run: it is a protection that somebody
//! meant.

use futures::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::{ReferencesError, read_id};
use crate::config::{TableName, quote};
use crate::decide::holds::{Hold, HoldSource, read_until};
use crate::model::{DatasetId, Timestamp, visible};

/// The dotted key of the table.
pub(super) const KEY: &str = "scope.holds.table";

/// Reads the table from Postgres, inside the transaction that `connection` has open and that locked it.
pub(super) async fn read_postgres(
    connection: &mut PgConnection,
    table: &TableName,
) -> Result<Vec<Hold>, ReferencesError> {
    let step = format!("read the holds of `{table}`");
    let failed = |source| ReferencesError::Statement { step: step.clone(), source };
    let count = AssertSqlSafe(format!("SELECT pg_catalog.count(*) FROM {}", table.quoted()));
    let expected: i64 =
        sqlx::query_scalar(count).persistent(false).fetch_one(&mut *connection).await.map_err(failed)?;
    // A date protects to its end; an end that never comes is none. The column `by` may be missing.
    let select = format!(
        "SELECT held.\"id\"::text, \
         CASE WHEN pg_catalog.isfinite(held.\"until\"::timestamptz) THEN held.\"until\"::timestamptz + \
           CASE WHEN pg_catalog.pg_typeof(held.\"until\") = 'date'::pg_catalog.regtype THEN interval '1 day' ELSE interval '0' END END, \
         pg_catalog.to_jsonb(held) ->> 'by', held.\"reason\"::text FROM {} AS held",
        table.quoted()
    );
    let mut holds = Vec::new();
    let mut rows = sqlx::query(AssertSqlSafe(select)).persistent(false).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let id: Option<&str> = row.try_get(0).map_err(failed)?;
        holds.push(Hold {
            id: read_id(id.unwrap_or("NULL"), table)?,
            until: row.try_get(1).map_err(failed)?,
            by: row.try_get(2).map_err(failed)?,
            reason: row.try_get::<Option<String>, _>(3).map_err(failed)?.unwrap_or_default(),
            source: HoldSource::Table,
        });
    }
    drop(rows);
    prove(table, u64::try_from(expected).unwrap_or(0), holds)
}

/// Reads the table from `SQLite`, inside the transaction that `connection` has open.
pub(super) async fn read_sqlite(
    connection: &mut SqliteConnection,
    table: &TableName,
) -> Result<Vec<Hold>, ReferencesError> {
    let step = format!("read the holds of `{table}`");
    let failed = |source| ReferencesError::Statement { step: step.clone(), source };
    let from = table.quoted();
    let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?1, ?2)")
        .bind(&table.table)
        .bind(&table.schema)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    if columns.is_empty() {
        return Err(ReferencesError::NoTable { key: KEY.to_owned(), table: table.clone() });
    }
    let expected: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {from}")))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    // An unknown name in double quotes is a text to SQLite: a column is named with its table.
    let by = if columns.iter().any(|column| column == "by") { "CAST(held.\"by\" AS TEXT)" } else { "NULL" };
    let select = format!(
        "SELECT CASE typeof(held.{id}) WHEN 'blob' THEN lower(hex(held.{id})) ELSE CAST(held.{id} AS TEXT) END, \
         CAST(held.{until} AS TEXT), {by}, CAST(held.{reason} AS TEXT) FROM {from} AS held",
        id = quote("id"),
        until = quote("until"),
        reason = quote("reason")
    );
    let mut holds = Vec::new();
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let text = |column: usize| row.try_get::<Option<String>, _>(column).map_err(failed);
        holds.push(Hold {
            id: read_stored_id(&text(0)?.unwrap_or_else(|| "NULL".into()), table)?,
            until: text(1)?.filter(|text| !text.is_empty()).map(|text| read_end(&text, table)).transpose()?,
            by: text(2)?,
            reason: text(3)?.unwrap_or_default(),
            source: HoldSource::Table,
        });
    }
    drop(rows);
    prove(table, u64::try_from(expected).unwrap_or(0), holds)
}

/// An id as text, or the hexadecimal digits of its bytes, which may themselves be text.
fn read_stored_id(shown: &str, table: &TableName) -> Result<DatasetId, ReferencesError> {
    read_id(shown, table).or_else(|error| {
        let bytes: Option<Vec<u8>> = (0..shown.len() / 2)
            .map(|index| shown.get(index * 2..index * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|_| shown.len().is_multiple_of(2));
        text.and_then(|text| DatasetId::parse_lenient(&text)).ok_or(error)
    })
}

/// `SQLite` has no type for times: the end is a date, or a time as RFC 3339 or `SQLite`'s own functions write it.
fn read_end(text: &str, table: &TableName) -> Result<Timestamp, ReferencesError> {
    let own = || chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok().map(|time| time.and_utc());
    read_until(text).or_else(own).ok_or_else(|| ReferencesError::UnreadableHold {
        table: table.clone(),
        text: visible(&text.chars().take(60).collect::<String>()),
    })
}

fn prove(table: &TableName, expected: u64, holds: Vec<Hold>) -> Result<Vec<Hold>, ReferencesError> {
    let arrived = holds.len() as u64;
    if arrived == expected {
        return Ok(holds);
    }
    Err(ReferencesError::Unproven { table: table.clone(), expected, arrived })
}
