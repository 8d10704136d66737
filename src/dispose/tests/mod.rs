//! One disposal at a time: what goes, what stays and why, and how many times the primary was asked.

mod aside;
mod attempts;
mod bench;
mod clearing;
mod groups;
mod purged;
mod reaper;
mod settling;
