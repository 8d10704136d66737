//! What can be brought back, in words: at the start of a deletion, when a person is asked, and in every report. Pure.
//!
//! Invariant: where nothing can be undone it is said so; a command to undo is named only where it has something to work with.

use super::text::words::{counted, moment};
use super::{QuarantineFolder, Restored, Summary};
use crate::model::{Versioning, human_bytes, human_count, visible};

/// Whether what is about to be deleted can come back.
pub fn before(quarantine: Option<&QuarantineFolder>, versioning: Versioning) -> String {
    match (quarantine, versioning) {
        (Some(folder), _) => format!(
            "each object is copied to `{}/{}` first, `restore` brings it back for {}, and the space is freed only after that",
            visible(&folder.bucket),
            visible(&folder.prefix),
            keep(folder)
        ),
        (None, Versioning::Unversioned | Versioning::Unknown) => {
            "the bucket keeps no old versions: nothing can be undone".to_owned()
        }
        (None, Versioning::Enabled) => {
            "the bucket keeps old versions: objects are marked, nothing is freed, and `restore` brings them back"
                .to_owned()
        }
        (None, Versioning::Suspended) => {
            "versioning is suspended: older versions stay, and what was written since cannot be brought back".to_owned()
        }
    }
}

fn keep(folder: &QuarantineFolder) -> String {
    let seconds = i64::try_from(folder.keep_s).ok().and_then(chrono::Duration::try_seconds);
    super::text::words::span(seconds.unwrap_or(chrono::Duration::MAX))
}

/// The command that brings back what the run of this report deleted.
fn command(summary: &Summary) -> String {
    format!("orphan-sweeper restore --run {}", summary.run_id)
}

/// Whether what was deleted, or may be, can be brought back, and whether it frees anything; `None` where nothing may go.
pub fn undo(summary: &Summary) -> Option<String> {
    let is_done = summary.deletion.is_some_and(|deletion| deletion.deleted > 0 || deletion.unconfirmed > 0);
    if summary.restore.is_some() || !is_done && summary.groups.eligible == 0 {
        return None;
    }
    if let Some(folder) = &summary.quarantine {
        return Some(in_quarantine(summary, folder, is_done));
    }
    Some(match (summary.target.versioning, is_done) {
        (Versioning::Unversioned, true) => {
            "The bucket keeps no versions: what was deleted cannot be brought back.".to_owned()
        }
        (Versioning::Unversioned, false) => "The bucket keeps no versions: a deletion cannot be undone.".to_owned(),
        (Versioning::Enabled, true) => format!(
            "The bucket keeps versions: what was deleted is only marked, and nothing is freed until the bucket's lifecycle \
             removes its old versions. Until then `{}` brings it back.",
            command(summary)
        ),
        (Versioning::Enabled, false) => {
            "The bucket keeps versions: a deletion only marks, `restore` brings it back, and nothing is freed until the \
             bucket's lifecycle removes the old versions."
                .to_owned()
        }
        (Versioning::Suspended, _) => "Versioning of the bucket is suspended: a deletion adds a marker, older versions stay \
             and are not freed, and what was written since cannot be brought back."
            .to_owned(),
        (Versioning::Unknown, _) => {
            "The store did not say whether the bucket keeps versions: take it that a deletion cannot be undone.".to_owned()
        }
    })
}

fn in_quarantine(summary: &Summary, folder: &QuarantineFolder, is_done: bool) -> String {
    if !is_done {
        return format!(
            "A deletion copies every object aside first: `restore` brings it back for {}, and the space is freed only after \
             that, by `sweep`.",
            keep(folder)
        );
    }
    let kept = i64::try_from(folder.keep_s).ok().and_then(chrono::Duration::try_seconds);
    let until = kept.and_then(|kept| summary.finished_at.checked_add_signed(kept));
    let until = until.map_or("its time is over".to_owned(), moment);
    format!(
        "A copy of what was deleted lies in {}/{}. Until {until} `{}` brings it back; then `sweep` frees the space.",
        visible(&folder.bucket),
        visible(&folder.prefix),
        command(summary)
    )
}

/// What was freed of quarantines whose time is over, and what waits; `None` where there is nothing to say.
pub fn reaped(summary: &Summary) -> Option<String> {
    let reaped = summary.reaped.as_ref()?;
    if let Some(why) = &reaped.held_by {
        return Some(format!("Quarantine: nothing of it was emptied: {}.", visible(why)));
    }
    let mut said = Vec::new();
    if reaped.objects > 0 {
        said.push(format!("{} freed ({})", counted(reaped.objects, "copy", "copies"), human_bytes(reaped.bytes)));
    }
    if reaped.failed > 0 {
        said.push(format!("{} could not be deleted", human_count(reaped.failed)));
    }
    if reaped.waiting > 0 {
        let stays = "past its time, kept: its id is live again or held (`restore` brings it back), or it is not ours";
        said.push(format!("{} {stays}", human_count(reaped.waiting)));
    }
    if let Some(next) = reaped.next_at {
        said.push(format!("the next may go at {}", moment(next)));
    }
    (!said.is_empty()).then(|| format!("Quarantine: {}.", said.join("; ")))
}

