-- How often somebody looked at which datasets of a scope are live: a scan that is slower than another's look must not begin
-- sightings of what the other saw live.
CREATE TABLE looks (
  scope  TEXT NOT NULL PRIMARY KEY,
  number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
