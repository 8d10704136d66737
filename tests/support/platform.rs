//! The platform as it is: its tables with their cascade rules in real Postgres, its objects in real MinIO, and a role that may
//! just remove what `[scope.purge]` is about.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Ran, World, prefix};

/// A world with the platform's whole schema, and the purge's role.
pub struct Platform {
    pub world: World,
}

impl Platform {
    /// The tables of the platform, ten live datasets, and a ledger that knows them.
    pub async fn new() -> Self {
        let platform = Self::without_ledger().await;
        platform.settle_in().await;
        platform
    }

    /// Ten live datasets, and a first audit of what is there: the ledger knows database and target from now on.
    pub async fn settle_in(&self) {
        for _ in 0..10 {
            self.world.live(0).await;
        }
        self.world.audit().await;
    }

    /// The tables of the platform, without a row.
    pub async fn without_ledger() -> Self {
        let mut world = World::new().await;
        world
            .database
            .execute(
                "CREATE TABLE heimdall.training_jobs (id uuid PRIMARY KEY, status text NOT NULL, job_type text NOT NULL);
                 ALTER TABLE heimdall.synthetic_datasets ADD FOREIGN KEY (created_by_job_id)
                   REFERENCES heimdall.training_jobs (id) ON DELETE SET NULL;
                 CREATE TABLE heimdall.synthetic_iq_samples (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                   dataset_id uuid NOT NULL REFERENCES heimdall.synthetic_datasets (id) ON DELETE CASCADE);
                 CREATE INDEX ON heimdall.synthetic_iq_samples (dataset_id);
                 CREATE TABLE heimdall.synthetic_training_samples (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                   dataset_id uuid NOT NULL REFERENCES heimdall.synthetic_datasets (id) ON DELETE CASCADE);
                 CREATE INDEX ON heimdall.synthetic_training_samples (dataset_id);
                 CREATE TABLE heimdall.models (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), model_name text NOT NULL,
                   is_active boolean NOT NULL, synthetic_dataset_id uuid REFERENCES heimdall.synthetic_datasets (id) ON DELETE SET NULL)",
            )
            .await;
        let role = format!("purge_{}", world.database.name);
        world.database.execute(&grants().replace("orphan_sweeper_purge", &role)).await;
        let mut url: url::Url = world.database.admin_url().parse().expect("an address");
        url.set_username(&role).expect("a host");
        url.set_password(Some("change-me")).expect("a host");
        world.program.set("ORPHAN_SWEEPER_PURGE_DATABASE_URL", url.as_str());
        world.program.set_scope("PURGE__JOB_TYPE", "synthetic_generation");
        Self { world }
    }

    /// A dataset with two rows in each child table, and `objects` under each of the two patterns.
    pub async fn dataset(&self, kind: &str, objects: usize) -> Uuid {
        let id = Uuid::new_v4();
        let keys = (0..2).flat_map(|pattern| {
            (0..objects).map(move |number| format!("{}sample-{number}/rx_{number}.npy", prefix(pattern, id)))
        });
        self.world.bucket.put_many(keys).await;
        self.rows(id, kind).await;
        id
    }

    /// The rows of a dataset.
    pub async fn rows(&self, id: Uuid, kind: &str) {
        self.world
            .database
            .execute(&format!(
                "INSERT INTO heimdall.synthetic_datasets (id, name, dataset_type) VALUES ('{id}', 'set {id}', '{kind}');
                 INSERT INTO heimdall.synthetic_iq_samples (dataset_id) VALUES ('{id}'), ('{id}');
                 INSERT INTO heimdall.synthetic_training_samples (dataset_id) VALUES ('{id}'), ('{id}')"
            ))
            .await;
    }

    /// A job that made `datasets`.
    pub async fn job(&self, status: &str, job_type: &str, datasets: &[Uuid]) -> Uuid {
        let id = Uuid::new_v4();
        let insert = format!("INSERT INTO heimdall.training_jobs VALUES ('{id}', '{status}', '{job_type}')");
        self.world.database.execute(&insert).await;
        for dataset in datasets {
            let update =
                format!("UPDATE heimdall.synthetic_datasets SET created_by_job_id = '{id}' WHERE id = '{dataset}'");
            self.world.database.execute(&update).await;
        }
        id
    }

    pub async fn model(&self, name: &str, is_active: bool, dataset: Uuid) {
        let insert = format!(
            "INSERT INTO heimdall.models (model_name, is_active, synthetic_dataset_id) VALUES ('{name}', {is_active}, '{dataset}')"
        );
        self.world.database.execute(&insert).await;
    }

    /// Every row of the platform, as text, to compare with later.
    pub async fn all_rows(&self) -> Vec<String> {
        let select =
            ["synthetic_datasets", "synthetic_iq_samples", "synthetic_training_samples", "training_jobs", "models"]
                .map(|table| format!("SELECT '{table} ' || to_jsonb(t)::text FROM heimdall.{table} AS t"))
                .join(" UNION ALL ");
        let mut rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&self.world.database.pool).await.expect("read");
        rows.sort();
        rows
    }

    /// Whether any row of the platform names this id.
    pub async fn names(&self, id: Uuid) -> bool {
        self.all_rows().await.iter().any(|row| row.contains(&id.to_string()))
    }

    /// How many objects lie under an id, by pattern.
    pub async fn objects(&self, id: Uuid) -> [usize; 2] {
        let contents = self.world.contents().await;
        [0, 1].map(|pattern| contents.keys().filter(|key| key.starts_with(&prefix(pattern, id))).count())
    }

    pub async fn purge(&self, arguments: &[&str]) -> Ran {
        let arguments: Vec<&str> = ["purge"].iter().chain(arguments).chain(&["--yes", "--json"]).copied().collect();
        self.world.program.run(&arguments).await
    }

    /// Purges a dataset, which must succeed; gives its summary.
    pub async fn purge_dataset(&self, id: Uuid) -> Value {
        let ran = self.purge(&["dataset", &id.to_string()]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.stdout).expect("JSON")
    }

    pub async fn hold(&self, id: Uuid) {
        let held =
            self.world.program.run(&["hold", "add", &id.to_string(), "--by", "ada", "--reason", "a paper"]).await;
        assert_eq!(held.code, 0, "{held:?}");
    }

    /// Moves the ledger into a schema of the same Postgres server.
    pub fn keep_ledger_in_postgres(&mut self) {
        let url = self.world.database.admin_url();
        self.world.program.edit_config(|text| text.replace("path = \"reports/ledger.sqlite3\"", "# no file"));
        self.world.program.set("ORPHAN_SWEEPER_LEDGER_URL", &url);
        self.world.program.set("ORPHAN_SWEEPER_TEST_LEASE_MS", "600");
    }

    /// Runs SQL on the ledger's file.
    pub async fn edit_ledger(&self, sql: &str) {
        self.world.edit_ledger(sql).await;
    }
}

/// The rights that config.toml tells to give the purge's role.
pub fn grants() -> String {
    let lines = include_str!("../../config.toml").lines().filter_map(|line| line.strip_prefix("#   "));
    lines.filter(|line| line.contains("orphan_sweeper_purge")).collect::<Vec<_>>().join("\n")
}
