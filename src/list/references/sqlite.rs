//! Live ids from `SQLite`: for the demo and for installations small enough to keep their catalogue in one file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use secrecy::ExposeSecret;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row, ValueRef};

use super::{
    Anchor, DatabaseIdentity, LiveRow, OpenTransactions, ProvenReferences, ProvenTable, Recognised, References,
    ReferencesError, SentinelSample, TableIdentity, Tables, check_anchor, holds, read_id,
};
use crate::clock::Clock;
use crate::config::secrets::DatabaseUrl;
use crate::config::{LiveTable, quote};
use crate::decide::holds::Hold;
use crate::model::{DatasetId, Sha256Hash, Timestamp};

/// Live ids from one `SQLite` file.
#[derive(Debug)]
pub struct SqliteReferences {
    url: DatabaseUrl,
    tables: Tables,
    clock: Arc<dyn Clock>,
}

impl SqliteReferences {
    /// References of `tables` in the file at `url`. `SQLite` has no clock of its own, so `clock` stands for it.
    pub(super) fn new(url: DatabaseUrl, tables: Tables, clock: Arc<dyn Clock>) -> Self {
        Self { url, tables, clock }
    }

    fn path(&self) -> PathBuf {
        let url = self.url.url.expose_secret();
        let path = url.trim_start_matches("sqlite:").trim_start_matches("//").split('?').next().unwrap_or_default();
        PathBuf::from(percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned())
    }

    async fn begin(&self) -> Result<(SqliteConnection, DatabaseIdentity), ReferencesError> {
        let path = self.path();
        let failed = |source| ReferencesError::Connect { shown: self.url.shown.clone(), source };
        let inode = std::fs::metadata(&path).map_err(|source| failed(sqlx::Error::Io(source)))?.ino();
        let options = SqliteConnectOptions::new().filename(&path).read_only(true).create_if_missing(false);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let begun = sqlx::raw_sql("BEGIN").execute(&mut connection).await;
        begun.map_err(|source| ReferencesError::Statement { step: "begin a transaction".into(), source })?;
        let mut tables = Vec::with_capacity(self.tables.live.len());
        for live in &self.tables.live {
            tables.push(describe(&mut connection, live).await?);
        }
        let identity = DatabaseIdentity {
            system: format!("inode {inode}"),
            timeline: "sqlite".into(),
            database: name_of(&path),
            tables,
        };
        Ok((connection, identity))
    }
}

impl SqliteReferences {
    async fn read_holds(&self, connection: &mut SqliteConnection) -> Result<Vec<Hold>, ReferencesError> {
        match &self.tables.holds {
            Some(table) => holds::read_sqlite(connection, table).await,
            None => Ok(Vec::new()),
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `SQLite` has no object ids: a hash of the table's definition stands for one.
async fn describe(connection: &mut SqliteConnection, live: &LiveTable) -> Result<TableIdentity, ReferencesError> {
    let master = format!("SELECT type, sql FROM {}.sqlite_master WHERE name = ?1", quote(&live.table.schema));
    let row = sqlx::query(AssertSqlSafe(master))
        .bind(&live.table.table)
        .fetch_optional(connection)
        .await
        .map_err(|source| ReferencesError::Statement { step: format!("describe `{}`", live.table), source })?;
    let (key, table) = (format!("{}.table", live.key), live.table.clone());
    let Some(row) = row else { return Err(ReferencesError::NoTable { key, table }) };
    let (kind, definition): (String, Option<String>) = (row.get(0), row.get(1));
    if kind != "table" && kind != "view" {
        return Err(ReferencesError::Unsuitable { key, table, kind: "no table" });
    }
    let hash = Sha256Hash::of(definition.unwrap_or_default().as_bytes()).0;
    let oid = i64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]));
    Ok(TableIdentity { name: live.identity(), oid })
}

