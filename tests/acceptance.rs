//! The promises of the program, kept on real MinIO and real Postgres; `tests/run` starts both.

mod bars;
mod clocks;
mod daemon;
mod deletion;
mod empty_references;
mod ends;
mod evidence;
mod explain;
mod faults;
mod holds;
mod keys;
mod kill;
mod leaks;
mod least_privilege;
mod ledger;
mod main_path;
mod plans;
mod races;
mod reports;
mod review;
mod secrets;
mod spelling;
mod structure;
mod support;
mod trend;
mod undo;
