//! Every bound of the protocol, checked where a request enters; a request beyond one is a 400.

/// Longest promise id, in bytes.
pub const ID_BYTES_MAX: usize = 2_048;
/// Longest address of a worker or listener, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 2_048;
/// Longest process id of a worker, in bytes.
pub const PID_BYTES_MAX: usize = 1_024;
/// Most tags of one promise.
pub const TAGS_MAX: usize = 128;
/// Longest tag, key and value together, in bytes.
pub const TAG_BYTES_MAX: usize = 8_192;
/// Most headers of one value.
pub const HEADERS_MAX: usize = 128;
/// Largest value, headers and data together, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// Most promises awaited by one suspension.
pub const SUSPEND_ACTIONS_MAX: usize = 10_000;
/// Most tasks named by one heartbeat.
pub const HEARTBEAT_TASKS_MAX: usize = 10_000;
/// Most callbacks held by one promise; one more is a 429.
pub const CALLBACKS_MAX: usize = 65_536;
/// Most listeners held by one promise; one more is a 429.
pub const LISTENERS_MAX: usize = 4_096;
/// Largest page of a search.
pub const SEARCH_LIMIT_MAX: u64 = 1_000;
/// Most rows that one search looks at; what it answers may then be a short page with a cursor.
pub const SEARCH_ROWS_MAX: usize = 100_000;
/// Longest cron expression, in bytes.
pub const CRON_BYTES_MAX: usize = 256;
/// Most schedules.
pub const SCHEDULES_MAX: usize = 100_000;
/// Most promises handed to a worker with its task; it asks for the rest.
pub const PRELOAD_COUNT_MAX: usize = 1_000;
/// Most bytes of promises handed to a worker with its task.
pub const PRELOAD_BYTES_MAX: usize = 1_024 * 1_024;
