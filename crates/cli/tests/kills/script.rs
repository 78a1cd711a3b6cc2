//! What is killed and when: all of it follows from a seed.

use crate::support::Random;
use std::time::Duration;

/// About how long an undisturbed commit takes from its first record to its last.
const COMMIT: Duration = Duration::from_millis(12_000);
/// How much every kill before it makes the commit longer, about.
const DELAY: Duration = Duration::from_millis(1_000);
/// LIMIT: kills in one incident.
const BLOWS_MAX: usize = 4;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Server,
    Executor,
    Agent,
    Proxy,
    Supervisor,
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blow {
    pub(crate) victim: Victim,
    /// After the first record of the commit.
    pub(crate) after: Duration,
}

/// One incident's kills.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    /// In order; nothing follows one that nobody replaces.
    pub(crate) blows: Vec<Blow>,
}

impl Victim {
    /// Each as often as it is drawn: what cannot be replaced ends the shop, and a new one takes long.
    const DRAWN: [Victim; 10] = [
        Victim::Server,
        Victim::Server,
        Victim::Server,
        Victim::Executor,
        Victim::Executor,
        Victim::Executor,
        Victim::Agent,
        Victim::Agent,
        Victim::Proxy,
        Victim::Supervisor,
    ];

    /// Whether the shop is over with it.
    pub(crate) fn is_irreplaceable(self) -> bool {
        matches!(self, Victim::Proxy | Victim::Supervisor)
    }
}

impl std::fmt::Display for Victim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Victim::Server => "server",
            Victim::Executor => "executor",
            Victim::Agent => "agent",
            Victim::Proxy => "proxy",
            Victim::Supervisor => "supervisor",
        })
    }
}

impl Script {
    /// What follows from a seed: at least one kill.
    pub(crate) fn of(seed: u64) -> Script {
        let mut random = Random(seed);
        let mut victims = Vec::new();
        while victims.len() < BLOWS_MAX {
            let victim = Victim::DRAWN[random.index(Victim::DRAWN.len())];
            victims.push(victim);
            if victim.is_irreplaceable() {
                break;
            }
        }
        let last = COMMIT + DELAY * u32::try_from(victims.len() - 1).unwrap();
        let span = u64::try_from(last.as_micros()).unwrap();
        let mut instants: Vec<Duration> = victims.iter().map(|_| Duration::from_micros(random.below(span))).collect();
        instants.sort_unstable();
        let blows = victims.into_iter().zip(instants).map(|(victim, after)| Blow { victim, after });
        Script { seed, blows: blows.collect() }
    }
}

impl std::fmt::Display for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}:", self.seed)?;
        for Blow { victim, after } in &self.blows {
            write!(f, " {victim} after {:.3} s", after.as_secs_f64())?;
        }
        Ok(())
    }
}
