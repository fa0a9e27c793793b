//! The program `hrm`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: hrm::memory::Allocator = hrm::memory::Allocator;

fn main() -> ExitCode {
    hrm::cli::main()
}
