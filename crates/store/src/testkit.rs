//! Faults of a store, planted by hand: what a file can hold that breaks an invariant of the protocol.
//!
//! Timers are not stored: they follow from the rows when a file is read. So a missing timer is a row that names no
//! instant for it, and a stale one a second, older row of the same id.

use crate::Error;
use crate::sqlite::FILE_NAME;
use rusqlite::Connection;
use std::path::Path;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The invariant of the protocol's text that it breaks, by its name there.
    pub invariant: &'static str,
    /// The id that has to be named: one of [`IDS`].
    pub id: &'static str,
    /// What makes it.
    sql: &'static str,
}

/// The ids that a store must hold before faults are planted in it, and what each must be: a promise without a target
/// (`plain`), one that is settled, one that its deadline settled, and tasks in every state; `suspended` waits for
/// `suspended.awaited`, and the execute of `offered` is on its way.
pub const IDS: [&str; 8] =
    ["plain", "settled", "timedout", "offered", "acquired", "suspended", "suspended.awaited", "fulfilled"];

/// One fault for each of the thirteen invariants of the text, in its order.
pub const FAULTS: [Fault; 13] = [
    Fault {
        invariant: "orphan_invokes",
        id: "offered",
        sql: "UPDATE rows SET task_state = NULL, task_version = NULL, task_resumes = NULL, task_retry_at = NULL,
          task_attempts = NULL WHERE id = 'offered'",
    },
    // A deadline that is no instant arms nothing.
    Fault { invariant: "missing_ptimeout", id: "plain", sql: "UPDATE rows SET timeout_at = -1 WHERE id = 'plain'" },
    // The older of two rows still calls for a timer.
    Fault {
        invariant: "stale_ptimeout",
        id: "settled",
        sql: "INSERT INTO rows (seq, id, state, timeout_at, created_at, tags, callbacks, listeners)
          SELECT -seq - 1, id, 'pending', timeout_at, created_at, tags, callbacks, listeners
          FROM rows WHERE id = 'settled';
          UPDATE rows SET seq = seq + 1000000 WHERE seq >= 0;
          UPDATE rows SET seq = -seq WHERE seq < 0",
    },
    Fault {
        invariant: "timedout_settled_at_mismatch",
        id: "timedout",
        sql: "UPDATE rows SET settled_at = timeout_at - 1 WHERE id = 'timedout'",
    },
    Fault {
        invariant: "listener_for_settled_promise",
        id: "settled",
        sql: "UPDATE rows SET listeners = '[\"poll://uni@g/p\"]' WHERE id = 'settled'",
    },
    // A task is a part of its promise's row; what can outlive that row is the task's execute.
    Fault { invariant: "orphan_tasks", id: "offered", sql: "DELETE FROM rows WHERE id = 'offered'" },
    Fault {
        invariant: "pending_task_no_ttimeout",
        id: "offered",
        sql: "UPDATE rows SET task_retry_at = NULL WHERE id = 'offered'",
    },
    Fault {
        invariant: "acquired_task_no_lease",
        id: "acquired",
        sql: "UPDATE rows SET task_lease_at = NULL WHERE id = 'acquired'",
    },
    Fault {
        invariant: "suspended_no_callback",
        id: "suspended",
        sql: "UPDATE rows SET callbacks = '[]' WHERE id = 'suspended.awaited'",
    },
    Fault {
        invariant: "suspended_with_consumed_callbacks",
        id: "suspended",
        sql: "UPDATE rows SET task_resumes = '[\"suspended.awaited\"]' WHERE id = 'suspended'",
    },
    Fault {
        invariant: "suspended_task_has_ttimeout",
        id: "suspended",
        sql: "UPDATE rows SET task_retry_at = timeout_at WHERE id = 'suspended'",
    },
    Fault {
        invariant: "fulfilled_task_has_ttimeout",
        id: "fulfilled",
        sql: "UPDATE rows SET task_lease_at = timeout_at WHERE id = 'fulfilled'",
    },
    Fault {
        invariant: "callback_awaiter_no_target",
        id: "plain",
        sql: "UPDATE rows SET callbacks = '[\"plain\"]' WHERE id = 'suspended.awaited'",
    },
];

impl Fault {
    /// Plants it in the database of a data directory that nobody uses.
    ///
    /// # Errors
    /// The file cannot be written, or does not hold what the fault needs.
    pub fn plant(&self, directory: &Path) -> Result<(), Error> {
        let connection = Connection::open(directory.join(FILE_NAME))?;
        for id in IDS {
            let count: i64 = connection.query_row("SELECT count(*) FROM rows WHERE id = ?1", [id], |row| row.get(0))?;
            if count != 1 {
                return Err(Error::Refused("the store does not hold what the faults need"));
            }
        }
        connection.execute_batch(&format!("BEGIN; {}; COMMIT", self.sql))?;
        Ok(())
    }
}
