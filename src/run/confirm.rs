//! Asks a person on a terminal before anything is deleted.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::model::{human_bytes, human_count};
use crate::plan::PlanTotals;

/// Whether somebody can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for the bucket's name; anything else is a no. `undo` says what can be brought back.
pub fn ask(bucket: &str, totals: PlanTotals, undo: &str) -> io::Result<bool> {
    let mut out = io::stderr().lock();
    writeln!(
        out,
        "\n{} objects ({}) in {} groups will be deleted from the bucket `{bucket}`; {undo}.",
        human_count(totals.objects),
        human_bytes(totals.bytes),
        human_count(totals.groups),
    )?;
    write!(out, "Type the bucket's name to go on: ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == bucket)
}
