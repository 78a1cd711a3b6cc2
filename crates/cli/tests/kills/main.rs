//! Kills at random instants of the commit, with real processes: server, executor, agent, proxy and supervisor of a
//! whole shop. Every incident must end committed, undone or escalated, soon and truthfully, and no key may take
//! effect twice.
//!
//! A short form runs by default. `KILLS` and `SEED` choose how many kills and which; `cargo xtask
//! crash-matrix --real` sets them and prints the counts.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, reason = "the kills come at instants of the real clock")]
#![expect(clippy::print_stderr, reason = "the long form says what it does")]

mod audit;
mod script;
mod shop;
#[path = "../support/mod.rs"]
mod support;

use script::{Script, Victim};
use shop::Shop;
use std::collections::BTreeMap;

/// The short form ends with the incident that brings it to so many kills.
const KILLS: u32 = 2;
/// Its seed: an agent, an executor, the server and another executor in one commit.
const SEED: u64 = 197;
/// LIMIT: incidents in a row in which no kill met the commit.
const MISSES_MAX: u32 = 5;

#[test]
fn whatever_is_killed_during_a_commit_the_incident_ends_truthfully_and_nothing_is_done_twice() {
    let (kills, seed) = (number("KILLS", KILLS.into()), number("SEED", SEED));
    let mut counts = Counts::default();
    let mut shop: Option<Shop> = None;
    let (mut number, mut misses) = (0, 0);
    while u64::from(counts.kills) < kills {
        let script = Script::of(seed + number);
        number += 1;
        eprintln!("{script}");
        let _told = OnFailure(&script);
        let mut open = shop.take().unwrap_or_else(Shop::start);
        let incident = open.suffer(&script);
        audit::check(&open, &incident);
        eprintln!("  {incident}");
        misses = if incident.struck.is_empty() { misses + 1 } else { 0 };
        assert!(misses < MISSES_MAX, "{MISSES_MAX} incidents in a row without a commit to interrupt");
        counts.add(&incident);
        open.check_store(&incident);
        shop = if incident.is_ruined { open.end() } else { Some(open) };
    }
    shop.map(Shop::end);
    println!("{counts}");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var_os(name).map_or(default, |value| value.to_str().unwrap().parse().unwrap())
}

/// Says how to see a failure again.
struct OnFailure<'a>(&'a Script);

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again: cargo xtask crash-matrix --real --kills 1 --seed {}", self.0.seed);
        }
    }
}

/// What was done and how it ended.
#[derive(Default)]
struct Counts {
    kills: u32,
    missed: u32,
    incidents: u32,
    victims: BTreeMap<Victim, u32>,
    outcomes: BTreeMap<String, u32>,
    keys: usize,
}

impl Counts {
    fn add(&mut self, incident: &shop::Incident) {
        self.incidents += 1;
        self.missed += incident.missed;
        self.keys += incident.keys.get();
        for blow in &incident.struck {
            self.kills += 1;
            *self.victims.entry(blow.victim).or_default() += 1;
        }
        *self.outcomes.entry(incident.outcome.clone()).or_default() += 1;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |counts: Vec<String>| counts.join(" · ");
        let victims = self.victims.iter().map(|(victim, count)| format!("{victim} {count}"));
        let outcomes = self.outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}"));
        writeln!(f, "real kills     {} in {} incidents: {}", self.kills, self.incidents, list(victims.collect()))?;
        writeln!(f, "outcomes       {}", list(outcomes.collect()))?;
        writeln!(f, "keys           {} took effect, none twice; ledgers, start logs and records agree", self.keys)?;
        write!(f, "not counted    {} kills that came before the first or after the last record", self.missed)
    }
}
