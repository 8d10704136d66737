//! The program: its arguments in, its exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    orphan_sweeper::main_with(std::env::args_os(), &orphan_sweeper::Host::of_process())
}
