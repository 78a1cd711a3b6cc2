//! The results as a Markdown table.

use super::results::{Results, Row};
use std::fmt::Write as _;

/// Where and when the runs were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub processors: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The day, `2026-11-20`.
    pub day: String,
}

const HEAD: [&str; 11] = [
    "fault",
    "seed",
    "verdict",
    "outcome",
    "plan",
    "revisions",
    "client well after",
    "repeated",
    "bundle",
    "client after",
    "runs",
];

impl Machine {
    /// This machine, on the day of `now_ms`.
    #[must_use]
    pub fn here(now_ms: i64) -> Machine {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        Machine { processors, memory_mib: kib / 1_024, day: day(now_ms.div_euclid(86_400_000)) }
    }
}

/// The table with a line on where it comes from, and below it what was wrong and which cells ran more than once.
#[must_use]
pub fn text(results: &Results, machine: &Machine) -> String {
    let newest = results.newest();
    let correct = newest.iter().filter(|(row, _)| row.verdict.correct).count();
    let Machine { processors, memory_mib, day } = machine;
    let mut out =
        format!("{correct} of {} correct · {day} · {processors} processors, {memory_mib} MiB\n\n", newest.len());
    let rows: Vec<[String; 11]> = newest.iter().map(|(row, runs)| columns(row, *runs)).collect();
    table(&mut out, &rows);
    let wrong = newest.iter().map(|(row, _)| *row).filter(|row| !row.verdict.correct);
    notes(&mut out, "Wrong:", wrong);
    notes(&mut out, "Earlier runs of the same cells:", results.older().into_iter());
    out
}

fn notes<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = &'a Row>) {
    for (n, row) in rows.enumerate() {
        if n == 0 {
            let _ = writeln!(out, "\n{title}\n");
        }
        let said = match (&row.verdict.objections[..], row.why.as_str()) {
            ([], why) => format!("correct: {why}"),
            (objections, "") => objections.join("; "),
            (objections, why) => format!("{} (it said: {why})", objections.join("; ")),
        };
        let _ = writeln!(out, "- {} seed {}: {said}", row.fault, row.seed);
    }
}

fn columns(row: &Row, runs: usize) -> [String; 11] {
    let verdict = &row.verdict;
    let client = verdict.client;
    let well = verdict.recovered_ms.map_or("never".to_owned(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100));
    let after = match client.seconds {
        0 => "not seen".to_owned(),
        seconds => format!("{} of {} bad, {} shed in {seconds} s", client.bad, client.sent, client.shed),
    };
    let bundle = !verdict.objections.iter().any(|objection| objection.contains("evidence"));
    [
        row.fault.clone(),
        row.seed.to_string(),
        if verdict.correct { "correct" } else { "WRONG" }.to_owned(),
        row.outcome.clone().unwrap_or_else(|| "no end".to_owned()),
        if row.plan.is_empty() { "none".to_owned() } else { row.plan.replace("->", "→").replace(" ; ", " · ") },
        row.revisions.join(", "),
        well,
        verdict.repeated.to_string(),
        if bundle && row.outcome.is_some() { "verified" } else { "no" }.to_owned(),
        after,
        runs.to_string(),
    ]
}

fn table(out: &mut String, rows: &[[String; 11]]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(HEAD.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "| {} |", padded.join(" | "));
    };
    line(&mut HEAD.iter().map(|head| (*head).to_owned()));
    line(&mut widths.iter().map(|width| "-".repeat(*width)));
    for row in rows {
        line(&mut row.iter().cloned());
    }
}

/// The civil date of a day since the Unix epoch, counted in 400-year eras that begin on the first of March.
fn day(days: i64) -> String {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{Client, Verdict};
    use super::*;

    #[test]
    fn days_are_civil_dates() {
        let dates = [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_777, "2026-11-20")];
        for (days, date) in dates {
            assert_eq!(day(days), date);
        }
        assert_eq!(day(-1), "1969-12-31");
    }

    #[test]
    fn the_table_says_what_was_wrong_and_what_ran_before() {
        let client = Client { seconds: 6, sent: 600, bad: 1, shed: 0, p99_ms: 120 };
        let verdict = Verdict { correct: true, client, recovered_ms: Some(15_740), ..Verdict::default() };
        let good = Row {
            fault: "hang".into(),
            seed: 1,
            outcome: Some("committed".into()),
            plan: "ratelimit gateway->checkout 35% 120s ; restart payments@1 ; restore".into(),
            revisions: vec!["r1 K207".into(), "r2 preview".into(), "r3 ok".into()],
            verdict,
            ..Row::default()
        };
        let objections = vec!["it ended undone (exit Some(40))".to_owned()];
        let verdict = Verdict { objections, ..Verdict::default() };
        let bad = Row { verdict, why: "the plan was undone".into(), ..good.clone() };
        let mut results = Results::default();
        results.add(bad.clone(), None).unwrap();
        results.add(good, None).unwrap();
        results.add(Row { fault: "slow".into(), ..bad }, None).unwrap();
        let machine = Machine { processors: 2, memory_mib: 8_192, day: "2026-11-20".into() };
        let shown = text(&results, &machine);
        assert!(shown.starts_with("1 of 2 correct · 2026-11-20 · 2 processors, 8192 MiB\n"), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[2].starts_with("| fault | seed | verdict | outcome   | plan "), "{shown}");
        for part in
            ["| hang  | 1    | correct |", "→checkout 35% 120s · restart", "15.7 s", "1 of 600 bad, 0 shed in 6 s"]
        {
            assert!(lines[4].contains(part), "{part}: {}", lines[4]);
        }
        assert!(lines[5].contains("| slow  | 1    | WRONG   |"), "{shown}");
        let wrong = "Wrong:\n\n- slow seed 1: it ended undone (exit Some(40)) (it said: the plan was undone)";
        assert!(shown.contains(wrong), "{shown}");
        assert!(shown.contains("Earlier runs of the same cells:\n\n- hang seed 1: it ended undone"), "{shown}");
        assert_eq!(lines.iter().map(|line| line.matches('|').count()).filter(|count| *count > 0).min(), Some(12));
    }
}
