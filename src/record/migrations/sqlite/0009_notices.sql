-- Messages that nobody took: told by the next report, and by the history.
CREATE TABLE undelivered (
  number  INTEGER PRIMARY KEY,
  scope   TEXT NOT NULL,
  run_id  TEXT NOT NULL,
  channel TEXT NOT NULL CHECK (channel IN ('webhook', 'heartbeat')),
  at      TEXT NOT NULL,
  error   TEXT NOT NULL,
  -- The run whose report told it.
  told_by TEXT
) STRICT;
