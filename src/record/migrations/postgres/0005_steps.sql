-- Deletion in steps: what was told and compacted before its plan closed, and what each run of a plan came to.

-- The part that a group of a plan is over with: nothing more is asked of it in the run that said so.
ALTER TABLE disposals ADD COLUMN part BIGINT;

-- A finished file of a run's report whose keys left the journal; `number` is 0 where it told nothing new.
CREATE TABLE deletion_parts (
  plan_hash    TEXT NOT NULL,
  part         BIGINT NOT NULL,
  run_id       TEXT NOT NULL,
  number       BIGINT NOT NULL,
  deleted      BIGINT NOT NULL,
  already_gone BIGINT NOT NULL,
  skipped      BIGINT NOT NULL,
  size_bytes   BIGINT NOT NULL,
  PRIMARY KEY (plan_hash, part)
);

-- What each run of a plan told; a run that died told nothing, and another tells it.
CREATE TABLE plan_steps (
  plan_hash    TEXT NOT NULL,
  run_id       TEXT NOT NULL,
  started_at   TIMESTAMPTZ NOT NULL,
  deleted      BIGINT NOT NULL DEFAULT 0,
  already_gone BIGINT NOT NULL DEFAULT 0,
  skipped      BIGINT NOT NULL DEFAULT 0,
  failed       BIGINT NOT NULL DEFAULT 0,
  unconfirmed  BIGINT NOT NULL DEFAULT 0,
  bytes_freed  BIGINT NOT NULL DEFAULT 0,
  bytes_marked BIGINT NOT NULL DEFAULT 0,
  bytes_aside  BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (plan_hash, run_id)
);
