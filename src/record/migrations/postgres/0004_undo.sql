-- What each deleting run left that can be brought back: copies in a quarantine, or markers over versions.
CREATE TABLE undos (
  run_id    TEXT PRIMARY KEY,
  scope     TEXT NOT NULL,
  plan_hash TEXT NOT NULL,
  kind      TEXT NOT NULL CHECK (kind IN ('quarantine', 'versions')),
  bucket    TEXT NOT NULL,
  prefix    BYTEA NOT NULL,
  began_at  TIMESTAMPTZ NOT NULL,
  ended_at  TIMESTAMPTZ,
  -- The run whose report tells what this one did, where this one died without a report.
  told_by   TEXT,
  state     TEXT NOT NULL CHECK (state IN ('kept', 'reaped')),
  reaped_at TIMESTAMPTZ,
  reaped_by TEXT
);
CREATE INDEX undos_by_scope ON undos (scope, state, began_at);

-- Copies that were made and not proven: nothing is ever restored from them.
CREATE TABLE doubted_copies (
  run_id TEXT NOT NULL,
  key    BYTEA NOT NULL,
  PRIMARY KEY (run_id, key)
);

-- The journal of the reaper: a row is written before a copy is asked for, and gets one outcome. A copy's key is told apart by
-- the run that made it.
CREATE TABLE reapings (
  quarantine    TEXT NOT NULL,
  key           BYTEA NOT NULL,
  run_id        TEXT NOT NULL,
  size_bytes    BIGINT NOT NULL,
  etag          TEXT NOT NULL,
  last_modified TIMESTAMPTZ,
  outcome       TEXT CHECK (outcome IN ('deleted', 'already_gone', 'skipped', 'failed', 'unconfirmed')),
  reason        TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (quarantine, key)
);
CREATE INDEX reapings_by_run ON reapings (run_id);
