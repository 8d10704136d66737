//! The demo's database: one SQLite file with the platform's table.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Executor};

use super::world::CatalogueRow;

/// The catalogue, open for writing. The audits open the file by themselves, for reading.
#[derive(Debug)]
pub(super) struct Catalogue(SqliteConnection);

impl Catalogue {
    /// Makes the file and its table.
    pub(super) async fn create(path: &Path) -> Result<Self, sqlx::Error> {
        // The demo's data is worth no wait for a disk.
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).pragma("synchronous", "OFF");
        let mut connection = SqliteConnection::connect_with(&options).await?;
        connection
            .execute(
                "CREATE TABLE main.synthetic_datasets (id TEXT PRIMARY KEY, name TEXT NOT NULL, dataset_type TEXT NOT NULL, \
                 created_at TEXT NOT NULL, created_by_job_id TEXT)",
            )
            .await?;
        Ok(Self(connection))
    }

    /// Writes `rows` in one transaction.
    pub(super) async fn insert(&mut self, rows: &[CatalogueRow]) -> Result<(), sqlx::Error> {
        let mut transaction = self.0.begin().await?;
        for row in rows {
            sqlx::query(
                "INSERT INTO main.synthetic_datasets (id, name, dataset_type, created_at, created_by_job_id) VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .bind(&row.id)
            .bind(&row.name)
            .bind(row.dataset_type)
            .bind(row.created_at)
            .bind(row.created_by_job_id.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }
}
