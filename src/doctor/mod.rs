//! doctor
use crate::cli::Global; use crate::command::{CommandError, Host}; use crate::exit::Exit;
pub async fn doctor(_global: &Global, _host: &Host, _probe: bool) -> Result<Exit, CommandError> { Ok(Exit::Done) }
