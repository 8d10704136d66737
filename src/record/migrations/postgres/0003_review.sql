-- What persons decided on plans, in order; never changed, only followed by another decision. Without an id: the whole plan.
CREATE TABLE decisions (
  number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scope      TEXT NOT NULL,
  plan_hash  TEXT NOT NULL,
  id         UUID,
  decision   TEXT NOT NULL CHECK (decision IN ('approved', 'rejected')),
  decided_by TEXT NOT NULL,
  reason     TEXT NOT NULL,
  decided_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX decisions_by_plan ON decisions (plan_hash, id);
CREATE INDEX decisions_by_id ON decisions (scope, id);

-- Ids that the policy leaves alone whatever plan names them: rejected by themselves or with their plan, and not approved since.
CREATE TABLE rejected_ids (
  scope    TEXT NOT NULL,
  id       UUID NOT NULL,
  decision BIGINT NOT NULL,
  is_own   BOOLEAN NOT NULL,
  PRIMARY KEY (scope, id)
);

-- Protected ids. A hold that was removed stays on record.
CREATE TABLE holds (
  number         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scope          TEXT NOT NULL,
  id             UUID NOT NULL,
  held_until     TIMESTAMPTZ,
  placed_by      TEXT NOT NULL,
  reason         TEXT NOT NULL,
  placed_at      TIMESTAMPTZ NOT NULL,
  removed_at     TIMESTAMPTZ,
  removed_by     TEXT,
  removed_reason TEXT
);
CREATE INDEX holds_by_id ON holds (scope, id);

-- How much of a group was deleted: its keys are compacted later.
ALTER TABLE disposals ADD COLUMN objects BIGINT NOT NULL DEFAULT 0;
ALTER TABLE disposals ADD COLUMN size_bytes BIGINT NOT NULL DEFAULT 0;
