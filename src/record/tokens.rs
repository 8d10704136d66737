//! Who may use the HTTP API: names, what each may do, and the hash of the token that each shows.
//!
//! Invariant: a token is nowhere but with its holder; whoever reads the ledger can use none.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::chain::tracked::{TOKENS, note};
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, statement};
use crate::model::{Sha256Hash, Timestamp};

/// What a token may be used for. What one may beyond reading is no part of the other: who reviews plans deletes no dataset,
/// and the platform, which deletes datasets, approves no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenScope {
    /// To look.
    Read,
    /// To decide on plans, hold ids, acknowledge breakers and start runs; and to look.
    Approve,
    /// To delete datasets and jobs of the platform; and to look.
    Delete,
}

impl TokenScope {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Read, Self::Approve, Self::Delete];

    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Approve => "approve",
            Self::Delete => "delete",
        }
    }

    /// The one of that word.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    /// Whether a token of this scope may be used where `needed` is asked for.
    #[must_use]
    pub fn allows(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Read | Self::Approve | Self::Delete, Self::Read)
            | (Self::Approve, Self::Approve)
            | (Self::Delete, Self::Delete) => true,
            (Self::Read, Self::Approve | Self::Delete)
            | (Self::Approve, Self::Delete)
            | (Self::Delete, Self::Approve) => false,
        }
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token as the ledger knows it.
#[derive(Debug, Clone)]
pub struct TokenRow {
    /// Its number.
    pub number: u64,
    /// Whose it is.
    pub name: String,
    /// What it may be used for.
    pub scope: TokenScope,
    /// The SHA-256 of it.
    pub digest: Sha256Hash,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When it was last shown, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// How often a use is noted: no caller may make the ledger write at every request.
const USE_NOTED_EVERY: chrono::Duration = chrono::Duration::minutes(1);

impl Ledger {
    /// Notes a new token; says whether the name was free.
    pub async fn create_token(
        &self,
        name: &str,
        scope: TokenScope,
        digest: Sha256Hash,
        at: Timestamp,
    ) -> Result<bool, RecordError> {
        const STEP: &str = "note a token";
        let mut transaction = self.begin(STEP).await?;
        let insert = "INSERT INTO tokens (name, scope, digest, created_at) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT DO NOTHING RETURNING number";
        let row = statement(STEP, insert)
            .bind(name)
            .bind(scope.as_str())
            .bind(&digest.0[..])
            .bind(at)
            .optional(&mut transaction)
            .await?;
        let Some(row) = row else { return Ok(false) };
        note(&mut transaction, &TOKENS, "created", &row.count("number")?.to_string()).await?;
        transaction.commit(STEP).await?;
        Ok(true)
    }

    /// Revokes the token of that name; says whether there was one.
    pub async fn revoke_token(&self, name: &str, at: Timestamp) -> Result<bool, RecordError> {
        const STEP: &str = "revoke a token";
        let mut transaction = self.begin(STEP).await?;
        let update = "UPDATE tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL RETURNING number";
        let row = statement(STEP, update).bind(name).bind(at).optional(&mut transaction).await?;
        let Some(row) = row else { return Ok(false) };
        note(&mut transaction, &TOKENS, "revoked", &row.count("number")?.to_string()).await?;
        transaction.commit(STEP).await?;
        Ok(true)
    }

    /// Every token, the revoked ones too, the oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, RecordError> {
        let rows = statement("read the tokens", "SELECT * FROM tokens ORDER BY number").all(&self.database).await?;
        rows.iter().map(read_token).collect()
    }

    /// The token that counts and has this hash. Every one is compared, each in a time that says nothing of where it differs.
    pub async fn token_of(&self, digest: Sha256Hash) -> Result<Option<TokenRow>, RecordError> {
        let select = "SELECT * FROM tokens WHERE revoked_at IS NULL ORDER BY number";
        let rows = statement("look for a token", select).all(&self.database).await?;
        let mut found = None;
        for row in &rows {
            let token = read_token(row)?;
            if is_same(&token.digest.0, &digest.0) {
                found = Some(token);
            }
        }
        Ok(found)
    }

    /// Notes that a token was shown, where the last note is old enough.
    pub async fn note_token_use(&self, token: &TokenRow, at: Timestamp) -> Result<(), RecordError> {
        // A clock that was set back must not silence it.
        if token.last_used_at.is_some_and(|last| (at - last).abs() < USE_NOTED_EVERY) {
            return Ok(());
        }
        let update = "UPDATE tokens SET last_used_at = $2 WHERE number = $1";
        statement("note the use of a token", update).bind(token.number).bind(at).run(&self.database).await.map(drop)
    }
}

/// Whether two hashes are the same, without an early end.
fn is_same(one: &[u8; 32], two: &[u8; 32]) -> bool {
    let difference = one.iter().zip(two).fold(0_u8, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    std::hint::black_box(difference) == 0
}

fn read_token(row: &Row) -> Result<TokenRow, RecordError> {
    let digest: Vec<u8> = row.get("digest")?;
    Ok(TokenRow {
        number: row.count("number")?,
        name: row.get("name")?,
        scope: TokenScope::named(&row.get::<String>("scope")?).ok_or(RecordError::Unreadable("a token's scope"))?,
        digest: Sha256Hash(digest.try_into().map_err(|_| RecordError::Unreadable("a token's hash"))?),
        created_at: row.get("created_at")?,
        revoked_at: row.get("revoked_at")?,
        last_used_at: row.get("last_used_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_may_read_and_neither_of_the_others_may_what_the_other_may() {
        use TokenScope::{Approve, Delete, Read};
        let allowed: Vec<(TokenScope, TokenScope)> = TokenScope::ALL
            .into_iter()
            .flat_map(|has| TokenScope::ALL.map(|needed| (has, needed)))
            .filter(|(has, needed)| has.allows(*needed))
            .collect();
        assert_eq!(allowed, [(Read, Read), (Approve, Read), (Approve, Approve), (Delete, Read), (Delete, Delete)]);
    }

    #[test]
    fn hashes_differ_wherever_a_bit_does() {
        let one = [0x5a; 32];
        assert!(is_same(&one, &one));
        for position in 0..256 {
            let mut two = one;
            two[position / 8] ^= 1 << (position % 8);
            assert!(!is_same(&one, &two), "bit {position}");
        }
    }
}
