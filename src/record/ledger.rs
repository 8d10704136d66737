//! The ledger: opened, migrated, identified, copied. A file of its own, or a schema of its own in Postgres.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use uuid::Uuid;

use super::sql::{Database, Transaction, statement};
use super::{lock, schema};
use crate::config::secrets::LedgerPlace;
use crate::model::{RunId, Timestamp};

static MIGRATOR: Migrator = sqlx::migrate!("src/record/migrations/sqlite");

/// An open ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) database: Database,
    place: Place,
    id: Uuid,
    created_at: Timestamp,
}

/// Where an open ledger is, without a secret.
#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    /// An address, to show.
    Database(String),
}

/// What to do where there is no ledger yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Make one.
    Make,
    /// Make none.
    Refuse,
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is none where one is needed.
    #[error("there is no ledger at `{0}`")]
    Absent(String),
    /// Its folder cannot be made.
    #[error("failed to make the ledger's folder `{path}`")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be opened.
    #[error("failed to open the ledger `{place}`")]
    Open {
        /// The file, or the address.
        place: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Its server is too old.
    #[error("the ledger `{place}` is on PostgreSQL {version}; 14 is needed")]
    TooOld {
        /// The address.
        place: String,
        /// Its version.
        version: i64,
    },
    /// Its schema cannot be made.
    #[error(
        "failed to make the schema `orphan_sweeper` in `{place}`; let its owner run: CREATE SCHEMA orphan_sweeper AUTHORIZATION {role}"
    )]
    Schema {
        /// The address.
        place: String,
        /// The role that we are.
        role: String,
        /// Why.
        source: sqlx::Error,
    },
    /// It was written by a newer version.
    #[error("the ledger `{0}` was written by a newer version of this program")]
    Newer(String),
    /// Its schema cannot be brought forward.
    #[error("failed to migrate the ledger `{place}`")]
    Migrate {
        /// The file, or the address.
        place: String,
        /// Why.
        source: MigrateError,
    },
    /// A statement failed.
    #[error("failed to {step} in the ledger")]
    Statement {
        /// What it was for.
        step: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// Something in it cannot be read back.
    #[error("the ledger holds {0} that cannot be read")]
    Unreadable(&'static str),
    /// Its chain does not verify.
    #[error("the ledger's chain does not verify: {0}")]
    Tampered(String),
    /// A backup cannot be written there.
    #[error("`{0}` exists already; a backup is written to a new file")]
    BackupExists(PathBuf),
    /// A database is not copied to a file by us.
    #[error("the ledger is in a database, whose own tool makes a consistent copy")]
    BackupOfDatabase {
        /// What to type instead.
        hint: String,
    },
}

/// Adds the step to a statement's error.
pub(super) fn failed(step: &'static str) -> impl Fn(sqlx::Error) -> RecordError {
    move |source| RecordError::Statement { step, source }
}

impl Ledger {
    /// Opens the ledger at `place`.
    ///
    /// - Errors: [`RecordError::Absent`] where there is none and none is to be made, [`RecordError::Newer`] where a newer
    ///   version wrote it.
    pub async fn open(place: &LedgerPlace, absence: Absence, now: Timestamp) -> Result<Self, RecordError> {
        let (database, place) = match place {
            LedgerPlace::File(path) => {
                if absence == Absence::Refuse && !path.exists() {
                    return Err(RecordError::Absent(place.shown()));
                }
                if absence == Absence::Make {
                    Self::prepare_folder(path)?;
                }
                (Database::Sqlite(open_file(path, absence).await?), Place::File(path.clone()))
            }
            LedgerPlace::Database(url) => {
                (Database::Postgres(schema::open(url, absence).await?), Place::Database(url.shown.clone()))
            }
        };
        let (id, created_at) = identity(&database, now).await?;
        let ledger = Self { database, place, id, created_at };
        ledger.begin_chain().await?;
        Ok(ledger)
    }

    /// Opens the ledger in the file at `path`, or makes one there at `now`.
    ///
    /// - Errors: [`RecordError::Newer`] where a newer version wrote it.
    #[cfg(test)]
    pub async fn open_or_create(path: &Path, now: Timestamp) -> Result<Self, RecordError> {
        Self::open(&LedgerPlace::File(path.to_path_buf()), Absence::Make, now).await
    }

    /// Opens the ledger in the file at `path`, which must be there.
    ///
    /// - Errors: [`RecordError::Absent`].
    #[cfg(test)]
    pub async fn open_existing(path: &Path, now: Timestamp) -> Result<Self, RecordError> {
        Self::open(&LedgerPlace::File(path.to_path_buf()), Absence::Refuse, now).await
    }

    /// Makes the folder of a ledger's file.
    pub fn prepare_folder(path: &Path) -> Result<(), RecordError> {
        let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
        std::fs::create_dir_all(folder).map_err(|source| RecordError::Folder { path: folder.to_path_buf(), source })
    }

    /// Its id, given when it was made.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// When it was made.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Where it is, to show: its file, or its address without user and password.
    pub fn shown(&self) -> String {
        match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Database(shown) => shown.clone(),
        }
    }

    /// Takes the lock of its runs; `lost` is called when another process may have it by then.
    ///
    /// - Errors: [`lock::LockError::Held`] or [`lock::LockError::Leased`] where another run has it.
    pub async fn lock(&self, lost: impl FnOnce() + Send + 'static) -> Result<lock::RunLock, lock::LockError> {
        match (&self.place, &self.database) {
            (Place::File(path), _) => lock::RunLock::take(path),
            (Place::Database(_), database) => lock::RunLock::lease(database.clone(), lock::RUN, lost).await,
        }
    }

    /// Takes the lock of one purge, which runs beside every other run; `lost` as for [`Ledger::lock`].
    ///
    /// - Errors: [`lock::LockError::Held`] or [`lock::LockError::Leased`] where another process works on it.
    pub async fn lock_purge(
        &self,
        purge: RunId,
        lost: impl FnOnce() + Send + 'static,
    ) -> Result<lock::RunLock, lock::LockError> {
        match (&self.place, &self.database) {
            (Place::File(path), _) => lock::RunLock::take_file(purge_lock(path, purge)),
            (Place::Database(_), database) => {
                lock::RunLock::lease(database.clone(), &format!("purge {purge}"), lost).await
            }
        }
    }

    /// Removes the file of a purge's lock, once it is over: whoever holds it still finds nothing more to do.
    pub fn forget_purge_lock(&self, purge: RunId) {
        if let Place::File(path) = &self.place {
            std::fs::remove_file(purge_lock(path, purge)).ok();
        }
    }

    /// Begins a transaction that shuts out every other writer.
    pub(super) async fn begin(&self, step: &'static str) -> Result<Transaction, RecordError> {
        self.database.begin(step).await
    }

    /// Writes a consistent copy to `target`, also while a run is writing.
    ///
    /// - Errors: [`RecordError::BackupExists`], [`RecordError::BackupOfDatabase`].
    pub async fn backup(&self, target: &Path) -> Result<(), RecordError> {
        let pool = match &self.database {
            Database::Sqlite(pool) => pool,
            Database::Postgres(_) => {
                let (target, shown) = (target.display(), self.shown());
                let hint = format!(
                    "pg_dump --format=custom --schema=orphan_sweeper --file='{target}' --dbname='{shown}' --username=ROLE"
                );
                return Err(RecordError::BackupOfDatabase { hint });
            }
        };
        if target.exists() {
            return Err(RecordError::BackupExists(target.to_path_buf()));
        }
        let target = target.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO ?1").bind(target).execute(pool).await.map(drop).map_err(failed("write the backup"))
    }

    /// Closes it, so that a file's write-ahead log is folded in.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(pool) => pool.close().await,
            Database::Postgres(pool) => pool.close().await,
        }
    }
}

