//! Whether every statement of `[scope.purge]` fits the real schema and the rights of its role: planned, never run.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Platform, PlatformError};
use crate::model::DatabaseIdentity;

impl Platform<'_> {
    /// Has the server plan every statement, in the role's name: what names no table or column, or what the role may not, is an
    /// error of that statement. `live` is the database that says what is live, where it is known.
    ///
    /// - Errors: every one, each naming its statement; or why nothing could be asked.
    pub async fn check(&self, live: Option<&DatabaseIdentity>) -> Result<(), Vec<PlatformError>> {
        let mut change = self.begin().await.map_err(|error| vec![error])?;
        if let Some(live) = live {
            change.check_place(live).await.map_err(|error| vec![error])?;
        }
        let mut errors = Vec::new();
        for (key, sql) in self.purge.statements.named() {
            // A statement that fails ends its transaction: each has one of its own within.
            let planned = async {
                sqlx::raw_sql("SAVEPOINT one").execute(&mut change.connection).await?;
                let explain = AssertSqlSafe(format!("EXPLAIN {sql}"));
                let planned =
                    sqlx::query(explain).persistent(false).bind(Uuid::nil()).execute(&mut change.connection).await;
                sqlx::raw_sql("ROLLBACK TO SAVEPOINT one").execute(&mut change.connection).await?;
                planned
            };
            if let Err(source) = planned.await {
                errors.push(PlatformError::Configured { key, source });
            }
        }
        change.roll_back().await;
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
