//! The tables whose every row is chained as it stands: what verification compares with the rows.
//!
//! A change to such a row is followed by [`note`] in the same transaction. The database itself spells the row as JSON, so that
//! what was chained and what is read back later are the same text for the same row.

use serde_json::{Value, json};

use super::append;
use crate::model::Sha256Hash;
use crate::record::ledger::RecordError;
use crate::record::sql::{Dialect, Row, Transaction, statement};

/// A table whose rows are chained.
#[derive(Debug)]
pub(in crate::record) struct Table {
    /// What a row is; the kind of its entries begins so.
    pub(in crate::record) row: &'static str,
    /// The table.
    pub(in crate::record) name: &'static str,
    /// The expression that names a row: what its entries have as subject.
    pub(in crate::record) subject: &'static str,
    /// Its columns.
    pub(in crate::record) columns: &'static [Column],
}

/// A column, by how it is chained.
#[derive(Debug, Clone, Copy)]
pub(in crate::record) enum Column {
    /// As it stands: texts, numbers, times, truths.
    Plain(&'static str),
    /// Bytes, as hexadecimal digits.
    #[allow(dead_code, reason = "for tables whose rows hold keys")]
    Bytes(&'static str),
    /// A dataset's id, which the two kinds of ledger keep in two ways.
    Id(&'static str),
    /// The SHA-256 of a long text.
    Digest(&'static str),
}

use Column::{Bytes, Digest, Id, Plain};

/// The subject of a row that is named by its number; looked for by the number itself, which has an index.
const NUMBER: &str = "CAST(number AS TEXT)";

/// Every such table, in the order in which they are compared.
pub(in crate::record) const TABLES: [&Table; 12] = [
    &RUNS,
    &PLANS,
    &ALLOWANCES,
    &ACKNOWLEDGEMENTS,
    &DECISIONS,
    &HOLDS,
    &LATCHES,
    &BASELINES,
    &UNDOS,
    &PURGES,
    &TOKENS,
    &SCRATCH,
];

/// The runs.
pub(in crate::record) const RUNS: Table = Table {
    row: "run",
    name: "runs",
    subject: "run_id",
    columns: &[
        Plain("number"),
        Plain("run_id"),
        Plain("scope"),
        Plain("command"),
        Plain("is_dry_run"),
        Plain("started_at"),
        Plain("finished_at"),
        Plain("outcome"),
        Plain("reason"),
        Plain("exit_code"),
        Plain("plan_hash"),
        Plain("orphan_bytes"),
        Digest("summary"),
    ],
};

/// The plans and their states.
pub(in crate::record) const PLANS: Table = Table {
    row: "plan",
    name: "plans",
    subject: "hash",
    columns: &[
        Plain("hash"),
        Plain("scope"),
        Plain("run_id"),
        Plain("created_at"),
        Plain("expires_at"),
        Plain("state"),
        Plain("path"),
        Plain("group_count"),
        Plain("object_count"),
        Plain("size_bytes"),
    ],
};

/// The limits that persons lifted.
pub(in crate::record) const ALLOWANCES: Table = Table {
    row: "allowance",
    name: "allowances",
    subject: "plan_hash || ' ' || breaker",
    columns: &[Plain("plan_hash"), Plain("breaker"), Plain("value"), Plain("run_id"), Plain("allowed_at")],
};

/// Who acknowledged what.
pub(in crate::record) const ACKNOWLEDGEMENTS: Table = Table {
    row: "acknowledgement",
    name: "acknowledgements",
    subject: NUMBER,
    columns: &[
        Plain("number"),
        Plain("scope"),
        Plain("breaker"),
        Plain("acknowledged_by"),
        Plain("reason"),
        Plain("acknowledged_at"),
        Plain("run_id"),
        Plain("message"),
    ],
};

/// What persons decided on plans.
pub(in crate::record) const DECISIONS: Table = Table {
    row: "decision",
    name: "decisions",
    subject: NUMBER,
    columns: &[
        Plain("number"),
        Plain("scope"),
        Plain("plan_hash"),
        Id("id"),
        Plain("decision"),
        Plain("decided_by"),
        Plain("reason"),
        Plain("decided_at"),
    ],
};

/// Who is protected, and by whom.
pub(in crate::record) const HOLDS: Table = Table {
    row: "hold",
    name: "holds",
    subject: NUMBER,
    columns: &[
        Plain("number"),
        Plain("scope"),
        Id("id"),
        Plain("held_until"),
        Plain("placed_by"),
        Plain("reason"),
        Plain("placed_at"),
        Plain("removed_at"),
        Plain("removed_by"),
        Plain("removed_reason"),
    ],
};

/// The breakers that wait.
pub(in crate::record) const LATCHES: Table = Table {
    row: "latch",
    name: "latches",
    subject: "scope || ' ' || breaker",
    columns: &[
        Plain("scope"),
        Plain("breaker"),
        Plain("run_id"),
        Plain("latched_at"),
        Digest("observation"),
        Plain("message"),
    ],
};

/// What scans are compared with.
pub(in crate::record) const BASELINES: Table = Table {
    row: "baseline",
    name: "baselines",
    subject: "scope",
    columns: &[Plain("scope"), Digest("baseline"), Plain("run_id")],
};

/// What deleting runs left that can be brought back.
pub(in crate::record) const UNDOS: Table = Table {
    row: "undo",
    name: "undos",
    subject: "run_id",
    columns: &[
        Plain("run_id"),
        Plain("scope"),
        Plain("plan_hash"),
        Plain("kind"),
        Plain("bucket"),
        Bytes("prefix"),
        Plain("began_at"),
        Plain("ended_at"),
        Plain("told_by"),
        Plain("state"),
        Plain("reaped_at"),
        Plain("reaped_by"),
        Plain("keep_s"),
    ],
};

/// Who may use the HTTP API; when each last did is no part of it.
pub(in crate::record) const TOKENS: Table = Table {
    row: "token",
    name: "tokens",
    subject: NUMBER,
    columns: &[
        Plain("number"),
        Plain("name"),
        Plain("scope"),
        Bytes("digest"),
        Plain("created_at"),
        Plain("revoked_at"),
    ],
};

/// What persons had removed from the platform.
pub(in crate::record) const PURGES: Table = Table {
    row: "purge",
    name: "purges",
    subject: "run_id",
    columns: &[
        Plain("run_id"),
        Plain("scope"),
        Plain("plan_hash"),
        Plain("kind"),
        Id("subject"),
        Plain("state"),
        Plain("xid"),
        Digest("evidence"),
        Digest("removed"),
        Plain("began_at"),
    ],
};

/// What self-tests wrote.
pub(in crate::record) const SCRATCH: Table = Table {
    row: "scratch",
    name: "scratch",
    subject: NUMBER,
    columns: &[
        Plain("number"),
        Plain("run_id"),
        Plain("scope"),
        Plain("kind"),
        Plain("name"),
        Plain("dataset"),
        Plain("size_bytes"),
        Plain("etag"),
        Plain("state"),
        Plain("began_at"),
    ],
};

impl Table {
    /// The statement that reads its rows as subject and JSON: one row, or up to 500 after a subject.
    fn select(&self, dialect: Dialect, comparison: &str) -> String {
        let fields = self.columns.iter().map(|column| match (column, dialect) {
            (Column::Plain(name) | Column::Digest(name), _) => format!("'{name}', {name}"),
            (Column::Bytes(name) | Column::Id(name), Dialect::Sqlite) => {
                format!("'{name}', CASE WHEN {name} IS NULL THEN NULL ELSE hex({name}) END")
            }
            (Column::Id(name), Dialect::Postgres) => format!("'{name}', CAST({name} AS TEXT)"),
            (Column::Bytes(name), Dialect::Postgres) => format!("'{name}', encode({name}, 'hex')"),
        });
        let fields = fields.collect::<Vec<_>>().join(", ");
        let object = match dialect {
            Dialect::Sqlite => format!("json_object({fields})"),
            Dialect::Postgres => format!("CAST(json_build_object({fields}) AS TEXT)"),
        };
        let Self { name, subject, .. } = self;
        let (sought, value) = if *subject == NUMBER { ("number", "CAST($1 AS BIGINT)") } else { (*subject, "$1") };
        format!(
            "SELECT {subject} AS subject, {object} AS payload FROM {name} WHERE {sought} {comparison} {value} ORDER BY {sought} LIMIT 500"
        )
    }

    fn read(&self, row: &Row) -> Result<(String, Value), RecordError> {
        let unreadable = || RecordError::Unreadable("a row that was chained");
        let (subject, text): (String, String) = (row.get("subject")?, row.get("payload")?);
        let mut payload: Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
        for column in self.columns {
            let Column::Digest(name) = column else { continue };
            let value = payload.get_mut(name).ok_or_else(unreadable)?;
            if let Some(text) = value.as_str() {
                *value = json!(Sha256Hash::of(text.as_bytes()).to_string());
            }
        }
        Ok((subject, payload))
    }

    /// Up to 500 rows after `after`.
    pub(in crate::record) async fn rows_after(
        &self,
        transaction: &mut Transaction,
        after: &str,
    ) -> Result<Vec<(String, Value)>, RecordError> {
        let select = self.select(transaction.dialect(), ">");
        let after = if after.is_empty() && self.subject == NUMBER { "0" } else { after };
        let rows = statement("read the rows that were chained", select).bind(after).all(transaction).await?;
        rows.iter().map(|row| self.read(row)).collect()
    }
}

/// Chains a row as it stands in this transaction; one that is not there any more as gone. `what` says what happened to it.
pub(in crate::record) async fn note(
    transaction: &mut Transaction,
    table: &Table,
    what: &str,
    subject: &str,
) -> Result<(), RecordError> {
    let select = table.select(transaction.dialect(), "=");
    let row = statement("read a row to chain it", select).bind(subject).optional(&mut *transaction).await?;
    let payload = row.map(|row| table.read(&row)).transpose()?.map_or(Value::Null, |(_, payload)| payload);
    append(transaction, &format!("{}.{what}", table.row), subject, &payload).await
}
