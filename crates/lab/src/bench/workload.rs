//! What the connections of a load ask.

use super::requests;

/// Tasks in one heartbeat.
const HEARTBEAT_TASKS: usize = 20;
/// Promises that each connection of the `get` workload reads in turn.
const GET_PROMISES: u64 = 500;

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Promises are created.
    Create,
    /// Promises are read.
    Get,
    /// Promises are created and settled in turn.
    CreateSettle,
    /// Tasks are created and fulfilled in turn.
    TaskCreateFulfill,
    /// Steps of held tasks: a promise created and settled under the task's fence, in turn.
    Step,
    /// Leases of twenty tasks are extended by one request.
    Heartbeat20,
    /// How soon a connected worker is told of a task, beside load.
    Execute,
    /// How fast a worker that joins is told of much waiting work.
    Backlog,
    /// How soon a worker that joins is told of one waiting task.
    Join,
    /// What a step costs as one workflow grows.
    LongWorkflow,
    /// How soon another worker is offered what a dead one held.
    Takeover,
    /// What many pending promises weigh, and how long a restart with them takes.
    Memory,
}

impl Workload {
    /// All, in the order in which they are run; [`Workload::Memory`] is run only when it is named.
    pub const ALL: [Workload; 12] = [
        Workload::Create,
        Workload::Get,
        Workload::CreateSettle,
        Workload::TaskCreateFulfill,
        Workload::Step,
        Workload::Heartbeat20,
        Workload::Execute,
        Workload::Backlog,
        Workload::Join,
        Workload::LongWorkflow,
        Workload::Takeover,
        Workload::Memory,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Workload::Create => "create",
            Workload::Get => "get",
            Workload::CreateSettle => "create_settle",
            Workload::TaskCreateFulfill => "task_create_fulfill",
            Workload::Step => "step",
            Workload::Heartbeat20 => "heartbeat20",
            Workload::Execute => "execute",
            Workload::Backlog => "backlog",
            Workload::Join => "join",
            Workload::LongWorkflow => "long_workflow",
            Workload::Takeover => "takeover",
            Workload::Memory => "memory",
        }
    }

    /// The workload of that name.
    ///
    /// # Errors
    /// There is none; the message names all.
    pub fn from_name(name: &str) -> Result<Workload, String> {
        let names = Workload::ALL.map(Workload::name).join(", ");
        let found = Workload::ALL.into_iter().find(|workload| workload.name() == name);
        found.ok_or_else(|| format!("there is no workload `{name}`; there are {names}"))
    }

    /// Whether it is many connections asking as fast as they are answered.
    pub(crate) fn is_load(self) -> bool {
        matches!(
            self,
            Workload::Create
                | Workload::Get
                | Workload::CreateSettle
                | Workload::TaskCreateFulfill
                | Workload::Step
                | Workload::Heartbeat20
        )
    }
}

/// The requests of one load.
pub(super) struct Script {
    workload: Workload,
    /// `run.connection`, for each connection.
    prefixes: Vec<String>,
    /// The tasks of each connection's heartbeat.
    tasks: Vec<Vec<String>>,
    id: String,
}

/// Writes one body, as [`super::drive::Next`] says.
pub(super) type Prepare = Box<dyn FnMut(usize, u64, &mut Vec<u8>) -> bool>;

impl Script {
    pub(super) fn new(workload: Workload, run: &str, connections: usize) -> Script {
        let prefixes: Vec<String> = (0..connections).map(|connection| format!("{run}.{connection}")).collect();
        let of = |prefix: &String| (0..HEARTBEAT_TASKS).map(|task| format!("{prefix}.{task}")).collect();
        let tasks = prefixes.iter().map(of).collect();
        Script { workload, prefixes, tasks, id: String::new() }
    }

    /// What has to exist before the load begins.
    pub(super) fn preparation(&self) -> Option<Prepare> {
        let (workload, prefixes) = (self.workload, self.prefixes.clone());
        let count = match workload {
            Workload::Get => GET_PROMISES,
            Workload::Step => 1,
            Workload::Heartbeat20 => HEARTBEAT_TASKS as u64,
            _ => return None,
        };
        Some(Box::new(move |connection, n, body| {
            let Some(prefix) = prefixes.get(connection).filter(|_| n < count) else { return false };
            match workload {
                Workload::Get => requests::create(&format!("{prefix}.{n}"), body),
                Workload::Step => requests::task_create(prefix, prefix, "bench", body),
                _ => requests::task_create(&format!("{prefix}.{n}"), prefix, "bench", body),
            }
            true
        }))
    }

    /// The body of request `n` of a connection.
    pub(super) fn body(&mut self, connection: usize, n: u64, body: &mut Vec<u8>) {
        use std::fmt::Write as _;
        let Some(prefix) = self.prefixes.get(connection) else { return };
        let number = match self.workload {
            Workload::Create => n,
            Workload::Get => n % GET_PROMISES,
            _ => n / 2,
        };
        self.id.clear();
        // Writing to memory cannot fail.
        let _ = write!(self.id, "{prefix}.{number}");
        let (id, first) = (self.id.as_str(), n.is_multiple_of(2));
        match self.workload {
            Workload::Create => requests::create(id, body),
            Workload::Get => requests::get(id, body),
            Workload::CreateSettle if first => requests::create(id, body),
            Workload::CreateSettle => requests::settle(id, body),
            Workload::TaskCreateFulfill if first => requests::task_create(id, prefix, "bench", body),
            Workload::TaskCreateFulfill => requests::task_fulfill(id, 1, body),
            Workload::Step if first => requests::fence_create(prefix, id, None, body),
            Workload::Step => requests::fence_settle(prefix, id, body),
            _ => {
                let tasks = self.tasks.get(connection).map_or(&[][..], Vec::as_slice);
                requests::heartbeat(prefix, tasks.iter().map(String::as_str), body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_again() {
        for workload in Workload::ALL {
            assert_eq!(Workload::from_name(workload.name()), Ok(workload));
        }
        assert!(Workload::from_name("fly").unwrap_err().contains("heartbeat20"));
    }
}
