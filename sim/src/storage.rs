//! A store whose every commit is a point at which a process can be killed.

use crate::crash::{Edge, Hooks, Kind};
use server::engine::Env;
use store::{Batch, Contents, Error, Sqlite, Store};

/// SQLite under the eyes of the hooks.
pub(crate) struct Watched {
    inner: Sqlite,
    env: Env,
    hooks: Hooks,
}

impl Watched {
    pub(crate) fn new(inner: Sqlite, env: Env, hooks: Hooks) -> Watched {
        Watched { inner, env, hooks }
    }

    /// A killed process writes nothing, and is told nothing of what it wrote.
    fn living(&self) -> Result<(), Error> {
        if self.env.is_ended() { Err(Error::Refused("the process was killed")) } else { Ok(()) }
    }
}

impl Store for Watched {
    fn load(&mut self) -> Result<Contents, Error> {
        self.inner.load()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let promises = batch.rows.iter().map(|(_, row)| format!("{}={:?}", row.promise.id, row.promise.state));
        let what = format!("{} +{} records", promises.collect::<Vec<_>>().join(" "), batch.entries.len());
        self.living()?;
        self.hooks.reach(Kind::Write, Edge::Before, &what);
        self.living()?;
        self.inner.commit(batch)?;
        self.hooks.reach(Kind::Write, Edge::After, &what);
        self.living()
    }
}
