//! `stanch`: recovery you can preview, prove and undo.
#![expect(clippy::print_stderr, reason = "a command-line tool says on stderr what is no data")]

/// A line on stdout. A reader that went away (`| head`) is no failure of ours.
macro_rules! out {
    ($($part:tt)*) => {{
        // The test harness keeps what is printed with the macro of that name alone.
        #[cfg(test)]
        println!($($part)*);
        #[cfg(not(test))]
        {
            use std::io::Write as _;
            let _ = writeln!(std::io::stdout(), $($part)*);
        }
    }};
}

/// WHY: what a request allocates is freed by the writer's thread; the system's allocator pays for that with locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod args;
mod commands;
mod failure;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::Failure::internal(format!("no runtime: {error}")).report(),
    };
    match runtime.block_on(Box::pin(commands::run(cli))) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}
