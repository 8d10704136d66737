-- What was recorded, in the order it was recorded: each entry carries the hash of the one before it. Its time is part of the
-- hash, so it is kept as it was written.
CREATE TABLE chain (
  number   BIGINT PRIMARY KEY,
  at       TEXT NOT NULL,
  kind     TEXT NOT NULL,
  subject  TEXT NOT NULL,
  payload  TEXT NOT NULL,
  previous BYTEA NOT NULL CHECK (length(previous) = 32),
  hash     BYTEA NOT NULL UNIQUE CHECK (length(hash) = 32)
);

-- Who may begin a run, and until when: a row, because a pooler between us and the server keeps no session of ours.
CREATE TABLE lease (
  name       TEXT COLLATE "C" PRIMARY KEY,
  holder     UUID NOT NULL,
  who        TEXT NOT NULL,
  expires_at TIMESTAMPTZ NOT NULL
);
