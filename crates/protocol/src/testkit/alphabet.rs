//! A few requests and sweeps over two promises of one call tree and two workers, small enough that every sequence of
//! them can be tried.

use base::{Millis, Timestamp};

use super::{Deed, Place, World};
use crate::request::{Callback, Create, FenceAction, Request, Resolution, Settle, TaskRef};
use crate::state::Value;
use crate::tags::{EXTERNAL, TARGET, TIMER};

/// When promises are due, counted from the beginning.
const DEADLINE: Millis = Millis(40);
const LEASE: Millis = Millis(8);
/// The two promises: one call tree.
const A: &str = "a";
const B: &str = "a.b";

/// One letter: time passes and something is done.
#[derive(Clone, Debug)]
pub struct Letter {
    wait: u64,
    deed: fn(&World) -> Deed,
}

impl Letter {
    /// Lets time pass and reads the letter against the state.
    #[must_use]
    pub fn deed(&self, world: &mut World) -> Deed {
        world.now = world.now.plus(Millis(self.wait));
        (self.deed)(world)
    }
}

fn version(world: &World, id: &str) -> u64 {
    world.memory.task(id).map_or(0, |task| task.version)
}

fn create(id: &str, name: &str, tag: &str) -> Deed {
    let tags = [(name.to_owned(), tag.to_owned())].into();
    let timeout_at = Timestamp(1_000).plus(DEADLINE);
    Deed::Ask(Request::PromiseCreate(Create { id: id.into(), timeout_at, param: Value::default(), tags }))
}

fn settle(id: &str) -> Settle {
    Settle { id: id.into(), state: Resolution::Resolved, value: Value::text("v") }
}

fn acquire(world: &World, id: &str, pid: &str) -> Deed {
    let (version, pid) = (version(world, id), pid.to_owned());
    Deed::Ask(Request::TaskAcquire { id: id.into(), version, pid, ttl: LEASE })
}

fn fence(world: &World, id: &str, action: FenceAction) -> Deed {
    Deed::Ask(Request::TaskFence { id: id.into(), version: version(world, id), action })
}

/// What may be done at each place of a sequence by who chooses there.
#[must_use]
pub fn alphabet(place: Place) -> Vec<Letter> {
    let inside = [
        Letter { wait: 0, deed: |_| Deed::Reclaim("p") },
        Letter { wait: 0, deed: |_| Deed::Deliver },
        Letter { wait: 40, deed: |_| Deed::Sweep(1) },
    ];
    let inside = inside.into_iter().filter(|_| place == Place::Inside);
    everywhere().into_iter().chain(inside).collect()
}

fn everywhere() -> Vec<Letter> {
    let later = |wait, deed| Letter { wait, deed };
    let now = |deed| later(0, deed);
    vec![
        now(|_| create(A, TARGET, "poll://any@g")),
        now(|_| create(B, TARGET, "poll://any@g")),
        now(|_| create(B, EXTERNAL, "true")),
        now(|_| create(B, TIMER, "true")),
        now(|_| Deed::Ask(Request::PromiseGet { id: A.into() })),
        now(|_| Deed::Ask(Request::PromiseSettle(settle(A)))),
        now(|_| Deed::Ask(Request::PromiseSettle(settle(B)))),
        now(|_| Deed::Ask(Request::RegisterCallback(Callback { awaited: B.into(), awaiter: A.into() }))),
        now(|_| Deed::Ask(Request::RegisterListener { awaited: B.into(), address: "poll://uni@g/p".into() })),
        now(|world| acquire(world, A, "p")),
        now(|world| acquire(world, A, "q")),
        now(|world| acquire(world, B, "q")),
        now(|world| Deed::Ask(Request::TaskRelease(TaskRef { id: A.into(), version: version(world, A) }))),
        now(|world| {
            let version = version(world, A);
            Deed::Ask(Request::TaskFulfill { id: A.into(), version, action: settle(A) })
        }),
        now(|world| {
            let version = version(world, A);
            let actions = vec![Callback { awaited: B.into(), awaiter: A.into() }];
            Deed::Ask(Request::TaskSuspend { id: A.into(), version, actions })
        }),
        now(|world| fence(world, A, FenceAction::Settle(settle(B)))),
        now(|world| match create(B, EXTERNAL, "true") {
            Deed::Ask(Request::PromiseCreate(create)) => fence(world, A, FenceAction::Create(create)),
            other => other,
        }),
        later(4, |world| {
            let tasks = vec![TaskRef { id: A.into(), version: version(world, A) }];
            Deed::Ask(Request::TaskHeartbeat { pid: "p".into(), tasks })
        }),
        now(|_| Deed::Ask(Request::TaskHalt { id: A.into() })),
        now(|_| Deed::Ask(Request::TaskContinue { id: A.into() })),
        later(8, |_| Deed::Sweep(u32::MAX)),
        later(40, |_| Deed::Sweep(u32::MAX)),
    ]
}

/// What sequences begin with, as places in the alphabet, so that short ones come far: nothing, two promises, a task
/// that is held, a task that waits.
#[must_use]
pub fn beginnings() -> Vec<Vec<usize>> {
    let suspended = vec![0, 2, 9, 14];
    vec![Vec::new(), vec![0, 2], vec![0, 1, 9], suspended]
}