/// What was brought back, or can be, in a sentence.
pub fn restored(restore: &Restored, is_dry_run: bool) -> String {
    if is_dry_run {
        let objects = counted(restore.objects, "object", "objects");
        return format!("{objects} ({}) can be looked for and brought back", human_bytes(restore.bytes));
    }
    let of = format!("{} of {}", human_count(restore.restored), counted(restore.objects, "object", "objects"));
    let was = if restore.objects == 1 { "was" } else { "were" };
    let others = [(restore.skipped, "left alone"), (restore.failed, "failed")];
    let others = others.into_iter().filter(|(count, _)| *count > 0);
    let older = match restore.perhaps_older {
        0 => String::new(),
        older => format!(", {} of them perhaps older than what was deleted", human_count(older)),
    };
    let brought = [format!("{of} {was} brought back{older}")].into_iter();
    let all: Vec<String> =
        brought.chain(others.map(|(count, word)| format!("{} {word}", human_count(count)))).collect();
    format!("{} (restored.csv)", all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::samples;
    use crate::report::{Deletion, Reaped};

    fn folder() -> QuarantineFolder {
        QuarantineFolder { bucket: "b".into(), prefix: "quarantine/r/".into(), keep_s: 30 * 86_400 }
    }

    #[test]
    fn where_nothing_can_be_undone_it_is_said() {
        for versioning in [Versioning::Unversioned, Versioning::Unknown] {
            assert!(before(None, versioning).contains("nothing can be undone"));
        }
        let mut summary = samples::applied(&[]);
        assert!(undo(&summary).expect("a note").contains("cannot be brought back"));
        summary.target.versioning = Versioning::Unknown;
        assert!(undo(&summary).expect("a note").contains("cannot be undone"));
    }

    #[test]
    fn where_something_can_the_command_to_type_is_there() {
        let mut summary = samples::applied(&[]);
        let command = format!("`orphan-sweeper restore --run {}`", summary.run_id);
        summary.target.versioning = Versioning::Enabled;
        let note = undo(&summary).expect("a note");
        assert!(note.contains(&command) && note.contains("lifecycle"), "{note}");
        summary.target.versioning = Versioning::Unversioned;
        summary.quarantine = Some(folder());
        let note = undo(&summary).expect("a note");
        assert!(note.contains(&command) && note.contains("b/quarantine/r/") && !note.contains("cannot"), "{note}");
        summary.deletion = None;
        summary.groups.eligible = 1;
        let note = undo(&summary).expect("a note");
        assert!(note.contains("brings it back for 30 days") && !note.contains(&command), "{note}");
        assert!(before(summary.quarantine.as_ref(), Versioning::Unversioned).contains("freed only after that"));
    }

    #[test]
    fn what_lies_in_quarantine_is_not_called_freed() {
        let mut summary = samples::applied(&[]);
        summary.quarantine = Some(folder());
        summary.deletion = Some(Deletion { requested: 2, deleted: 2, bytes_quarantined: 2048, ..Deletion::default() });
        let report = samples::report(&summary, &[], &[]);
        let text = crate::report::text::summary(&report, crate::report::text::Style::Plain);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("2.0 KiB in quarantine, freed after the reaper"), "{text}");
        assert!(text.contains("(2.0 KiB), to be freed after the reaper"), "{text}");
        assert!(!text.contains("KiB freed"), "{text}");
    }

    #[test]
    fn the_reaper_says_what_it_freed_and_what_waits() {
        let mut summary = samples::audit(&[]);
        assert_eq!(reaped(&summary), None);
        summary.reaped = Some(Reaped::default());
        assert_eq!(reaped(&summary), None);
        summary.reaped = Some(Reaped { objects: 1, bytes: 1024, waiting: 3, ..Reaped::default() });
        let said = reaped(&summary).expect("something");
        assert!(said.starts_with("Quarantine: 1 copy freed (1.0 KiB); 3 past its time, kept"), "{said}");
        summary.reaped = Some(Reaped { held_by: Some("the stop file".into()), ..Reaped::default() });
        assert_eq!(reaped(&summary).as_deref(), Some("Quarantine: nothing of it was emptied: the stop file."));
    }

    #[test]
    fn a_restore_says_what_came_back_and_what_did_not() {
        let mut restore = Restored {
            of_run: uuid::Uuid::nil(),
            objects: 5,
            bytes: 9,
            restored: 3,
            skipped: 1,
            failed: 1,
            perhaps_older: 0,
        };
        assert_eq!(restored(&restore, true), "5 objects (9 B) can be looked for and brought back");
        assert_eq!(
            restored(&restore, false),
            "3 of 5 objects were brought back; 1 left alone; 1 failed (restored.csv)"
        );
        restore.perhaps_older = 2;
        assert!(restored(&restore, false).contains("brought back, 2 of them perhaps older than what was deleted;"));
    }
}
