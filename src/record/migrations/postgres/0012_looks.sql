-- How often somebody looked at which datasets of a scope are live: a scan that is slower than another's look must not begin
-- sightings of what the other saw live.
CREATE TABLE looks (
  scope  TEXT COLLATE "C" PRIMARY KEY,
  number BIGINT NOT NULL
);
