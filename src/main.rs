//! The program `hrm`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hrm::cli::main()
}
