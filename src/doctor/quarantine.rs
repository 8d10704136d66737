//! The quarantine: whether the pair that deletes may look at what it copies, and what emptying it means. Reads only.

use super::Examination;
use super::board::Check;
use crate::config::{Disposal, Scope, secrets};
use crate::model::{ObjectKey, Versioning};
use crate::run::failure::chain;
use crate::s3::{Connection, CopyStore, PageRequest, Place, ReadStore};

/// A name that nobody has.
const NOBODYS: &str = "orphan-sweeper-doctor-looks-for-nothing";

/// Looks at the quarantine of a scope that has one.
pub(super) async fn look(examination: &Examination<'_>, scope: &Scope) -> Vec<Check> {
    if scope.policy.disposal == Disposal::Delete {
        return Vec::new();
    }
    let Ok(credentials) = secrets::store_for_deletion(examination.config, examination.variables) else {
        return Vec::new();
    };
    // Why there is no connection was said where the scope's own store was looked at.
    let Ok(connection) = Connection::new(&examination.config.store, &credentials, examination.clock.clone()) else {
        return Vec::new();
    };
    vec![listing(&connection, scope).await, reading(&connection, scope).await, versions(&connection, scope).await]
}

async fn listing(connection: &Connection, scope: &Scope) -> Check {
    const NAME: &str = "quarantine_listing";
    let quarantine = &scope.quarantine;
    let place = format!("{}/{}", quarantine.bucket, quarantine.prefix);
    let store = connection.reading(&quarantine.bucket);
    let request = PageRequest { prefix: quarantine.prefix.clone(), by_delimiter: true, token: None };
    match store.page(&request).await {
        Ok(page) => {
            let more = if page.is_truncated { " or more" } else { "" };
            Check::ok(
                NAME,
                format!("`{place}` may be listed; it holds the copies of {}{more} runs", page.prefixes.len()),
            )
        }
        Err(error) => Check::fail(
            NAME,
            chain(&error),
            format!(
                "allow the pair that deletes s3:ListBucket on `{}` with the prefix `{}*`: `sweep` empties it by its list",
                quarantine.bucket, quarantine.prefix
            ),
        ),
    }
}

/// Asks for objects that are not there: a pair that may read them is told so.
async fn reading(connection: &Connection, scope: &Scope) -> Check {
    const NAME: &str = "quarantine_reading";
    let copier = connection.copying();
    for (bucket, prefix) in [(&scope.bucket, &scope.prefix), (&scope.quarantine.bucket, &scope.quarantine.prefix)] {
        let place = Place::current(bucket, ObjectKey::new(format!("{prefix}{NOBODYS}")));
        if let Err(error) = copier.head(&place).await {
            let hint = format!(
                "allow the pair that deletes s3:GetObject on `{bucket}/{prefix}*`: every copy is read back before its object goes"
            );
            return Check::fail(NAME, chain(&error), hint);
        }
    }
    Check::ok(NAME, "objects and their copies may be read")
}

async fn versions(connection: &Connection, scope: &Scope) -> Check {
    const NAME: &str = "quarantine_versioning";
    let bucket = &scope.quarantine.bucket;
    match connection.reading(bucket).versioning().await {
        Ok(Versioning::Unversioned) => Check::ok(NAME, "its bucket keeps no versions: emptying it frees the space"),
        Ok(Versioning::Enabled | Versioning::Suspended) => Check::warn(
            NAME,
            format!("`{bucket}` keeps versions: emptying the quarantine only marks the copies"),
            "a versioned bucket has its undo already: set `disposal = \"delete\"`, or name another bucket for the quarantine",
        ),
        Ok(Versioning::Unknown) => Check::ok(NAME, "the store does not say whether its bucket keeps versions"),
        // Nothing depends on it, so no right is asked for.
        Err(error) => Check::ok(NAME, format!("not known: {}", chain(&error))),
    }
}
