-- For how long, in seconds, what a run left is kept at least: as it was configured then.
ALTER TABLE undos ADD COLUMN keep_s INTEGER;

-- When an id of which copies may lie in quarantine was last wanted: it had a row, or a person held it or rejected its deletion.
CREATE TABLE wanted_ids (
  scope     TEXT NOT NULL,
  id        BLOB NOT NULL,
  wanted_at TEXT NOT NULL,
  PRIMARY KEY (scope, id)
) STRICT, WITHOUT ROWID;
