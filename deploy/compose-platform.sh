#!/bin/sh
# The platform's tables, and the role that only reads them. Run once, by the database's image, on an empty volume.
set -eu
psql --set=ON_ERROR_STOP=1 --set=password="$SWEEPER_PASSWORD" --username=postgres --dbname="$POSTGRES_DB" <<'SQL'
CREATE SCHEMA heimdall;

CREATE TABLE heimdall.training_jobs (
  id         uuid PRIMARY KEY,
  status     text NOT NULL,
  job_type   text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE heimdall.synthetic_datasets (
  id                uuid PRIMARY KEY,
  name              text NOT NULL,
  dataset_type      text NOT NULL,
  created_at        timestamptz NOT NULL DEFAULT now(),
  created_by_job_id uuid REFERENCES heimdall.training_jobs (id) ON DELETE SET NULL
);

CREATE TABLE heimdall.synthetic_iq_samples (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dataset_id uuid NOT NULL REFERENCES heimdall.synthetic_datasets (id) ON DELETE CASCADE
);

CREATE TABLE heimdall.synthetic_training_samples (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dataset_id uuid NOT NULL REFERENCES heimdall.synthetic_datasets (id) ON DELETE CASCADE
);

CREATE TABLE heimdall.models (
  id                   uuid PRIMARY KEY,
  model_name           text NOT NULL,
  is_active            boolean NOT NULL DEFAULT false,
  synthetic_dataset_id uuid REFERENCES heimdall.synthetic_datasets (id) ON DELETE SET NULL
);

CREATE ROLE orphan_sweeper LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
ALTER ROLE orphan_sweeper SET default_transaction_read_only = on;
GRANT USAGE ON SCHEMA heimdall TO orphan_sweeper;
GRANT SELECT ON heimdall.synthetic_datasets TO orphan_sweeper;
GRANT pg_read_all_stats TO orphan_sweeper;
SQL
