//! What the server acknowledged is there after every kill, every loss of power and every failing disk.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "counts and times are part of what these tests are for")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod full;
#[cfg(target_os = "linux")]
mod incident;
mod kill;
mod load;
#[cfg(target_os = "linux")]
mod power;
