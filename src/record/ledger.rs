//! The ledger's file: opened, migrated, identified, copied.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use uuid::Uuid;

use crate::model::Timestamp;

static MIGRATOR: Migrator = sqlx::migrate!("src/record/migrations/sqlite");

/// An open ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) pool: SqlitePool,
    path: PathBuf,
    id: Uuid,
    created_at: Timestamp,
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is none where one is needed.
    #[error("there is no ledger at `{0}`")]
    Absent(PathBuf),
    /// Its folder cannot be made.
    #[error("failed to make the ledger's folder `{path}`")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be opened.
    #[error("failed to open the ledger `{path}`")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// It was written by a newer version.
    #[error("the ledger `{0}` was written by a newer version of this program")]
    Newer(PathBuf),
    /// Its schema cannot be brought forward.
    #[error("failed to migrate the ledger `{path}`")]
    Migrate {
        /// The file.
        path: PathBuf,
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
    /// A backup cannot be written there.
    #[error("`{0}` exists already; a backup is written to a new file")]
    BackupExists(PathBuf),
}

/// Adds the step to a statement's error.
pub(super) fn failed(step: &'static str) -> impl Fn(sqlx::Error) -> RecordError {
    move |source| RecordError::Statement { step, source }
}

impl Ledger {
    /// Opens the ledger at `path`, or makes one there at `now`.
    ///
    /// - Errors: [`RecordError::Newer`] where a newer version wrote it.
    pub async fn open_or_create(path: &Path, now: Timestamp) -> Result<Self, RecordError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|source| RecordError::Folder { path: folder.to_path_buf(), source })?;
        }
        Self::open(path, true, now).await
    }

    /// Opens the ledger at `path`, which must be there.
    ///
    /// - Errors: [`RecordError::Absent`].
    pub async fn open_existing(path: &Path, now: Timestamp) -> Result<Self, RecordError> {
        if !path.exists() {
            return Err(RecordError::Absent(path.to_path_buf()));
        }
        Self::open(path, false, now).await
    }

    async fn open(path: &Path, create: bool, now: Timestamp) -> Result<Self, RecordError> {
        let failed_open = |source| RecordError::Open { path: path.to_path_buf(), source };
        // Two processes that start at once must not migrate at once.
        let guard_path = path.with_added_extension("migrate");
        let guard = std::fs::File::create(&guard_path).map_err(|source| failed_open(sqlx::Error::Io(source)))?;
        guard.lock().map_err(|source| failed_open(sqlx::Error::Io(source)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            // An intent must be on the disk before its request is sent.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(20))
            .pragma("cache_size", "-2000");
        // One connection: a reader that turns writer while another writes would fail at once.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed_open)?;
        MIGRATOR.run(&pool).await.map_err(|source| match source {
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => {
                RecordError::Newer(path.to_path_buf())
            }
            source => RecordError::Migrate { path: path.to_path_buf(), source },
        })?;
        let (id, created_at) = identity(&pool, now).await?;
        Ok(Self { pool, path: path.to_path_buf(), id, created_at })
    }

    /// Its id, given when it was made.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// When it was made.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a consistent copy to `target`, also while a run is writing.
    ///
    /// - Errors: [`RecordError::BackupExists`].
    pub async fn backup(&self, target: &Path) -> Result<(), RecordError> {
        if target.exists() {
            return Err(RecordError::BackupExists(target.to_path_buf()));
        }
        let target = target.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO ?1")
            .bind(target)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("write the backup"))
    }

    /// Closes the file, so that its write-ahead log is folded in.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn identity(pool: &SqlitePool, now: Timestamp) -> Result<(Uuid, Timestamp), RecordError> {
    let step = failed("read its identity");
    let id = Uuid::new_v4().to_string();
    for (key, value) in [("id", id), ("created_at", now.to_rfc3339())] {
        sqlx::query("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(key)
            .bind(value)
            .execute(pool)
            .await
            .map_err(&step)?;
    }
    let read = async |key: &str| -> Result<String, RecordError> {
        sqlx::query_scalar("SELECT value FROM meta WHERE key = ?1")
            .bind(key.to_owned())
            .fetch_one(pool)
            .await
            .map_err(&step)
    };
    let id = Uuid::parse_str(&read("id").await?).map_err(|_| RecordError::Unreadable("an id"))?;
    let created_at = read("created_at").await?.parse().map_err(|_| RecordError::Unreadable("a time"))?;
    Ok((id, created_at))
}
