-- The ledger: what orphan-sweeper remembers between runs. Times are RFC 3339 in UTC, ids and keys are bytes.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Runs are numbered in the order they began: their ids are made from the host's clock, which may be set back.
CREATE TABLE runs (
  number       INTEGER PRIMARY KEY,
  run_id       TEXT NOT NULL UNIQUE,
  scope        TEXT NOT NULL,
  command      TEXT NOT NULL,
  is_dry_run   INTEGER NOT NULL,
  started_at   TEXT NOT NULL,
  finished_at  TEXT,
  outcome      TEXT,
  reason       TEXT,
  exit_code    INTEGER,
  plan_hash    TEXT,
  orphan_bytes INTEGER,
  summary      TEXT
) STRICT;
CREATE INDEX runs_by_scope ON runs (scope, number);

-- One row per orphan id: its unbroken sightings.
CREATE TABLE sightings (
  scope        TEXT NOT NULL,
  id           BLOB NOT NULL,
  first_run    TEXT NOT NULL,
  first_seen   TEXT NOT NULL,
  last_run     TEXT NOT NULL,
  last_seen    TEXT NOT NULL,
  sightings    INTEGER NOT NULL,
  witnessed_ms INTEGER NOT NULL,
  digest       BLOB NOT NULL,
  PRIMARY KEY (scope, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE baselines (
  scope    TEXT PRIMARY KEY,
  baseline TEXT NOT NULL,
  run_id   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE latches (
  scope       TEXT NOT NULL,
  breaker     TEXT NOT NULL,
  run_id      TEXT NOT NULL,
  latched_at  TEXT NOT NULL,
  observation TEXT NOT NULL,
  message     TEXT NOT NULL,
  PRIMARY KEY (scope, breaker)
) STRICT, WITHOUT ROWID;

CREATE TABLE acknowledgements (
  number          INTEGER PRIMARY KEY,
  scope           TEXT NOT NULL,
  breaker         TEXT NOT NULL,
  acknowledged_by TEXT NOT NULL,
  reason          TEXT NOT NULL,
  acknowledged_at TEXT NOT NULL,
  run_id          TEXT NOT NULL,
  message         TEXT NOT NULL
) STRICT;

CREATE TABLE plans (
  hash         TEXT PRIMARY KEY,
  scope        TEXT NOT NULL,
  run_id       TEXT NOT NULL,
  created_at   TEXT NOT NULL,
  expires_at   TEXT NOT NULL,
  state        TEXT NOT NULL CHECK (state IN ('open', 'applying', 'closed')),
  path         TEXT NOT NULL,
  group_count  INTEGER NOT NULL,
  object_count INTEGER NOT NULL,
  size_bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE allowances (
  plan_hash  TEXT NOT NULL,
  breaker    TEXT NOT NULL,
  value      TEXT NOT NULL,
  run_id     TEXT NOT NULL,
  allowed_at TEXT NOT NULL,
  PRIMARY KEY (plan_hash, breaker)
) STRICT, WITHOUT ROWID;

-- The journal of deletion: a row is written before its key is asked for, and gets one outcome.
CREATE TABLE intents (
  scope         TEXT NOT NULL,
  key           BLOB NOT NULL,
  plan_hash     TEXT NOT NULL,
  run_id        TEXT NOT NULL,
  id            BLOB NOT NULL,
  prefix        BLOB NOT NULL,
  batch         INTEGER NOT NULL,
  size_bytes    INTEGER NOT NULL,
  etag          TEXT NOT NULL,
  last_modified TEXT,
  outcome       TEXT CHECK (outcome IN ('deleted', 'already_gone', 'skipped', 'failed', 'unconfirmed')),
  reason        TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

-- What became of each group of a plan, kept after its keys are compacted.
CREATE TABLE disposals (
  plan_hash TEXT NOT NULL,
  prefix    BLOB NOT NULL,
  run_id    TEXT NOT NULL,
  scope     TEXT NOT NULL,
  id        BLOB NOT NULL,
  outcome   TEXT NOT NULL,
  at        TEXT NOT NULL,
  PRIMARY KEY (plan_hash, prefix)
) STRICT, WITHOUT ROWID;
CREATE INDEX disposals_by_id ON disposals (scope, id);

-- Up to when the schedule of a scope was looked at.
CREATE TABLE schedules (
  scope         TEXT PRIMARY KEY,
  first_start   TEXT NOT NULL,
  checked_until TEXT NOT NULL
) STRICT, WITHOUT ROWID;
