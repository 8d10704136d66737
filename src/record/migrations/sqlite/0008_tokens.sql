-- Who may use the HTTP API, and for what. The token itself is nowhere: only its SHA-256. One that was revoked stays on record.
CREATE TABLE tokens (
  number       INTEGER PRIMARY KEY,
  name         TEXT NOT NULL,
  scope        TEXT NOT NULL CHECK (scope IN ('read', 'approve', 'delete')),
  digest       BLOB NOT NULL UNIQUE,
  created_at   TEXT NOT NULL,
  revoked_at   TEXT,
  last_used_at TEXT
) STRICT;
-- A name says who decided: no two may bear it at a time.
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;
