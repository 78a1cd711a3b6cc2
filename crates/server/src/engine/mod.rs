//! The engine: memory decides, SQLite remembers.
