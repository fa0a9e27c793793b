//! What goes wrong around a command, and what the command makes of it: damaged and lying files, places that other people
//! use, kills and full disks, signals and sockets. Each test tells what holds.

mod common;

#[path = "faults/files.rs"]
mod files;
#[path = "faults/places.rs"]
mod places;
#[path = "faults/procs.rs"]
mod procs;
