//! What must be true after every incident: the ledgers of the targets, the services' own logs of their starts, the
//! outside client's record and the signed records are four witnesses that know nothing of each other.

use crate::script::{Blow, Script};
use crate::shop::{Incident, Shop, is_good};
use crate::support::{stanch, wait_for};
use base::canon::Canon as _;
use governance::record::Record;
use recovery::journal::Record as Line;
use server::process::ledger::{self, Entry, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Seconds in a row in which the client must be served well after a recovery that is said to have succeeded.
const GOOD_SECONDS: usize = 3;

/// What ledgers and start logs say.
#[derive(Default)]
pub(crate) struct Applied {
    /// By service.
    ledgers: BTreeMap<String, Vec<Entry>>,
    /// `service@replica` and key of every start.
    starts: Vec<(String, String)>,
}

impl Applied {
    pub(crate) fn read(dir: &Path) -> Applied {
        let mut found = Applied::default();
        for profile in &sandbox::profile::PROFILES {
            found.ledgers.insert(profile.name.to_owned(), ledger::read(dir, profile.name).unwrap());
            let starts = sandbox::starts::read(dir, profile.name).unwrap();
            let name = |replica: u32| format!("{}@{replica}", profile.name);
            found.starts.extend(starts.into_iter().map(|start| (name(start.replica), start.key)));
        }
        found
    }

    /// What came after `before`.
    fn since(mut self, before: &Applied) -> Applied {
        for (service, lines) in &mut self.ledgers {
            lines.drain(..before.ledgers.get(service).map_or(0, Vec::len));
        }
        let mut old = before.starts.clone();
        self.starts.retain(|start| match old.iter().position(|known| known == start) {
            Some(at) => {
                old.swap_remove(at);
                false
            }
            None => true,
        });
        self
    }

    fn lines(&self, outcome: Outcome) -> impl Iterator<Item = (&str, &Entry)> {
        let all =
            self.ledgers.iter().flat_map(|(service, lines)| lines.iter().map(move |line| (service.as_str(), line)));
        all.filter(move |(_, line)| line.outcome == outcome)
    }
}

/// The kernel's journal of an incident, with the time of every line.
fn journal(bundle: &Path) -> Vec<(i64, Line)> {
    let records = governance::bundle::records(&std::fs::read(bundle).unwrap()).unwrap();
    let line = |statement: &governance::record::Statement| match &statement.record {
        Record::Journal(journal) => {
            let value = base::canon::parse_object("journal", &journal.entry.0).unwrap();
            Some((statement.common.at.0, Line::from_value(value).unwrap()))
        }
        _ => None,
    };
    records.iter().filter_map(|(_, statement)| line(statement)).collect()
}

/// The kills between the commit's first record and its last, and how many of the script were not.
pub(crate) fn within_the_commit(bundle: &Path, script: &Script, done: Vec<(Blow, i64)>) -> (Vec<Blow>, u32) {
    let records = governance::bundle::records(&std::fs::read(bundle).unwrap()).unwrap();
    let of_commit = |record: &Record| matches!(record, Record::Arm(_) | Record::Journal(_));
    let times = records.iter().filter(|(_, statement)| of_commit(&statement.record));
    let times: Vec<i64> = times.map(|(_, statement)| statement.common.at.0).collect();
    let (first, last) = (times.iter().min().copied(), times.iter().max().copied());
    let met = |at: i64| first.is_some_and(|first| first <= at) && last.is_some_and(|last| at <= last);
    let struck: Vec<Blow> = done.into_iter().filter(|(_, at)| met(*at)).map(|(blow, _)| blow).collect();
    let missed = u32::try_from(script.blows.len() - struck.len()).unwrap();
    (struck, missed)
}

/// Everything, after one incident.
pub(crate) fn check(shop: &Shop, incident: &Incident) {
    let view = &incident.view;
    let exit = view["exit"].as_u64().unwrap();
    let trust = shop.dir.join("server/trust.keys");
    let verified =
        stanch(&["evidence", "verify", incident.bundle.to_str().unwrap(), "--trust", trust.to_str().unwrap()]);
    assert_eq!(verified.exit, 0, "{verified:?}");
    let journal = journal(&incident.bundle);
    // What was never begun may have been turned away in another way, too.
    let allowed = [("committed", 0), ("undone", 40), ("escalated", 20)];
    let ended = (incident.outcome.as_str(), exit);
    assert!(allowed.contains(&ended) || (journal.is_empty() && exit != 0), "{}", lines(incident));
    let now = Applied::read(&shop.dir);
    at_most_once(&now);
    let new = now.since(&shop.known);
    agree(&new, &journal, incident);
    incident.keys.set(new.lines(Outcome::Applied).map(|(_, line)| &line.key).collect::<BTreeSet<_>>().len());
    if incident.outcome == "committed" {
        is_recovered(shop, incident, &journal);
    }
    if ["committed", "undone"].contains(&ended.0) {
        let settings = wait_for("the proxy's settings", || Some(shop.proxy()?.settings));
        assert_eq!(settings, incident.settings, "what the plan imposed is lifted: {}", lines(incident));
    }
}

/// No key took effect twice, whichever incident it was of.
fn at_most_once(now: &Applied) {
    let applied = now.lines(Outcome::Applied).map(|(service, line)| (service.to_owned(), line.key.clone()));
    let started = now.starts.iter().filter(|(_, key)| key.contains('/')).cloned();
    for all in [applied.collect::<Vec<_>>(), started.collect()] {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = all.into_iter().filter(|one| !seen.insert(one.clone())).collect();
        assert!(twice.is_empty(), "took effect twice: {twice:?}");
    }
}

/// Ledgers, start logs and records tell one story.
fn agree(new: &Applied, journal: &[(i64, Line)], incident: &Incident) {
    let (mut announced, mut confirmed) = (BTreeSet::new(), BTreeSet::new());
    for (_, line) in journal {
        match line {
            Line::Intend(intend) => drop(announced.insert(intend.key.0.clone())),
            Line::UndoIntend(undo) => drop(announced.insert(undo.key.0.clone())),
            Line::Did(receipt) | Line::UndoDid(receipt) => drop(confirmed.insert(receipt.key.0.clone())),
            Line::Reconciled(settled) if settled.receipt.is_some() => drop(confirmed.insert(settled.key.0.clone())),
            _ => {}
        }
    }
    let applied: BTreeSet<String> = new.lines(Outcome::Applied).map(|(_, line)| line.key.clone()).collect();
    let begun: BTreeSet<String> = new.lines(Outcome::Begun).map(|(_, line)| line.key.clone()).collect();
    let started: BTreeSet<String> =
        new.starts.iter().map(|(_, key)| key.clone()).filter(|key| key.contains('/')).collect();
    let said = lines(incident);
    assert!(begun.is_subset(&announced), "{begun:?} without {announced:?}: {said}");
    assert!(applied.is_subset(&begun), "{applied:?} without {begun:?}: {said}");
    assert!(confirmed.is_subset(&applied), "{confirmed:?} without {applied:?}: {said}");
    assert!(started.is_subset(&begun), "{started:?} without {begun:?}: {said}");
    for (service, line) in new.lines(Outcome::Applied).filter(|(_, line)| line.action == "Restart") {
        for field in line.wanted.keys() {
            let instance = field.trim_start_matches("generation/");
            let own = new.starts.iter().filter(|(name, key)| name == instance && *key == line.key).count();
            assert_eq!(own, 1, "{service}: {field} under {}, by its own log: {said}", line.key);
        }
    }
}

/// A success that is said is one.
fn is_recovered(shop: &Shop, incident: &Incident, journal: &[(i64, Line)]) {
    let said = lines(incident);
    assert!(matches!(journal.last(), Some((_, Line::Finish(recovery::journal::Outcome::Committed)))), "{said}");
    let intended: BTreeSet<_> = journal.iter().filter_map(|(_, line)| intended(line)).collect();
    let done = journal.iter().filter(|(_, line)| matches!(line, Line::Done(_))).count();
    assert!(done >= 2 && done == intended.len(), "{done} of {intended:?}: {said}");
    assert!(!Path::new(&format!("/proc/{}", incident.broken)).exists(), "the broken process still runs: {said}");
    wait_for("a client that is served well", || {
        let seconds = shop.seconds(GOOD_SECONDS);
        (seconds.len() == GOOD_SECONDS && seconds.iter().all(is_good)).then_some(())
    });
    let status = shop.status().unwrap();
    assert!(status.instances.iter().all(|instance| instance.alive), "{status:?}");
}

fn intended(line: &Line) -> Option<&str> {
    match line {
        Line::Intend(intend) => Some(&intend.step),
        _ => None,
    }
}

fn lines(incident: &Incident) -> String {
    let lines = incident.view["lines"].as_array().unwrap();
    lines.iter().filter_map(|line| line.as_str()).collect::<Vec<_>>().join("\n")
}
