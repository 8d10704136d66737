//! orphan-sweeper: the periodic orphan audit and garbage collector for object storage.
//!
//! The code reads in the order the data moves:
//! **configure → list → parse → diff → decide → plan → report**, and for harm **verify → re-check → dispose → record**.
//! Keeping is the default. Doubt keeps. An incomplete picture stops the run.
//!
//! The pure rooms (`parse`, `diff`, `decide`, `plan`, `report`) know no client, no runtime and no clock: values in,
//! values out, time as an argument. Reading and deleting are two traits, and `audit` is handed the first one only.

mod cli;
pub mod clock;
mod command;
mod config;
mod decide;
mod demo;
mod diff;
mod dispose;
mod doctor;
pub mod embedded;
mod exit;
mod failpoint;
mod list;
mod metrics;
mod model;
mod notify;
mod parse;
mod plan;
mod platform;
mod record;
mod report;
mod run;
mod s3;
mod serve;
mod telemetry;

pub use command::{Host, main_with};
