//! Observers in distinct failure domains: each answers from its own source whether a target is impaired.

use super::{Reading, RecordSecond, summarize};
use base::{Millis, Timestamp, canon::Canon as _};
use recovery::topology::{Observer, Topology};
use std::collections::BTreeSet;

/// One observer's answer about one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserverReading {
    /// The observer's name in the topology file.
    pub observer: String,
    /// Its failure domain.
    pub zone: String,
    /// Impaired, healthy, or unknown (`None`).
    pub impaired: Option<bool>,
    /// What it saw, in words.
    pub seen: String,
    /// Digest of the signals it read.
    pub signals: base::Digest,
}

/// When it began, and what said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onset {
    /// The earliest sign.
    pub at: Timestamp,
}

/// What one observer says. `depends` is the target with everything it calls; `impaired` what the spans say
/// misses its objective.
#[must_use]
pub fn observe(
    name: &str,
    observer: &Observer,
    reading: &Reading,
    depends: &BTreeSet<String>,
    impaired: Option<&BTreeSet<String>>,
    window: Millis,
) -> ObserverReading {
    let (answer, seen) = match observer.source.as_str() {
        "spans" => by_spans(depends, impaired),
        "probe" => by_probe(reading, depends),
        "record" => by_record(reading, window),
        other => (None, format!("no source `{other}`")),
    };
    let signals = base::Digest::of_object("signals", &seen.to_value().clone());
    ObserverReading { observer: name.to_owned(), zone: observer.zone.clone(), impaired: answer, seen, signals }
}

/// The earliest sign of trouble: an instance that stopped being ready, or the first of the client's bad seconds
/// that have lasted until now.
#[must_use]
pub fn onset(reading: &Reading, topology: &Topology) -> Option<Onset> {
    let unready = reading.status.iter().flat_map(|status| &status.instances).filter(|instance| !instance.ready);
    // A probe fails only after its period and timeout: the fault lies before the first failed answer.
    let probed = unready.map(|instance| {
        let probe = topology.service.get(&instance.service).and_then(|service| service.probe.as_ref());
        let late = probe.map_or(Millis(0), |probe| Millis(probe.every.0 + probe.timeout.0));
        Timestamp(instance.ready_since_ms).minus(late)
    });
    let recorded = reading.current_record().and_then(bad_since);
    probed.chain(recorded).min().map(|at| Onset { at })
}

fn by_spans(depends: &BTreeSet<String>, impaired: Option<&BTreeSet<String>>) -> (Option<bool>, String) {
    let Some(impaired) = impaired else { return (None, "no fresh spans".to_owned()) };
    let hit: Vec<&str> = depends.intersection(impaired).map(String::as_str).collect();
    if hit.is_empty() {
        (Some(false), "spans: every objective met".to_owned())
    } else {
        (Some(true), format!("spans: {} miss their objective", hit.join(", ")))
    }
}

fn by_probe(reading: &Reading, depends: &BTreeSet<String>) -> (Option<bool>, String) {
    let Some(status) = &reading.status else { return (None, "the supervisor does not answer".to_owned()) };
    let failing = status.instances.iter().filter(|i| !i.ready && depends.contains(&i.service));
    let names: Vec<String> = failing.map(actuators::control::Instance::name).collect();
    if names.is_empty() {
        (Some(false), "probes: every instance is ready".to_owned())
    } else {
        (Some(true), format!("probes: {} not ready", names.join(", ")))
    }
}

fn by_record(reading: &Reading, window: Millis) -> (Option<bool>, String) {
    let Some(record) = reading.current_record() else {
        let why = if reading.record.is_some() { "stopped" } else { "does not answer" };
        return (None, format!("the client's record {why}"));
    };
    // The newest second is still filling up.
    let to = Timestamp(record.last().map_or(0, |second| second.second_ms));
    let summary = summarize(record, to.minus(window), to);
    if summary.sent == 0 {
        return (None, "the client sent nothing".to_owned());
    }
    let impaired = summary.bad.saturating_mul(100) >= summary.sent;
    let share = summary.bad.saturating_mul(1_000) / summary.sent;
    // Where nothing is answered there is no latency either.
    let latency = if summary.p99_ms == 0 { String::new() } else { format!(", p99 {} ms", summary.p99_ms) };
    (Some(impaired), format!("client: {}.{}% of requests bad{latency}", share / 10, share % 10))
}

fn bad_since(record: &[RecordSecond]) -> Option<Timestamp> {
    let settled = record.split_last().map_or(&[][..], |(_, settled)| settled);
    let bad =
        |second: &&RecordSecond| second.sent > 0 && (second.failed + second.late).saturating_mul(100) >= second.sent;
    let run = settled.iter().rev().take_while(bad);
    run.last().map(|second| Timestamp(second.second_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::RECORD_BEHIND_MAX;
    use actuators::control::{Instance, Status};

    fn reading(failed: u64) -> Reading {
        let second = |n: i64, failed| RecordSecond {
            second_ms: n * 1_000,
            sent: 100,
            ok: 100 - failed,
            failed,
            ..RecordSecond::default()
        };
        let record = vec![second(1, 0), second(2, failed), second(3, failed), second(4, 0)];
        Reading { at: Timestamp(4_500), record: Some(record), ..Reading::default() }
    }

    fn observer(source: &str) -> Observer {
        Observer { source: source.into(), zone: "z1".into(), url: None }
    }

    #[test]
    fn a_source_that_does_not_answer_is_unknown_not_healthy() {
        let depends = BTreeSet::from(["a".to_owned()]);
        for source in ["spans", "probe", "record", "nonsense"] {
            let answer = observe("o", &observer(source), &Reading::default(), &depends, None, Millis(2_000));
            assert_eq!(answer.impaired, None, "{source}");
        }
    }

    #[test]
    fn a_record_that_stopped_is_unknown_and_no_onset() {
        let later = |ms: u64| Reading { at: Timestamp(4_000).plus(Millis(ms)), ..reading(50) };
        let judge = |reading: &Reading| {
            observe("o", &observer("record"), reading, &BTreeSet::new(), None, Millis(2_000)).impaired
        };
        let (current, stopped) = (later(RECORD_BEHIND_MAX.0), later(RECORD_BEHIND_MAX.0 + 1));
        assert_eq!((judge(&current), judge(&stopped)), (Some(true), None));
        assert_eq!(onset(&current, &Topology::default()), Some(Onset { at: Timestamp(2_000) }));
        assert_eq!(onset(&stopped, &Topology::default()), None);
    }

    #[test]
    fn each_source_sees_its_own_sign() {
        let depends = BTreeSet::from(["a".to_owned()]);
        let judge = |source: &str, reading: &Reading, impaired: &BTreeSet<String>| {
            observe("o", &observer(source), reading, &depends, Some(impaired), Millis(2_000)).impaired
        };
        let mut hung = reading(50);
        let instance = Instance { service: "a".into(), ready: false, ready_since_ms: 2_400, ..Instance::default() };
        hung.status = Some(Status { instances: vec![instance], ..Status::default() });
        for source in ["spans", "probe", "record"] {
            assert_eq!(judge(source, &hung, &depends), Some(true), "{source}");
        }
        let mut well = reading(0);
        well.status = Some(Status::default());
        for source in ["spans", "probe", "record"] {
            assert_eq!(judge(source, &well, &BTreeSet::new()), Some(false), "{source}");
        }
        assert_eq!(onset(&hung, &Topology::default()), Some(Onset { at: Timestamp(2_000) }));
        assert_eq!(onset(&well, &Topology::default()), None);
    }
}
