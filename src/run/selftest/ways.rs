//! The ways: does everything answer, and may each role and pair do what the steps after this one do?

use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{Api, Bench, Broken, scratch, token_name};
use crate::model::{DatasetId, Sha256Hash};
use crate::platform::scratch::missing_grant;
use crate::record::{NewScratch, ScratchKind, ScratchState, TokenScope};
use crate::run::failure::chain;
use crate::run::purge;

/// Looks at store, database, roles and statements; makes the token of this self-test.
pub(super) async fn check(bench: &Bench<'_>, api: &Api) -> Result<((), String), Broken> {
    super::check_stops(bench.services, bench.scope).await?;
    // A new id: nothing of anybody's is under it.
    scratch::list(bench, DatasetId(Uuid::new_v4())).await?;
    let look = bench.reading.references.look(&[]).await?;
    purge::check(bench.services, bench.keyring, bench.scope).await?;
    let statements = &bench.scope.selftest.statements;
    if let Err(errors) = bench.inserting.check_scratch(statements, &look.anchor.identity).await {
        return Err(of_statements(bench, &errors));
    }
    make_token(bench, api).await?;
    let detail = format!(
        "the store and {} answer, and every statement fits the schema and the rights of its role",
        bench.reading.database
    );
    Ok(((), detail))
}

fn of_statements(bench: &Bench<'_>, errors: &[crate::platform::PlatformError]) -> Broken {
    let statements = &bench.scope.selftest.statements;
    let detail = errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; ");
    let mut grants: Vec<String> =
        errors.iter().filter_map(|error| missing_grant(error, statements, &bench.inserting_role)).collect();
    grants.dedup();
    let general = errors.first().map(|error| error.hint().to_owned());
    let hint =
        if grants.is_empty() { general } else { Some(format!("as the owner of the tables: {}", grants.join(" "))) };
    Broken::new(detail, "").with_hint(hint)
}

async fn make_token(bench: &Bench<'_>, api: &Api) -> Result<(), Broken> {
    let (ledger, now) = (&bench.services.ledger, bench.services.clock.now());
    let name = token_name(bench.run);
    let new = NewScratch { kind: ScratchKind::Token, name: name.clone(), dataset: None, size_bytes: 0 };
    let noted = ledger.intend_scratch((&bench.scope.name, bench.run), &[new], now).await?;
    let digest = Sha256Hash::of(api.token().expose_secret().as_bytes());
    ledger.create_token(&name, TokenScope::Delete, digest, now).await?;
    Ok(ledger.settle_scratch(&noted, ScratchState::Written).await?)
}
