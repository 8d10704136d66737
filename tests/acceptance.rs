//! The promises of the program, kept on real MinIO and real Postgres; `tests/run` starts both.

mod bars;
mod clocks;
mod daemon;
mod evidence;
mod faults;
mod kill;
mod main_path;
mod races;
mod structure;
mod support;