async fn read_table(
    connection: &mut SqliteConnection,
    live: &LiveTable,
    index: usize,
    visit: &mut (dyn FnMut(LiveRow) + Send),
) -> Result<ProvenTable, ReferencesError> {
    let (from, id) = (live.table.quoted(), quote(&live.id_column));
    let failed = |source| ReferencesError::Statement { step: format!("read `{}`", live.table), source };
    let count = AssertSqlSafe(format!("SELECT count({id}) FROM {from}"));
    let expected: i64 = sqlx::query_scalar(count).fetch_one(&mut *connection).await.map_err(failed)?;
    let created = live.created_at_column.as_ref().map_or("NULL".to_owned(), |column| quote(column));
    let expects = live.expects_objects.as_ref().map_or("1".to_owned(), |expects| {
        let places = (1..=expects.values.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        format!("coalesce(CAST({} AS TEXT) IN ({places}), 0)", quote(&expects.column))
    });
    let select = format!("SELECT {id}, {created}, {expects} FROM {from} WHERE {id} IS NOT NULL");
    let mut query = sqlx::query(AssertSqlSafe(select));
    for value in live.expects_objects.iter().flat_map(|expects| &expects.values) {
        query = query.bind(value);
    }
    let (mut arrived, mut sentinels) = (0_u64, SentinelSample::default());
    let mut rows = query.fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let id = stored_id(&row, live)?;
        arrived += 1;
        sentinels.add(id);
        let created_at = row.try_get::<Option<Timestamp>, _>(1).map_err(failed)?;
        let expects_objects = row.try_get::<bool, _>(2).map_err(failed)?;
        visit(LiveRow { id, table: index, created_at, expects_objects });
    }
    drop(rows);
    let expected = u64::try_from(expected).unwrap_or(0);
    if arrived != expected {
        return Err(ReferencesError::Unproven { table: live.table.clone(), expected, arrived });
    }
    Ok(ProvenTable { name: live.label.clone(), rows: arrived, sentinels: sentinels.into_ids() })
}

/// `SQLite` columns hold any type: an id is a text in any spelling, or the sixteen bytes themselves.
fn stored_id(row: &sqlx::sqlite::SqliteRow, live: &LiveTable) -> Result<DatasetId, ReferencesError> {
    let failed = |source| ReferencesError::Statement { step: format!("read `{}`", live.table), source };
    let is_blob = {
        let raw = row.try_get_raw(0).map_err(failed)?;
        sqlx::TypeInfo::name(&*raw.type_info()) == "BLOB"
    };
    if is_blob {
        let bytes: &[u8] = row.try_get(0).map_err(failed)?;
        return match uuid::Uuid::from_slice(bytes) {
            Ok(id) => Ok(DatasetId(id)),
            Err(_) => read_id(&String::from_utf8_lossy(bytes), &live.table),
        };
    }
    let text: String = row.try_get_unchecked(0).map_err(failed)?;
    read_id(&text, &live.table)
}

#[async_trait]
impl References for SqliteReferences {
    async fn read(&self, visit: &mut (dyn FnMut(LiveRow) + Send)) -> Result<ProvenReferences, ReferencesError> {
        let (mut connection, identity) = self.begin().await?;
        let mut tables = Vec::with_capacity(self.tables.live.len());
        for (index, live) in self.tables.live.iter().enumerate() {
            tables.push(read_table(&mut connection, live, index, visit).await?);
        }
        Ok(ProvenReferences {
            identity,
            database_time: self.clock.now(),
            tables,
            holds: self.read_holds(&mut connection).await?,
            // A writer holds the file's lock: nothing uncommitted can be older than our read.
            open_transactions: OpenTransactions::Since(None),
            snapshot: None,
            role: String::new(),
        })
    }

    async fn recheck(&self, ids: &[DatasetId], anchor: &Anchor) -> Result<Vec<DatasetId>, ReferencesError> {
        let (mut connection, identity) = self.begin().await?;
        let wanted: std::collections::HashSet<DatasetId> = ids.iter().copied().collect();
        let mut live = std::collections::HashSet::new();
        let mut recognised = Vec::with_capacity(self.tables.live.len());
        for ((index, table), sentinels) in self.tables.live.iter().enumerate().zip(&anchor.sentinels) {
            let sentinels: std::collections::HashSet<DatasetId> = sentinels.iter().copied().collect();
            let mut found = std::collections::HashSet::new();
            // An id may be spelled in any way, so the table is read whole.
            let proven = read_table(&mut connection, table, index, &mut |row| {
                if wanted.contains(&row.id) {
                    live.insert(row.id);
                }
                if sentinels.contains(&row.id) {
                    found.insert(row.id);
                }
            })
            .await?;
            recognised.push(Recognised { sentinels: found.len(), has_rows: proven.rows > 0 });
        }
        check_anchor(&identity, &recognised, anchor)?;
        Ok(live.into_iter().collect())
    }

    async fn answers(&self) -> Result<(), ReferencesError> {
        self.begin().await.map(drop)
    }

    async fn holds(&self) -> Result<Vec<Hold>, ReferencesError> {
        if self.tables.holds.is_none() {
            return Ok(Vec::new());
        }
        let (mut connection, _) = self.begin().await?;
        self.read_holds(&mut connection).await
    }
}
