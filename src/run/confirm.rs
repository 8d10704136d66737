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
    let what = format!(
        "{} objects ({}) in {} groups will be deleted from the bucket `{bucket}`; {undo}.",
        human_count(totals.objects),
        human_bytes(totals.bytes),
        human_count(totals.groups),
    );
    ask_about(bucket, &what)
}

/// Says `what` will happen and asks for the bucket's name; anything else is a no.
pub fn ask_about(bucket: &str, what: &str) -> io::Result<bool> {
    let mut out = io::stderr().lock();
    write!(out, "\n{what}\nType the bucket's name to go on: ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == bucket)
}
