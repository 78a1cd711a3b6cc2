//! The answer in words.

use crate::failure::Failure;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What a server or a file answers, as far as it is shown to people.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    restart: Vec<String>,
    waves: Vec<Vec<Vec<String>>>,
    drain_first: Vec<Drain>,
    order: Vec<Order>,
    root_share_ppm: u32,
    root_share_exact: bool,
    hard_callers: Option<Vec<String>>,
    hard_callers_at_least: u32,
    loss_requests: u64,
    level: String,
    reasons: Vec<String>,
    trials: u64,
    surprises: u64,
    miss_in_ppm: u32,
    miss_out_ppm: u32,
    alpha_ppm: u32,
    coverage_ppm: u32,
    declared_and_seen: u32,
    declared: u32,
    services: Option<u64>,
    edges: Option<u64>,
    covered_ms: Option<u64>,
    import: Option<Import>,
}

#[derive(Debug, Deserialize)]
struct Drain {
    service: String,
    fan_in: u32,
    fan_in_max: u32,
    inflight_milli: u64,
}

#[derive(Debug, Deserialize)]
struct Order {
    first: String,
    then: String,
    relation: String,
    hardness: Option<String>,
    kind: Option<String>,
    calls: u64,
    last_seen_ms_ago: Option<u64>,
    source: String,
}

#[derive(Debug, Deserialize)]
struct Import {
    kept: u64,
    traces: u64,
    #[serde(default)]
    repaired: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    orphans: u64,
    duplicates: u64,
}

impl Answer {
    pub(super) fn deserialize(value: &Value) -> Result<Answer, Failure> {
        <Answer as Deserialize>::deserialize(value)
            .map_err(|error| Failure::internal(format!("the answer cannot be read: {error}")))
    }

    /// One line after the other; names come from traces, so nothing in them reaches a terminal as a command.
    pub(super) fn lines(&self) -> Vec<String> {
        let rows =
            [self.restarted(), self.drain_first(), self.order(), self.hurt(), self.sure(), self.traces()].concat();
        let labelled = rows.iter().map(|(label, text)| format!("{label:<13}{text}"));
        labelled.map(|line| plain(&line)).collect()
    }

    /// What restarts.
    pub(super) fn restart(&self) -> &[String] {
        &self.restart
    }

    /// Who fails meanwhile; none when there are too many to name.
    pub(super) fn callers(&self) -> &[String] {
        self.hard_callers.as_deref().unwrap_or_default()
    }

    fn restarted(&self) -> Vec<Row> {
        if self.restart.len() == 1 {
            return vec![("restart", format!("{}   alone: nothing is coupled with it", self.restart.join(", ")))];
        }
        let wave = |wave: &Vec<Vec<String>>| wave.iter().map(|block| block.join(" + ")).collect::<Vec<_>>().join(", ");
        let waves = self.waves.iter().map(wave).collect::<Vec<_>>().join(", then ");
        let text =
            format!("{}   together, in {}: {waves}", self.restart.join(", "), count(self.waves.len() as u64, "wave"));
        let mut rows = vec![("restart", text)];
        let coupled = self.order.iter().filter(|order| order.relation == "coupled with");
        let mut pairs: Vec<_> = coupled
            .map(|order| (order.first.as_str().min(&order.then), order.first.as_str().max(&order.then), &order.source))
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        rows.extend(pairs.iter().map(|(one, other, source)| ("", format!("{one} and {other} are coupled ({source})"))));
        rows
    }

    fn drain_first(&self) -> Vec<Row> {
        if self.drain_first.is_empty() {
            return vec![("drain first", "nothing".to_owned())];
        }
        let line = |drain: &Drain| {
            let (callers, inflight) =
                (count(drain.fan_in.into(), "caller"), count(drain.inflight_milli.div_ceil(1_000), "request"));
            format!("{}   {callers} (drained above {}), about {inflight} in flight", drain.service, drain.fan_in_max)
        };
        labelled("drain first", self.drain_first.iter().map(line))
    }

    fn order(&self) -> Vec<Row> {
        let shown: Vec<&Order> = self.order.iter().filter(|order| order.relation != "coupled with").collect();
        if shown.is_empty() {
            return vec![("order", "nothing has to be up first".to_owned())];
        }
        let head = |order: &Order| {
            let stays = if self.restart.contains(&order.first) { "" } else { " (stays up)" };
            format!("{}{stays} before {}", order.first, order.then)
        };
        let width = shown.iter().map(|order| head(order).chars().count()).max().unwrap_or(0);
        let line = |order: &&Order| format!("{:<width$}   {}", head(order), self.because(order));
        labelled("order", shown.iter().map(line))
    }

    fn because(&self, order: &Order) -> String {
        let Some(hardness) = &order.hardness else { return format!("{} ({})", order.relation, order.source) };
        let hard = match hardness.as_str() {
            "unknown" => "needed, as far as known",
            "hard" => "needed",
            other => other,
        };
        if order.calls == 0 {
            return format!("{hard}: {}", order.source);
        }
        let end = if self.import.is_some() { "before the end" } else { "ago" };
        let last = order.last_seen_ms_ago.map(|ms| format!(", last {} {end}", duration(ms))).unwrap_or_default();
        let kind = order.kind.as_deref().unwrap_or_default();
        format!("{hard}: {}{last}", count(order.calls, &format!("{kind} call")))
    }

