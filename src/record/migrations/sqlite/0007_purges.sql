-- What a person had removed from the platform: rows first, in one transaction of the platform's own database, then objects. A row
-- is written before that transaction commits; its number tells afterwards whether it did.
CREATE TABLE purges (
  run_id     TEXT PRIMARY KEY,
  scope      TEXT NOT NULL,
  plan_hash  TEXT NOT NULL,
  kind       TEXT NOT NULL CHECK (kind IN ('dataset', 'job')),
  subject    BLOB NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('intended', 'committed', 'done', 'aborted', 'unknown')),
  xid        INTEGER NOT NULL,
  evidence   TEXT NOT NULL,
  removed    TEXT,
  began_at   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX purges_by_scope ON purges (scope, state, xid);
CREATE INDEX purges_by_subject ON purges (scope, subject);

-- The datasets of each purge.
CREATE TABLE purged_ids (
  scope  TEXT NOT NULL,
  id     BLOB NOT NULL,
  run_id TEXT NOT NULL,
  PRIMARY KEY (scope, id, run_id)
) STRICT, WITHOUT ROWID;
