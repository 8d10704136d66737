-- What was recorded, in the order it was recorded: each entry carries the hash of the one before it.
CREATE TABLE chain (
  number   INTEGER PRIMARY KEY,
  at       TEXT NOT NULL,
  kind     TEXT NOT NULL,
  subject  TEXT NOT NULL,
  payload  TEXT NOT NULL,
  previous BLOB NOT NULL CHECK (length(previous) = 32),
  hash     BLOB NOT NULL UNIQUE CHECK (length(hash) = 32)
) STRICT;
