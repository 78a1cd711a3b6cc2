//! The judge: what the product said against what was broken, what was started anew, and what the client got.

use sandbox::fault::Broken;
use sandbox::load::Row as Second;
use sandbox::profile::PROFILES;
use sandbox::{rollout, starts};
use serde::{Deserialize, Serialize};
use server::incidents::view::View;
use std::collections::BTreeMap;
use std::path::Path;

/// Seconds of the client's record after the end that a verdict needs at least.
const SECONDS_MIN: u64 = 4;

/// What the product says of its run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The incident as followed to its end.
    pub view: View,
    /// What the shop's side of the run wrote down.
    pub shop: Shop,
}

/// What the command that broke the shop wrote down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shop {
    /// What was broken.
    pub broken: Broken,
    /// When.
    pub broken_at_ms: i64,
    /// When the incident was over.
    pub over_at_ms: i64,
    /// Until when the shop ran on undisturbed.
    pub watched_until_ms: i64,
}

/// What really happened, read from the shop's own files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Every start after the first of each replica: `service@replica`, and the key it was started under.
    pub again: Vec<(String, String)>,
    /// The configuration in use at the end, by object.
    pub configs: BTreeMap<String, u32>,
    /// What became of the client's requests, second by second.
    pub seconds: Vec<Second>,
}

/// The client's record after the incident was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Whole seconds.
    pub seconds: u64,
    /// Requests sent in them.
    pub sent: u64,
    /// Failed, or later than the objective.
    pub bad: u64,
    /// Turned away.
    pub shed: u64,
    /// The worst second's 99th percentile.
    pub p99_ms: u64,
}

/// What the judge says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Nothing speaks against it.
    pub correct: bool,
    /// What does.
    pub objections: Vec<String>,
    /// The client's record after the end.
    pub client: Client,
    /// From the fault to the end of the client's last bad second; absent: it was never well again.
    pub recovered_ms: Option<u64>,
    /// Starts under one key beyond the first.
    pub repeated: u64,
}

impl Truth {
    /// Reads a shop's directory.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(dir: &Path) -> anyhow::Result<Truth> {
        let mut truth = Truth::default();
        for profile in &PROFILES {
            let again = starts::read(dir, profile.name)?.into_iter().filter(|start| start.generation > 1);
            truth.again.extend(again.map(|start| (format!("{}@{}", profile.name, start.replica), start.key)));
            if let Some(object) = profile.config
                && let Some(revision) = rollout::current(dir, object)?
            {
                truth.configs.insert(object.to_owned(), revision);
            }
        }
        let text = std::fs::read_to_string(dir.join("load.jsonl"))?;
        let whole = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        truth.seconds = whole.collect();
        Ok(truth)
    }

    fn after(&self, from_ms: i64, to_ms: i64) -> Client {
        let within =
            self.seconds.iter().filter(|second| second.second_ms >= from_ms && second.second_ms + 1_000 <= to_ms);
        within.fold(Client::default(), |sum, second| Client {
            seconds: sum.seconds + 1,
            sent: sum.sent + second.sent,
            bad: sum.bad + second.failed + second.late,
            shed: sum.shed + second.shed,
            p99_ms: sum.p99_ms.max(second.p99_ms),
        })
    }

    /// From the fault to the end of the client's last bad second before `to_ms`.
    fn recovered_ms(&self, broken_at_ms: i64, to_ms: i64) -> Option<u64> {
        let mut since = self
            .seconds
            .iter()
            .filter(|second| second.second_ms + 1_000 > broken_at_ms && second.second_ms + 1_000 <= to_ms);
        let is_bad = |second: &&Second| (second.failed + second.late + second.shed) * 100 >= second.sent.max(1);
        let (mut last_bad, mut last) = (None, None);
        for second in since.by_ref() {
            last = Some(second.second_ms);
            if is_bad(&second) {
                last_bad = Some(second.second_ms);
            }
        }
        if last_bad == last {
            return None;
        }
        let ended = last_bad.map_or(broken_at_ms, |second| second + 1_000);
        u64::try_from(ended - broken_at_ms).ok()
    }
}

