-- What each deleting run left that can be brought back: copies in a quarantine, or markers over versions.
CREATE TABLE undos (
  run_id    TEXT PRIMARY KEY,
  scope     TEXT NOT NULL,
  plan_hash TEXT NOT NULL,
  kind      TEXT NOT NULL CHECK (kind IN ('quarantine', 'versions')),
  bucket    TEXT NOT NULL,
  prefix    BLOB NOT NULL,
  began_at  TEXT NOT NULL,
  ended_at  TEXT,
  -- The run whose report tells what this one did, where this one died without a report.
  told_by   TEXT,
  state     TEXT NOT NULL CHECK (state IN ('kept', 'reaped')),
  reaped_at TEXT,
  reaped_by TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX undos_by_scope ON undos (scope, state, began_at);

-- Copies that were made and not proven: nothing is ever restored from them.
CREATE TABLE doubted_copies (
  run_id TEXT NOT NULL,
  key    BLOB NOT NULL,
  PRIMARY KEY (run_id, key)
) STRICT, WITHOUT ROWID;

-- The journal of the reaper: a row is written before a copy is asked for, and gets one outcome. A copy's key is told apart by
-- the run that made it.
CREATE TABLE reapings (
  quarantine    TEXT NOT NULL,
  key           BLOB NOT NULL,
  run_id        TEXT NOT NULL,
  size_bytes    INTEGER NOT NULL,
  etag          TEXT NOT NULL,
  last_modified TEXT,
  outcome       TEXT CHECK (outcome IN ('deleted', 'already_gone', 'skipped', 'failed', 'unconfirmed')),
  reason        TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (quarantine, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX reapings_by_run ON reapings (run_id);
