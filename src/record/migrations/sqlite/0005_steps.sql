-- Deletion in steps: what was told and compacted before its plan closed, and what each run of a plan came to.

-- The part that a group of a plan is over with: nothing more is asked of it in the run that said so.
ALTER TABLE disposals ADD COLUMN part INTEGER;

-- A finished file of a run's report whose keys left the journal; `number` is 0 where it told nothing new.
CREATE TABLE deletion_parts (
  plan_hash    TEXT NOT NULL,
  part         INTEGER NOT NULL,
  run_id       TEXT NOT NULL,
  number       INTEGER NOT NULL,
  deleted      INTEGER NOT NULL,
  already_gone INTEGER NOT NULL,
  skipped      INTEGER NOT NULL,
  size_bytes   INTEGER NOT NULL,
  PRIMARY KEY (plan_hash, part)
) STRICT, WITHOUT ROWID;

-- What each run of a plan told; a run that died told nothing, and another tells it.
CREATE TABLE plan_steps (
  plan_hash    TEXT NOT NULL,
  run_id       TEXT NOT NULL,
  started_at   TEXT NOT NULL,
  deleted      INTEGER NOT NULL DEFAULT 0,
  already_gone INTEGER NOT NULL DEFAULT 0,
  skipped      INTEGER NOT NULL DEFAULT 0,
  failed       INTEGER NOT NULL DEFAULT 0,
  unconfirmed  INTEGER NOT NULL DEFAULT 0,
  bytes_freed  INTEGER NOT NULL DEFAULT 0,
  bytes_marked INTEGER NOT NULL DEFAULT 0,
  bytes_aside  INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (plan_hash, run_id)
) STRICT, WITHOUT ROWID;
