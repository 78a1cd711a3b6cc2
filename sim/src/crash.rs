//! Where a process is killed: every durable write and every actuation is a point, with an edge before and after.

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Victim {
    /// The server, and with it the executor that hangs on its lifeline; started again on the same directory.
    Server,
    /// The executor; the server starts another.
    Executor,
    /// The agent that is asked first; nobody starts it again.
    Agent,
    /// The traffic proxy; nobody starts it again.
    Proxy,
    /// The supervisor, and with it everything that it started; nobody starts it again.
    Supervisor,
}

/// What kind of thing happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The store makes a group durable.
    Write,
    /// A call or a compensation takes effect at the target.
    Actuation,
}

/// On which side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// It has not happened.
    Before,
    /// It has happened, and nobody was told.
    After,
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crash {
    /// Of whom.
    pub victim: Victim,
    /// At what.
    pub kind: Kind,
    /// At which one, counted from 1 since the incident was opened.
    pub n: u32,
    /// On which side of it.
    pub edge: Edge,
}

impl Victim {
    /// All of them.
    pub const ALL: [Victim; 5] = [Victim::Server, Victim::Executor, Victim::Agent, Victim::Proxy, Victim::Supervisor];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Victim::Server => "server",
            Victim::Executor => "executor",
            Victim::Agent => "agent",
            Victim::Proxy => "proxy",
            Victim::Supervisor => "supervisor",
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Write => "write",
            Kind::Actuation => "actuation",
        };
        let edge = match self.edge {
            Edge::Before => "before",
            Edge::After => "after",
        };
        write!(f, "{}:{edge}:{kind}:{}", self.victim.word(), self.n)
    }
}

impl std::str::FromStr for Crash {
    type Err = String;

    fn from_str(text: &str) -> Result<Crash, String> {
        let wrong = || format!("`{text}` is not VICTIM:before|after:write|actuation:N");
        let parts: Vec<&str> = text.split(':').collect();
        let &[victim, edge, kind, n] = parts.as_slice() else { return Err(wrong()) };
        Ok(Crash {
            victim: Victim::ALL.into_iter().find(|known| known.word() == victim).ok_or_else(wrong)?,
            edge: match edge {
                "before" => Edge::Before,
                "after" => Edge::After,
                _ => return Err(wrong()),
            },
            kind: match kind {
                "write" => Kind::Write,
                "actuation" => Kind::Actuation,
                _ => return Err(wrong()),
            },
            n: n.parse().map_err(|_| wrong())?,
        })
    }
}

/// Told of every point; kills when the one it waits for is reached. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks(Arc<Mutex<State>>);

type Kill = Box<dyn FnMut(Victim) + Send>;

#[derive(Default)]
struct State {
    crash: Option<Crash>,
    counting: bool,
    writes: u32,
    actuations: u32,
    fired: bool,
    kill: Option<Kill>,
    trace: Vec<String>,
    is_live: bool,
}

impl State {
    fn add(&mut self, line: String) {
        if self.is_live {
            // Nobody may be reading any more.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        self.trace.push(line);
    }
}

impl Hooks {
    /// Tells everything that happens as it happens.
    pub(crate) fn live(&self) {
        self.lock().is_live = true;
    }

    /// Kills in this way when `crash` is reached.
    pub(crate) fn arm(&self, crash: Option<Crash>, kill: Kill) {
        let mut state = self.lock();
        state.crash = crash;
        state.kill = Some(kill);
        state.counting = true;
    }

    /// Counts nothing more and kills nobody.
    pub(crate) fn disarm(&self) {
        let mut state = self.lock();
        state.counting = false;
        state.kill = None;
    }

    /// Something is about to happen, or has.
    pub(crate) fn reach(&self, kind: Kind, edge: Edge, what: &str) {
        let (victim, mut kill) = {
            let mut state = self.lock();
            if !state.counting {
                return;
            }
            let count = match kind {
                Kind::Write => &mut state.writes,
                Kind::Actuation => &mut state.actuations,
            };
            if edge == Edge::Before {
                *count += 1;
            }
            let n = *count;
            let line = format!("{kind:?} {n} {edge:?} {what}");
            state.add(line);
            let due = state.crash.filter(|crash| (crash.kind, crash.edge, crash.n) == (kind, edge, n) && !state.fired);
            let Some(crash) = due else { return };
            state.fired = true;
            state.add(format!("kill {}", crash.victim.word()));
            (crash.victim, state.kill.take())
        };
        if let Some(kill) = &mut kill {
            kill(victim);
        }
    }

    /// Writes and actuations so far, and whether the kill happened.
    pub(crate) fn counts(&self) -> (u32, u32, bool) {
        let state = self.lock();
        (state.writes, state.actuations, state.fired)
    }

    /// Adds a line to what happened.
    pub(crate) fn note(&self, line: String) {
        self.lock().add(line);
    }

    /// Everything that happened, in order.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("crash", &self.crash).field("fired", &self.fired).finish_non_exhaustive()
    }
}
