//! The printer: every parameter that differs from the parser's default.

use crate::isa::{Action, Limited, Rate, RestartStrategy, Restored, Revision, ScaleTo};
use crate::plan::{OnFail, Predicate, Step};
use base::Millis;

/// The steps in text form, keys included where they are not the positional ones.
#[must_use]
pub fn steps(list: &[Step]) -> String {
    let one = |(number, step): (usize, &Step)| {
        let positional = step.key.is_empty() || step.key == format!("s{number}");
        if positional { self::step(step) } else { format!("{}: {}", step.key, self::step(step)) }
    };
    (1..).zip(list).map(one).collect::<Vec<_>>().join(" ; ")
}

/// One step without its key.
#[must_use]
pub fn step(step: &Step) -> String {
    let mut out = action(&step.action);
    let list = |predicates: &[Predicate]| predicates.iter().map(Predicate::to_string).collect::<Vec<_>>().join(",");
    if !step.pre.is_empty() {
        out.push_str(&format!(" if {}", list(&step.pre)));
    }
    if !step.post.is_empty() {
        out.push_str(&format!(" until {}", list(&step.post)));
    }
    match &step.on_fail {
        OnFail::Undo => {}
        OnFail::UndoTo(key) => out.push_str(&format!(" else undo-to {key}")),
        other => out.push_str(&format!(" else {other}")),
    }
    out
}

/// One action.
#[must_use]
pub fn action(action: &Action) -> String {
    match action {
        Action::Restart { place, strategy, wave, surge, grace_ms, jitter_ms } => {
            let group = if *strategy == RestartStrategy::Group { " group" } else { "" };
            let wave = if *wave == 1 { String::new() } else { format!(" wave {wave}") };
            let surge = if *surge == 0 { String::new() } else { format!(" surge {surge}") };
            format!(
                "restart {place}{group}{wave}{surge}{}{}",
                optional("grace", *grace_ms),
                optional("jitter", *jitter_ms)
            )
        }
        Action::Drain { place, percent, mode, timeout_ms, ttl_ms } => {
            let percent = if *percent == 100 { String::new() } else { format!(" {percent}%") };
            format!("drain {place}{percent} {mode} {}{}", duration(*ttl_ms), optional("timeout", *timeout_ms))
        }
        Action::RestoreTraffic { of, ramp, ramp_ms } => restore(of, ramp, *ramp_ms),
        Action::CircuitBreak { edge, mode, fallback, ttl_ms } => {
            let fallback = fallback.as_ref().map(|name| format!(" fallback {name}")).unwrap_or_default();
            format!("break {edge} {mode}{fallback} {}", duration(*ttl_ms))
        }
        Action::RateLimit { what, rate, burst, priority, ttl_ms } => {
            let what = match what {
                Limited::Place(place) => place.to_string(),
                Limited::Edge(edge) => edge.to_string(),
            };
            let burst = burst.map(|burst| format!(" burst {burst}")).unwrap_or_default();
            let priority = priority.as_ref().map(|name| format!(" priority {name}")).unwrap_or_default();
            format!("ratelimit {what} {}{burst}{priority} {}", self::rate(*rate), duration(*ttl_ms))
        }
        Action::Scale { service, to, ttl_ms } => {
            let to = match to {
                ScaleTo::Exactly(count) => format!("={count}"),
                ScaleTo::More(count) => format!("+{count}"),
                ScaleTo::Fewer(count) => format!("-{count}"),
            };
            format!("scale {service} {to} {}", duration(*ttl_ms))
        }
        Action::RollbackConfig { kind, namespace, name, to } => {
            let to = match to {
                Revision::LastGood => "last-good",
                Revision::Named(name) => name,
            };
            format!("rollback {kind}/{namespace}/{name} to {to}")
        }
    }
}

/// A rate as written in a plan.
pub(crate) fn rate(rate: Rate) -> String {
    match rate {
        Rate::Percent(percent) => format!("{percent}%"),
        Rate::PerSecond(count) => format!("{count}rps"),
    }
}

fn restore(of: &Restored, ramp: &[u32], ramp_ms: Option<u64>) -> String {
    let of = match of {
        Restored::AllOpen => String::new(),
        Restored::Steps(keys) => format!(" {}", keys.join(",")),
        Restored::Weights(weights) => {
            let service = weights.first().map(|(place, _)| place.service()).unwrap_or_default();
            let list: Vec<String> = weights.iter().map(|(place, weight)| format!("{place}:{weight}")).collect();
            format!(" {service} weights {}", list.join(","))
        }
    };
    let usual = ramp == [25, 50, 100] && ramp_ms.is_none();
    let list: Vec<String> = ramp.iter().map(u32::to_string).collect();
    let ramp = if usual { String::new() } else { format!(" ramp {}", list.join(",")) };
    format!("restore{of}{ramp}{}", optional("every", ramp_ms))
}

fn optional(word: &str, ms: Option<u64>) -> String {
    ms.map(|ms| format!(" {word} {}", duration(ms))).unwrap_or_default()
}

/// WHY: plans are written in seconds, as their ttls are spoken of; `Millis` would print 120s as 2m.
fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { Millis(ms).to_string() }
}
