//! `stanch lab`: experiments on the sample shop.

use super::shop::{Shop, kind};
use super::signals::Signals;
use crate::args::{LabFaultsArgs, Seeds};
use crate::failure::Failure;
use ::lab::faults::{self, Cell, Machine, Results, Row};
use sandbox::fault::Fault;
use serde_json::json;
use std::path::Path;

/// Reads the seeds of an argument.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn seeds(text: &str) -> Result<Seeds, String> {
    faults::seeds(text).map(Seeds)
}

pub(crate) async fn faults(args: LabFaultsArgs) -> Result<u8, Failure> {
    let chosen: Vec<Fault> =
        if args.fault.is_empty() { Fault::ALL.to_vec() } else { args.fault.iter().copied().map(kind).collect() };
    let cells = chosen.iter().flat_map(|fault| args.seeds.0.iter().map(|seed| Cell { fault: *fault, seed: *seed }));
    let mut results = match &args.results {
        Some(file) => Results::open(file).map_err(|error| Failure::usage(error.to_string()))?,
        None => Results::default(),
    };
    let wanted: Vec<Cell> = cells.filter(|cell| args.again || !results.has(*cell)).collect();
    let program = std::env::current_exe()?;
    let base = match &args.data {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::temp_dir().join(format!("stanch-lab-{}", std::process::id())),
    };
    let mut signals = Signals::watch()?;
    for (n, cell) in (1..).zip(&wanted) {
        eprintln!("{n} of {}: {} seed {} …", wanted.len(), cell.fault.word(), cell.seed);
        let dir = base.join(format!("{}-{}-{}", cell.fault.word(), cell.seed, now_ms()));
        let row = tokio::select! {
            row = faults::run(&program, *cell, &dir) => row,
            came = signals.any() => {
                // The command that ran was killed just now; its shop notices and ends.
                let ended = if Shop::at(&dir).end().await { "the shop has ended" } else { "the shop has not ended" };
                if args.data.is_none() {
                    let _ = std::fs::remove_dir_all(&dir);
                    let _ = std::fs::remove_dir(&base);
                }
                return Err(came.failure(&format!("{ended}; {} of {} runs were judged", n - 1, wanted.len())));
            }
        };
        eprintln!("  {}", said(&row, &dir));
        if row.verdict.correct && args.data.is_none() {
            let _ = std::fs::remove_dir_all(&dir);
        }
        results.add(row, args.results.as_deref())?;
    }
    if args.data.is_none() {
        // It stays while the files of a wrong run are in it.
        let _ = std::fs::remove_dir(&base);
    }
    let correct = results.are_correct();
    if args.json {
        let shown = results.newest();
        let rows: Vec<_> = shown.iter().map(|(row, runs)| json!({ "run": row, "runs": runs })).collect();
        out!("{}", json!({ "correct": correct, "cells": rows }));
    } else {
        out!("{}", faults::text(&results, &Machine::here(now_ms())).trim_end());
    }
    Ok(if correct { 0 } else { 3 })
}

fn said(row: &Row, dir: &Path) -> String {
    let outcome = row.outcome.as_deref().unwrap_or("no end");
    if row.verdict.correct {
        format!("{outcome}, correct")
    } else {
        format!("{outcome}, WRONG: {}; its files are in {}", row.verdict.objections.join("; "), dir.display())
    }
}

fn now_ms() -> i64 {
    server::engine::Env::real().now().0
}
