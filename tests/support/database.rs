//! A database of its own on the real Postgres, with the platform's table and the least-privilege role of README.md.

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};
use uuid::Uuid;

use super::{readme_block, setting};

/// A database, owned by the superuser, and a role that may only look.
pub struct Database {
    /// The superuser's connections, for changing the world.
    pub pool: PgPool,
    pub name: String,
    pub role: String,
    url: url::Url,
}

impl Database {
    pub async fn create() -> Self {
        let mut url: url::Url = setting("POSTGRES_URL").parse().expect("an address");
        let name = format!("t_{}", Uuid::new_v4().simple());
        let admin = PgPoolOptions::new().max_connections(1).connect(url.as_str()).await.expect("Postgres is up");
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("a database is made");
        admin.close().await;
        url.set_path(&name);
        let pool = PgPoolOptions::new().max_connections(3).connect(url.as_str()).await.expect("connected");
        pool.execute(
            "CREATE SCHEMA heimdall;
             CREATE TABLE heimdall.synthetic_datasets (
               id uuid PRIMARY KEY, name text, dataset_type text NOT NULL DEFAULT 'iq_raw',
               created_at timestamptz NOT NULL DEFAULT now() - interval '30 days', created_by_job_id uuid)",
        )
        .await
        .expect("the platform's table is made");
        let role = format!("sweeper_{name}");
        let grants = readme_block("### Postgres", "sql").replace("orphan_sweeper", &role);
        pool.execute(AssertSqlSafe(grants)).await.expect("README.md's role is made");
        Self { pool, name, role, url }
    }

    /// The address of the role that may only look.
    pub fn reader_url(&self) -> String {
        let mut url = self.url.clone();
        url.set_username(&self.role).expect("a host");
        url.set_password(Some("change-me")).expect("a host");
        url.to_string()
    }

    /// The superuser's address.
    pub fn admin_url(&self) -> String {
        self.url.to_string()
    }

    pub async fn execute(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub async fn insert(&self, id: Uuid) {
        self.execute(&format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{id}')")).await;
    }

    pub async fn delete(&self, id: Uuid) {
        self.execute(&format!("DELETE FROM heimdall.synthetic_datasets WHERE id = '{id}'")).await;
    }

    /// Rows of a table, as they stand.
    pub async fn count(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM heimdall.synthetic_datasets")
            .fetch_one(&self.pool)
            .await
            .expect("counted")
    }
}
