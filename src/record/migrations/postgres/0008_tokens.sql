-- Who may use the HTTP API, and for what. The token itself is nowhere: only its SHA-256. One that was revoked stays on record.
CREATE TABLE tokens (
  number       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name         TEXT NOT NULL,
  scope        TEXT NOT NULL CHECK (scope IN ('read', 'approve', 'delete')),
  digest       BYTEA NOT NULL UNIQUE,
  created_at   TIMESTAMPTZ NOT NULL,
  revoked_at   TIMESTAMPTZ,
  last_used_at TIMESTAMPTZ
);
-- A name says who decided: no two may bear it at a time.
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;
