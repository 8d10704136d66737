-- What persons decided on plans, in order; never changed, only followed by another decision. Without an id: the whole plan.
CREATE TABLE decisions (
  number     INTEGER PRIMARY KEY,
  scope      TEXT NOT NULL,
  plan_hash  TEXT NOT NULL,
  id         BLOB,
  decision   TEXT NOT NULL CHECK (decision IN ('approved', 'rejected')),
  decided_by TEXT NOT NULL,
  reason     TEXT NOT NULL,
  decided_at TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_by_plan ON decisions (plan_hash, id);
CREATE INDEX decisions_by_id ON decisions (scope, id);

-- Ids that the policy leaves alone whatever plan names them: rejected by themselves or with their plan, and not approved since.
CREATE TABLE rejected_ids (
  scope    TEXT NOT NULL,
  id       BLOB NOT NULL,
  decision INTEGER NOT NULL,
  is_own   INTEGER NOT NULL,
  PRIMARY KEY (scope, id)
) STRICT, WITHOUT ROWID;

-- Protected ids. A hold that was removed stays on record.
CREATE TABLE holds (
  number         INTEGER PRIMARY KEY,
  scope          TEXT NOT NULL,
  id             BLOB NOT NULL,
  held_until     TEXT,
  placed_by      TEXT NOT NULL,
  reason         TEXT NOT NULL,
  placed_at      TEXT NOT NULL,
  removed_at     TEXT,
  removed_by     TEXT,
  removed_reason TEXT
) STRICT;
CREATE INDEX holds_by_id ON holds (scope, id);

-- How much of a group was deleted: its keys are compacted later.
ALTER TABLE disposals ADD COLUMN objects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE disposals ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
