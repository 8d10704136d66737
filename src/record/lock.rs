//! One run at a time. The lock of a file is the system's, which releases it when the process ends, however it ends; the lock of a
//! schema is a lease: a row with an end that its holder moves on while it lives.
//!
//! It is for order. Safety never rests on it: every batch asks the database again by itself.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::ledger::{Ledger, RecordError};
use super::sql::{Database, Statement, statement};

/// The name of the lock of the runs.
pub(super) const RUN: &str = "run";
/// For how long a lease is taken and renewed, by the database's clock.
const LEASE: Duration = Duration::from_secs(60);
/// How long a run that ends may take to give its lease back. One that cannot be given back ends by itself.
const RELEASE: Duration = Duration::from_secs(5);

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "held for its end")] Held);

#[derive(Debug)]
enum Held {
    File {
        _file: File,
    },
    Lease {
        _lease: Lease,
    },
    /// By a test, which proves what holds without it.
    Nothing,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run has it.
    #[error("another run holds the lock `{0}`")]
    Held(PathBuf),
    /// Another run has the lease.
    #[error("another run holds the ledger: {who}, for {left_s} more seconds at least")]
    Leased {
        /// Host and process.
        who: String,
        /// Until its lease ends, unless it is renewed.
        left_s: i64,
    },
    /// The file cannot be locked.
    #[error("failed to lock `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The lease cannot be taken.
    #[error("failed to lock the ledger")]
    Lease(#[source] RecordError),
}

impl RunLock {
    /// Takes the lock of the ledger at `ledger_path`.
    ///
    /// - Errors: [`LockError::Held`] where another run has it.
    pub fn take(ledger_path: &Path) -> Result<Self, LockError> {
        Self::take_file(ledger_path.with_added_extension("lock"))
    }

    /// Takes the lock of that file.
    pub(super) fn take_file(path: PathBuf) -> Result<Self, LockError> {
        if crate::failpoint::is_lock_bypassed() {
            return Ok(Self(Held::Nothing));
        }
        let io = |source| LockError::Io { path: path.clone(), source };
        let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(Held::File { _file: file })),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(path)),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Takes the lease `name` of the ledger in `database`, and renews it until it is dropped; `lost` is called when that fails for so
    /// long that another run may have it.
    ///
    /// - Errors: [`LockError::Leased`] where another run has it.
    pub(super) async fn lease(
        database: Database,
        name: &str,
        lost: impl FnOnce() + Send + 'static,
    ) -> Result<Self, LockError> {
        if crate::failpoint::is_lock_bypassed() {
            return Ok(Self(Held::Nothing));
        }
        let mut lease = Lease::take(database, name, crate::failpoint::lease().unwrap_or(LEASE)).await?;
        lease.keep(lost);
        Ok(Self(Held::Lease { _lease: lease }))
    }
}

/// A row that says who may run, and until when.
#[derive(Debug)]
struct Lease {
    database: Database,
    name: String,
    holder: Uuid,
    life: Duration,
    taken: Instant,
    renewing: Option<DropGuard>,
}

impl Lease {
    /// Takes it where it is free, or its end is past.
    async fn take(database: Database, name: &str, life: Duration) -> Result<Self, LockError> {
        let (holder, taken) = (Uuid::new_v4(), Instant::now());
        let took = statement(
            "take the lease",
            "INSERT INTO lease (name, holder, who, expires_at) \
             VALUES ($4, $1, $2, clock_timestamp() + $3 * interval '1 millisecond') \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, who = excluded.who, expires_at = excluded.expires_at \
             WHERE lease.expires_at <= clock_timestamp()",
        );
        let took = run(&database, took.bind(holder).bind(this_process()).bind(milliseconds(life)).bind(name)).await;
        if took.map_err(LockError::Lease)? == 1 {
            return Ok(Self { database, name: name.to_owned(), holder, life, taken, renewing: None });
        }
        let (who, left_s) =
            holder_of(&database, name).await.map_err(LockError::Lease)?.unwrap_or(("one that ends just now".into(), 0));
        Err(LockError::Leased { who, left_s })
    }