/// Judges one run.
#[must_use]
pub fn judge(told: &Told, truth: &Truth) -> Verdict {
    let Shop { broken_at_ms, over_at_ms, watched_until_ms, .. } = told.shop;
    let mut objections = Vec::new();
    let mut keys: BTreeMap<&(String, String), u64> = BTreeMap::new();
    for start in &truth.again {
        *keys.entry(start).or_default() += 1;
    }
    let repeated: u64 = keys.values().map(|count| count - 1).sum();
    if repeated > 0 || told.view.commit.repeated > 0 {
        objections.push("an actuation was repeated".to_owned());
    }
    if !told.view.evidence.as_ref().is_some_and(|evidence| evidence.verified) {
        objections.push("its evidence does not verify".to_owned());
    }
    let client = truth.after(over_at_ms, watched_until_ms);
    match (told.view.outcome.as_deref(), told.view.exit) {
        (Some("committed"), Some(0)) => {
            objections.extend(wrong_action(&told.shop.broken, truth));
            objections.extend(unwell(client));
        }
        (Some("escalated"), Some(20)) => {
            objections.extend(untrue(&told.shop.broken, &told.view));
            objections.extend(touched_others(&told.shop.broken, truth));
        }
        (outcome, exit) => objections.push(format!("it ended {} (exit {exit:?})", outcome.unwrap_or("nowhere"))),
    }
    let recovered_ms = truth.recovered_ms(broken_at_ms, watched_until_ms);
    Verdict { correct: objections.is_empty(), objections, client, recovered_ms, repeated }
}

/// A commit must have acted on what was broken, and on nothing else.
fn wrong_action(broken: &Broken, truth: &Truth) -> Option<String> {
    let restarted: Vec<&str> = truth.again.iter().map(|(instance, _)| instance.as_str()).collect();
    let wanted: Vec<String> = broken.replica.iter().map(|replica| format!("{}@{replica}", broken.service)).collect();
    if restarted != wanted {
        return Some(format!("restarted {restarted:?}; broken was {wanted:?}"));
    }
    let config = broken.config.as_ref()?;
    let now = truth.configs.get(&config.object).copied().unwrap_or(0);
    (now != config.before).then(|| format!("{} is at revision {now}; good was {}", config.object, config.before))
}

/// A hand-off must not have restarted what was well.
fn touched_others(broken: &Broken, truth: &Truth) -> Option<String> {
    let name = broken.replica.map(|replica| format!("{}@{replica}", broken.service));
    let other = truth.again.iter().find(|(instance, _)| Some(instance) != name.as_ref());
    other.map(|(instance, _)| format!("restarted {instance}, which was well"))
}

/// A hand-off must name what is broken.
fn untrue(broken: &Broken, view: &View) -> Option<String> {
    let Some(why) = view.lines.iter().find(|line| line.starts_with("outcome")) else {
        return Some("the hand-off gives no reason".to_owned());
    };
    let culprit = broken.config.as_ref().map_or(broken.service.as_str(), |config| config.object.as_str());
    if !why.contains(culprit) {
        return Some(format!("the hand-off does not name {culprit}: {why}"));
    }
    let instance = broken.replica.map(|replica| format!("{}@{replica}", broken.service));
    let blamed = instances(why).find(|named| Some(*named) != instance.as_deref());
    blamed.map(|named| format!("the hand-off names {named}, which was well: {why}"))
}

/// The instances that a text names: `service@replica`.
fn instances(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '@'));
    words.filter(|word| {
        let number = word.split_once('@').map(|(_, number)| number);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn unwell(client: Client) -> Option<String> {
    if client.seconds < SECONDS_MIN {
        return Some(format!("the client's record covers only {} s after the end", client.seconds));
    }
    let bad = client.bad * 100 >= client.sent.max(1);
    (bad || client.shed > 0)
        .then(|| format!("after the end {} of {} requests were bad and {} shed", client.bad, client.sent, client.shed))
}

#[cfg(test)]
mod tests;
