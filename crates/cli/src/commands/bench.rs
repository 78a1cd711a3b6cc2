//! `stanch bench`: how fast a server is, and how fast recovery groups are found.

use super::run::abandoned;
use super::signals::Signals;
use crate::args::{BenchGroupsArgs, BenchProtocolArgs};
use crate::failure::Failure;
use ::lab::bench::{self, GroupsOptions, LOAD_CONNECTIONS_MAX, Options, Report, WINDOW_SECONDS_MAX, Workload};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Reads a number of connections.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn connections(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=LOAD_CONNECTIONS_MAX).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number from 1 to {LOAD_CONNECTIONS_MAX}"))
}

/// Reads seconds.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.05 && *seconds <= WINDOW_SECONDS_MAX);
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("`{text}` is not a number of seconds from 0.05 to {WINDOW_SECONDS_MAX}"))
}

/// `stanch bench protocol`
pub(crate) async fn protocol(args: BenchProtocolArgs) -> Result<u8, Failure> {
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let run = server::engine::Env::real().draw().map_err(|error| Failure::internal(error.to_string()))?;
    let run: String = run.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let directory = std::path::absolute(base)?.join(format!("stanch-bench-{run}"));
    std::fs::create_dir_all(&directory).map_err(|error| Failure::file(&directory, error))?;
    let options = options(&args, directory.clone(), format!("b{run}"))?;
    let mut signals = Signals::watch()?;
    let (over, measured) = tokio::sync::oneshot::channel();
    // A thread of its own, which ends with this process whatever it waits for; so do its servers, by a pipe of ours.
    std::thread::spawn(move || {
        let measured = bench::run(&options, &mut |said| eprintln!("{said}"));
        // Nobody waits any more if it was interrupted.
        let _ = over.send(measured);
    });
    let outcome = tokio::select! {
        measured = measured => measured,
        came = signals.any() => {
            let _ = std::fs::remove_dir_all(&directory);
            return Err(came.failure("its files are removed"));
        }
    };
    let _ = std::fs::remove_dir_all(&directory);
    let report = outcome.map_err(|_| Failure::internal("the measurement broke off"))?;
    let report = report.map_err(|error| {
        let next = "stanch serve --port 0, and its address as --url; or without --url";
        Failure::from(error).next(next)
    })?;
    show(&report, args.json);
    Ok(if report.is_right() { 0 } else { 3 })
}

fn options(args: &BenchProtocolArgs, directory: PathBuf, run: String) -> Result<Options, Failure> {
    let workloads = match args.workloads.as_slice() {
        [] => Workload::ALL.into_iter().filter(|workload| *workload != Workload::Memory).collect(),
        chosen => chosen.to_vec(),
    };
    Ok(Options {
        url: args.url.clone(),
        pid: args.pid,
        workloads,
        connections: args.conns.clone(),
        window: args.secs,
        promises: args.promises,
        program: std::env::current_exe()?,
        directory,
        run,
    })
}

fn show(report: &Report, as_json: bool) {
    if as_json {
        out!("{}", serde_json::to_string(report).unwrap_or_default());
    } else {
        out!("{}", bench::text(report).trim_end());
    }
}

/// `stanch bench groups`
pub(crate) fn groups(args: &BenchGroupsArgs) -> Result<u8, Failure> {
    let options = if args.quick { GroupsOptions::QUICK } else { GroupsOptions::FULL };
    let options = GroupsOptions { seeds: args.seeds.unwrap_or(options.seeds), ..options };
    let report = bench::groups(&options, &mut |said| eprintln!("{said}"))?;
    if args.json {
        out!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        out!("{}", bench::groups_text(&report).trim_end());
    }
    Ok(0)
}

/// `stanch bench echo`
pub(crate) async fn echo() -> Result<u8, Failure> {
    tokio::select! {
        () = abandoned(true) => Ok(0),
        served = bench::echo(|url| out!("{}", json!({ "url": url }))) => {
            served?;
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_seconds_have_bounds() {
        assert_eq!(connections("32"), Ok(32));
        assert_eq!(connections(&LOAD_CONNECTIONS_MAX.to_string()), Ok(LOAD_CONNECTIONS_MAX));
        for wrong in ["0", "-1", "x", &(LOAD_CONNECTIONS_MAX + 1).to_string()] {
            assert!(connections(wrong).is_err(), "{wrong}");
        }
        assert_eq!(window("0.2"), Ok(Duration::from_millis(200)));
        for wrong in ["0", "-1", "NaN", "inf", &(WINDOW_SECONDS_MAX + 1.0).to_string()] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }
}