    /// Renews it in the background.
    fn keep(&mut self, lost: impl FnOnce() + Send + 'static) {
        let stop = CancellationToken::new();
        let (database, name, holder, life) = (self.database.clone(), self.name.clone(), self.holder, self.life);
        let mut renewed = self.taken;
        self.renewing = Some(stop.clone().drop_guard());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(life / 6) => {}
                }
                let asked = Instant::now();
                let answer = tokio::time::timeout(life / 6, renew(&database, &name, holder, life)).await;
                match answer {
                    Ok(Ok(true)) => renewed = asked,
                    Ok(Ok(false)) => {
                        tracing::error!("another run took the lease of the ledger; this one ends");
                        break;
                    }
                    // Not lost yet: the next try may come through while the lease lasts.
                    _ if renewed.elapsed() < life * 2 / 3 => {
                        tracing::warn!("the lease of the ledger could not be renewed");
                    }
                    _ => {
                        tracing::error!(
                            "the lease of the ledger cannot be renewed; this run ends before another begins"
                        );
                        break;
                    }
                }
            }
            lost();
        });
    }
}

/// Moves the end of a lease on; says whether it is still this holder's.
async fn renew(database: &Database, name: &str, holder: Uuid, life: Duration) -> Result<bool, RecordError> {
    let renewal = statement(
        "renew the lease",
        "UPDATE lease SET expires_at = clock_timestamp() + $2 * interval '1 millisecond' WHERE name = $3 AND holder = $1",
    );
    Ok(run(database, renewal.bind(holder).bind(milliseconds(life)).bind(name)).await? == 1)
}

/// Runs a statement on the lease, which waits for no writer of the ledger; says how many rows it changed.
async fn run(database: &Database, statement: Statement) -> Result<u64, RecordError> {
    const STEP: &str = "change the lease";
    let mut transaction = database.begin_beside(STEP).await?;
    let changed = statement.run(&mut transaction).await?;
    transaction.commit(STEP).await?;
    Ok(changed)
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.take();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
            return;
        }
        // Given back before the process ends, so that the next run need not wait for its end.
        let release = statement("release the lease", "DELETE FROM lease WHERE name = $2 AND holder = $1");
        let release = run(&self.database, release.bind(self.holder).bind(&self.name));
        let release = || runtime.block_on(async { tokio::time::timeout(RELEASE, release).await });
        // On a thread of its own: a thread of the runtime that drives local work may not be blocked on.
        let released = std::thread::scope(|scope| {
            let releasing = std::thread::Builder::new().name("lease".into()).spawn_scoped(scope, release);
            releasing.ok().and_then(|releasing| releasing.join().ok())
        });
        if !matches!(released, Some(Ok(Ok(_)))) {
            tracing::warn!("the lease of the ledger could not be given back; it ends by itself within a minute");
        }
    }
}

fn milliseconds(life: Duration) -> i64 {
    i64::try_from(life.as_millis()).unwrap_or(i64::MAX)
}

/// Host and process, for whoever finds the ledger taken.
fn this_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    format!("process {} on {}", std::process::id(), host.as_deref().unwrap_or("an unnamed host"))
}

/// Who holds the lease, and for how many seconds.
async fn holder_of(database: &Database, name: &str) -> Result<Option<(String, i64)>, RecordError> {
    let select = "SELECT who, CAST(ceil(extract(epoch FROM expires_at - clock_timestamp())) AS BIGINT) AS left_s \
                  FROM lease WHERE name = $1 AND expires_at > clock_timestamp()";
    let row = statement("read the lease", select).bind(name).optional(database).await?;
    row.map(|row| Ok((row.get("who")?, row.get("left_s")?))).transpose()
}

impl Ledger {
    /// Who holds the lease of a ledger in Postgres.
    pub async fn lease_holder(&self) -> Result<Option<String>, RecordError> {
        Ok(holder_of(&self.database, RUN).await?.map(|(who, _)| who))
    }
}
