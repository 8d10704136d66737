//! The promises of the program, kept on real MinIO and real Postgres; `tests/run` starts both.

mod evidence;
mod main_path;
mod support;
