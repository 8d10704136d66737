//! demo
use std::path::PathBuf;
use crate::cli::Global; use crate::command::CommandError; use crate::exit::Exit; use crate::telemetry::Progress;
pub async fn run(_dir: Option<PathBuf>, _global: &Global, _progress: Progress) -> Result<Exit, CommandError> { Ok(Exit::Done) }
