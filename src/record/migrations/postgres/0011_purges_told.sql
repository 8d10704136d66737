-- A purge is told once its rows are gone, also by a process that goes on with it; those that are over were told.
ALTER TABLE purges ADD COLUMN is_told BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE purges SET is_told = TRUE WHERE state NOT IN ('intended', 'committed');

-- A dataset that was seen live again loses nothing more, also to a process that goes on.
ALTER TABLE purged_ids ADD COLUMN is_live_again BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX purged_ids_by_run ON purged_ids (run_id);

-- A purge ends the sightings of its datasets in every scope, while the platform's rows are locked.
CREATE INDEX sightings_by_id ON sightings (id);
