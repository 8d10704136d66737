//! The promises of the program, kept on real MinIO and real Postgres; `tests/run` starts both.

mod bars;
mod clocks;
mod daemon;
mod deletion;
mod evidence;
mod faults;
mod keys;
mod kill;
mod least_privilege;
mod main_path;
mod plans;
mod races;
mod reports;
mod secrets;
mod spelling;
mod structure;
mod support;