fn purge_lock(ledger: &Path, purge: RunId) -> PathBuf {
    ledger.with_added_extension(format!("purge-{purge}.lock"))
}

async fn open_file(path: &Path, absence: Absence) -> Result<SqlitePool, RecordError> {
    let place = || path.display().to_string();
    let failed_open = |source| RecordError::Open { place: place(), source };
    // Two processes that start at once must not migrate at once.
    let guard_path = path.with_added_extension("migrate");
    let guard = std::fs::File::create(&guard_path).map_err(|source| failed_open(sqlx::Error::Io(source)))?;
    guard.lock().map_err(|source| failed_open(sqlx::Error::Io(source)))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(absence == Absence::Make)
        .journal_mode(SqliteJournalMode::Wal)
        // An intent must be on the disk before its request is sent.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(20))
        .pragma("cache_size", "-2000");
    // One connection: a reader that turns writer while another writes would fail at once.
    // A file does not hang up, so it is not asked before each statement whether it is there.
    let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
    let pool = pool.connect_with(options).await.map_err(failed_open)?;
    MIGRATOR.run(&pool).await.map_err(|source| match source {
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => RecordError::Newer(place()),
        source => RecordError::Migrate { place: place(), source },
    })?;
    Ok(pool)
}

async fn identity(database: &Database, now: Timestamp) -> Result<(Uuid, Timestamp), RecordError> {
    const STEP: &str = "read its identity";
    let read = async |key: &str| -> Result<Option<String>, RecordError> {
        let row = statement(STEP, "SELECT value FROM meta WHERE key = $1").bind(key).optional(database).await?;
        row.map(|row| row.get("value")).transpose()
    };
    if read("created_at").await?.is_none() {
        let mut transaction = database.begin(STEP).await?;
        for (key, value) in [("id", Uuid::new_v4().to_string()), ("created_at", now.to_rfc3339())] {
            let insert = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            statement(STEP, insert).bind(key).bind(value).run(&mut transaction).await?;
        }
        transaction.commit(STEP).await?;
    }
    let id = read("id").await?.and_then(|id| Uuid::parse_str(&id).ok()).ok_or(RecordError::Unreadable("an id"))?;
    let created_at = read("created_at").await?.and_then(|time| time.parse().ok());
    Ok((id, created_at.ok_or(RecordError::Unreadable("a time"))?))
}
