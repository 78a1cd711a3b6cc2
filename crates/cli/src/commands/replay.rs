//! `stanch replay`: the judgments of a bundle made again, without server or network.

use super::evidence::{pinned, read, unverified};
use crate::args::ReplayArgs;
use crate::failure::Failure;
use governance::bundle::{Judged, Judgment, Replay, Unsupported, Verdict, WhatIf, replay};
use serde_json::{Value, json};
use std::path::Path;

/// Exit 0 when everything is judged as it was, 3 when not, 50 when the bundle does not verify.
pub(crate) fn run(args: &ReplayArgs) -> Result<u8, Failure> {
    let bytes = read(&args.file)?;
    let trust = pinned(args.trust.as_deref())?;
    let policy = args.policy.as_deref().map(policy).transpose()?;
    let replay = replay(&bytes, trust.as_ref()).map_err(|error| {
        if args.json {
            out!(
                "{}",
                json!({ "verified": false, "code": error.code.to_string(), "member": error.member, "why": error.why })
            );
        }
        unverified(&args.file, &error)
    })?;
    let other = policy.as_ref().map(|policy| replay.under(policy));
    if args.json {
        out!("{}", rendered(&replay, other.as_ref()));
    } else {
        let keys = args.trust.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        out!("{}", replay.verified.first_line(&keys));
        say(&replay);
        if let (Some(other), Some(policy)) = (&other, &policy) {
            say_other(other.as_ref(), &policy.name);
        }
    }
    if let Some(Err(why)) = other {
        return Err(Failure::usage(format!("not supported: {} {why}", why.code()))
            .next("the same command without --policy, or with a policy that differs in limits of the decision alone"));
    }
    Ok(if replay.is_same() { 0 } else { 3 })
}

fn policy(path: &Path) -> Result<governance::policy::Policy, Failure> {
    let loaded = server::keys::load_policy(path);
    Ok(loaded.map_err(|error| Failure::usage(format!("{:#}", anyhow::Error::from(error))))?.0)
}

fn say(replay: &Replay) {
    for Judged { index, judgment, said, verdict } in &replay.judged {
        let word = match verdict {
            Verdict::Same => "same",
            Verdict::Different(_) => "DIFFERENT",
            Verdict::NotMade(_) => "NOT MADE AGAIN",
        };
        out!("record {index:>5}  {:<9} {word:<10} {said}", judgment.to_string());
        match verdict {
            Verdict::Same => {}
            Verdict::Different(difference) => {
                out!("              {}: on record {}, now {}", difference.field, difference.recorded, difference.now);
            }
            Verdict::NotMade(why) => out!("              {why}"),
        }
    }
    let (decisions, checks) = (replay.count(Judgment::Decision), replay.count(Judgment::Check));
    let end = if replay.is_same() { "all the same bytes" } else { "NOT the same" };
    out!("made again     {decisions} decisions from their inputs, {checks} kernel checks with their groups: {end}");
    let rest = replay.verified.records.saturating_sub(replay.judged.len() as u64);
    out!("verified only  {rest} other records: votes, previews, steps, convergence, seal");
}

fn say_other(other: Result<&Vec<WhatIf>, &Unsupported>, name: &str) {
    out!("what if        policy {name} had decided; nothing of this happened, and each decision stands by itself");
    let Ok(decisions) = other else { return };
    for what_if in decisions {
        let WhatIf { index, recorded, decided } = what_if;
        if !what_if.is_changed() {
            out!("record {index:>5}  no change  {}", decided.sentence());
            continue;
        }
        out!("record {index:>5}  on record  {} · {}", recorded.sentence(), recorded.authority);
        out!("              what if    {} · {}", decided.sentence(), decided.authority);
        for reason in what_if.lost() {
            out!("              without    {reason}");
        }
        for reason in what_if.gained() {
            out!("              with       {reason}");
        }
    }
    out!("               checks, previews and invariants stand as recorded; no fix was searched for a new breach");
}

fn rendered(replay: &Replay, other: Option<&Result<Vec<WhatIf>, Unsupported>>) -> Value {
    let judged = replay.judged.iter().map(|judged| {
        let mut shown = json!({
            "index": judged.index, "judgment": judged.judgment.word(), "said": judged.said,
            "same": judged.verdict == Verdict::Same,
        });
        match &judged.verdict {
            Verdict::Same => {}
            Verdict::Different(difference) => {
                shown["difference"] =
                    json!({ "field": difference.field, "recorded": difference.recorded, "now": difference.now });
            }
            Verdict::NotMade(why) => shown["not_made"] = json!(why),
        }
        shown
    });
    let mut shown = json!({
        "verified": true, "pinned": replay.verified.is_pinned, "incident": replay.verified.incident,
        "same": replay.is_same(), "judged": judged.collect::<Vec<_>>(),
    });
    match other {
        None => {}
        Some(Err(why)) => {
            shown["what_if"] = json!({ "supported": false, "code": why.code(), "why": why.to_string() });
        }
        Some(Ok(decisions)) => {
            let one = |what_if: &WhatIf| {
                json!({
                    "index": what_if.index, "changed": what_if.is_changed(),
                    "recorded": { "outcome": what_if.recorded.outcome.word(), "sentence": what_if.recorded.sentence() },
                    "decided": { "outcome": what_if.decided.outcome.word(), "sentence": what_if.decided.sentence() },
                    "lost": what_if.lost(), "gained": what_if.gained(),
                })
            };
            let decisions: Vec<Value> = decisions.iter().map(one).collect();
            shown["what_if"] = json!({ "supported": true, "decisions": decisions });
        }
    }
    shown
}
