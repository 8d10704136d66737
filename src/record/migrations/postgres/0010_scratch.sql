-- What self-tests wrote into the platform and the store: each row or object is here before it is written, so that whatever ends a
-- self-test, exactly that can be removed.
CREATE TABLE scratch (
  number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id     TEXT NOT NULL,
  scope      TEXT NOT NULL,
  kind       TEXT NOT NULL CHECK (kind IN ('dataset', 'job', 'object', 'token')),
  name       TEXT NOT NULL,
  dataset    TEXT,
  size_bytes BIGINT NOT NULL,
  etag       TEXT,
  state      TEXT NOT NULL CHECK (state IN ('intended', 'written', 'removed', 'left')),
  began_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX scratch_by_state ON scratch (scope, state);
