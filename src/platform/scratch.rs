//! Scratch rows of a self-test: inserted by the statements of `[scope.selftest]`, each planned before the first is run.
//!
//! Takes ids that the self-test's journal knows already. Invariant: a statement that inserts other than one row inserts none.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};
use uuid::Uuid;

use super::{Change, Platform, PlatformError};
use crate::config::ScratchStatements;
use crate::model::{DatabaseIdentity, DatasetId};

const DATASET: &str = "insert_dataset";
const CHILDREN: &str = "insert_children";
const JOB: &str = "insert_job";

impl Platform<'_> {
    /// Has the server plan every statement in the role's name: what does not fit the schema, or what the role may not, is an
    /// error of that statement. `live` is the database that says what is live.
    ///
    /// - Errors: every one, each naming its statement; or why nothing could be asked.
    pub async fn check_scratch(
        &self,
        statements: &ScratchStatements,
        live: &DatabaseIdentity,
    ) -> Result<(), Vec<PlatformError>> {
        let mut change = self.begin().await.map_err(|error| vec![error])?;
        change.check_place(live).await.map_err(|error| vec![error])?;
        let explained = |sql: &str| format!("EXPLAIN {sql}");
        let (id, nothing) = (DatasetId(Uuid::nil()), Uuid::nil());
        let mut planned = vec![
            (DATASET, dataset_query(&explained(&statements.insert_dataset), id, "", None)),
            (JOB, job_query(&explained(&statements.insert_job), nothing, "")),
        ];
        planned.extend(statements.insert_children.iter().map(|sql| (CHILDREN, child_query(&explained(sql), id))));
        let mut errors = Vec::new();
        for (key, query) in planned {
            // A statement that fails ends its transaction: each has one of its own within.
            let planned = async {
                sqlx::raw_sql("SAVEPOINT one").execute(&mut change.connection).await?;
                let planned = query.execute(&mut change.connection).await;
                sqlx::raw_sql("ROLLBACK TO SAVEPOINT one").execute(&mut change.connection).await?;
                planned
            };
            if let Err(source) = planned.await {
                errors.push(PlatformError::Scratch { key, source });
            }
        }
        change.roll_back().await;
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl Change<'_> {
    /// Inserts a dataset with whatever falls with it.
    pub async fn insert_dataset(
        &mut self,
        statements: &ScratchStatements,
        (id, name): (DatasetId, &str),
        job: Option<Uuid>,
    ) -> Result<(), PlatformError> {
        self.insert_one(DATASET, dataset_query(&statements.insert_dataset, id, name, job)).await?;
        for sql in &statements.insert_children {
            let inserted = child_query(sql, id).execute(&mut self.connection).await;
            inserted.map_err(|source| PlatformError::Scratch { key: CHILDREN, source })?;
        }
        Ok(())
    }

    /// Inserts a job that has ended.
    pub async fn insert_job(
        &mut self,
        statements: &ScratchStatements,
        id: Uuid,
        job_type: &str,
    ) -> Result<(), PlatformError> {
        self.insert_one(JOB, job_query(&statements.insert_job, id, job_type)).await
    }

    async fn insert_one(
        &mut self,
        key: &'static str,
        query: Query<'static, Postgres, PgArguments>,
    ) -> Result<(), PlatformError> {
        let done = query.execute(&mut self.connection).await;
        let inserted = done.map_err(|source| PlatformError::Scratch { key, source })?.rows_affected();
        if inserted == 1 { Ok(()) } else { Err(PlatformError::NotOneRow { key, inserted }) }
    }
}

fn query(sql: &str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false)
}

fn dataset_query(sql: &str, id: DatasetId, name: &str, job: Option<Uuid>) -> Query<'static, Postgres, PgArguments> {
    query(sql).bind(id.0).bind(name.to_owned()).bind(job)
}

fn child_query(sql: &str, id: DatasetId) -> Query<'static, Postgres, PgArguments> {
    query(sql).bind(id.0)
}

fn job_query(sql: &str, id: Uuid, job_type: &str) -> Query<'static, Postgres, PgArguments> {
    query(sql).bind(id).bind(job_type.to_owned())
}

/// The right that a scratch statement lacks, as the statement that grants it to `role`.
pub fn missing_grant(error: &PlatformError, statements: &ScratchStatements, role: &str) -> Option<String> {
    let PlatformError::Scratch { key, source } = error else { return None };
    if source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() != Some("42501") {
        return None;
    }
    let sql = match *key {
        DATASET => &statements.insert_dataset,
        JOB => &statements.insert_job,
        // Which of them it is, the server's own words say.
        _ => return Some(format!("GRANT INSERT ON the tables of `scope.selftest.statements.{CHILDREN}` TO {role};")),
    };
    Some(format!("GRANT INSERT ON {} TO {role};", table_of(sql)?))
}

/// The table that an INSERT names.
fn table_of(sql: &str) -> Option<&str> {
    let mut words = sql.split(|c: char| c.is_whitespace() || c == '(').filter(|word| !word.is_empty());
    words.find(|word| word.eq_ignore_ascii_case("into"))?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_an_insert_is_found() {
        let default = ScratchStatements::default();
        assert_eq!(table_of(&default.insert_dataset), Some("heimdall.synthetic_datasets"));
        assert_eq!(table_of("insert  into\na.b(id) VALUES ($1)"), Some("a.b"));
        assert_eq!(table_of("SELECT $1"), None);
    }
}