    fn hurt(&self) -> Vec<Row> {
        let callers = match &self.hard_callers {
            None => format!("at least {}, too many to name", number(self.hard_callers_at_least.into())),
            Some(names) if names.is_empty() => "none: no service fails with it".to_owned(),
            Some(names) => format!("{} (fail while it is out): {}", names.len(), names.join(", ")),
        };
        let most = if self.root_share_exact { "" } else { "at most " };
        let lost = count(self.loss_requests, "request");
        let blast = format!(
            "{most}{} of requests from outside go through it · about {lost} lost by one restart",
            up(self.root_share_ppm)
        );
        vec![("hard callers", callers), ("blast", blast)]
    }

    fn sure(&self) -> Vec<Row> {
        let surprises = if self.surprises == 0 { "no surprise".to_owned() } else { count(self.surprises, "surprise") };
        let confidence = base::Ratio::clamped(1_000_000_u64.saturating_sub(self.alpha_ppm.into()));
        let mut rows = vec![
            ("sure", format!("{}: {} watched, {surprises}", self.level, count(self.trials, "request"))),
            (
                "",
                format!(
                    "unseen: at most {} of ways in and {} of calls out are not in the traces ({confidence} confidence)",
                    up(self.miss_in_ppm),
                    up(self.miss_out_ppm)
                ),
            ),
        ];
        rows.extend(self.reasons.iter().map(|reason| ("", format!("not full: {reason}{}", meaning(reason)))));
        rows.push(("", format!("{} of spans joined", down(self.coverage_ppm))));
        if self.declared > 0 {
            rows.push((
                "",
                format!("{} of {} seen", self.declared_and_seen, count(self.declared.into(), "declared edge")),
            ));
        }
        rows
    }

    fn traces(&self) -> Vec<Row> {
        let Some(import) = &self.import else { return Vec::new() };
        let of = |number: Option<u64>, what: &str| count(number.unwrap_or(0), what);
        let mut text = format!("{}, {}", of(self.services, "service"), of(self.edges, "edge"));
        text += &format!(" from {}", count(import.kept, "span"));
        if import.traces > 0 {
            text += &format!(" of {}", count(import.traces, "request"));
        }
        text += &format!(" within {}", duration(self.covered_ms.unwrap_or(0)));
        let notes = [
            ("duplicate left out", "duplicates left out", import.duplicates),
            ("parent missing", "parents missing", import.orphans),
        ];
        for (one, many, how_many) in notes.iter().filter(|(_, _, how_many)| *how_many > 0) {
            text += &format!("; {} {}", number(*how_many), if *how_many == 1 { one } else { many });
        }
        let mut rows = vec![("traces", text)];
        for (what, reasons) in [("repaired", &import.repaired), ("dropped", &import.dropped)] {
            let named: Vec<String> =
                reasons.iter().map(|(reason, how_many)| format!("{} {reason}", number(*how_many))).collect();
            if !named.is_empty() {
                rows.push(("", format!("{what}: {}", named.join(", "))));
            }
        }
        rows
    }
}

/// A text without characters that a terminal obeys.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

type Row = (&'static str, String);

/// The label stands at the first of several lines.
fn labelled(label: &'static str, lines: impl Iterator<Item = String>) -> Vec<Row> {
    lines.enumerate().map(|(index, line)| (if index == 0 { label } else { "" }, line)).collect()
}

/// What a reason's word means, for who meets it the first time.
fn meaning(reason: &str) -> &'static str {
    match reason.rsplit(": ").next().unwrap_or_default() {
        "immature" => " (too few requests watched to bound what was not seen by 1%)",
        "blind" => " (almost nothing watched, and no topology file names it)",
        "stale" => " (the spans are too old or cover too short a time)",
        "coverage" => " (too many spans without their parents)",
        "suspected" => " (an earlier answer missed a dependency of it)",
        _ => "",
    }
}

/// A bound, rounded up to a hundredth of a percent.
pub(super) fn up(ppm: u32) -> String {
    base::Ratio::clamped(u64::from(ppm).div_ceil(100) * 100).to_string()
}

/// A share, rounded down to a hundredth of a percent.
pub(super) fn down(ppm: u32) -> String {
    base::Ratio::clamped(u64::from(ppm) / 100 * 100).to_string()
}

/// `1 call`, `2,439 calls`.
pub(super) fn count(how_many: u64, what: &str) -> String {
    format!("{} {what}{}", number(how_many), if how_many == 1 { "" } else { "s" })
}

/// Digits in groups of three.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let from_end = |index: usize| digits.len() - index;
    let comma = |index| if index > 0 && from_end(index) % 3 == 0 { "," } else { "" };
    digits.chars().enumerate().map(|(index, digit)| format!("{}{digit}", comma(index))).collect()
}

/// A time in the unit that fits.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
