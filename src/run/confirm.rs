//! Asks a person on a terminal before anything is deleted.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::model::{human_bytes, human_count};
use crate::plan::PlanTotals;
use crate::report::text::words::counted;

/// Whether somebody can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What a person who applies a plan is asked about. `undo` says what can be brought back; an upload that is aborted cannot.
pub fn what_goes(bucket: &str, totals: PlanTotals, undo: &str, stale_uploads: u64) -> String {
    let deleted = (totals.groups > 0).then(|| {
        format!(
            "{} objects ({}) in {} groups will be deleted from the bucket `{bucket}`; {undo}.",
            human_count(totals.objects),
            human_bytes(totals.bytes),
            human_count(totals.groups),
        )
    });
    let aborted = (stale_uploads > 0).then(|| {
        let uploads = counted(stale_uploads, "stale upload", "stale uploads");
        format!("Up to {uploads} under orphans will be aborted; what was uploaded of them cannot be brought back.")
    });
    deleted.into_iter().chain(aborted).collect::<Vec<_>>().join("\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_of_uploads_also_where_nothing_is_deleted() {
        let nothing = PlanTotals { groups: 0, objects: 0, bytes: 0 };
        let some = PlanTotals { groups: 1, objects: 2, bytes: 1024 };
        let both = what_goes("b", some, "nothing can be undone", 3);
        assert!(both.starts_with("2 objects (1.0 KiB) in 1 groups will be deleted from the bucket `b`"), "{both}");
        assert!(both.contains("nothing can be undone.\nUp to 3 stale uploads"), "{both}");
        assert!(what_goes("b", nothing, "", 1).starts_with("Up to 1 stale upload under orphans will be aborted"));
        assert!(!what_goes("b", some, "", 0).contains("upload"));
    }
}
