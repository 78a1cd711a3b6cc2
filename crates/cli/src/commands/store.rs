//! `init`, `doctor` and `config show`: what lies in a data directory.

use super::data_dir;
use super::show::table;
use crate::args::DataArgs;
use crate::failure::Failure;
use server::backup::Examined;
use server::config::{self, Flags};
use server::keys::InitError;

pub(crate) fn init(args: &DataArgs) -> Result<u8, Failure> {
    let data = data_dir(args.data.clone(), "server")?;
    let made = server::keys::init(&data).map_err(|error| {
        let exit = if matches!(error, InitError::File { .. }) { 2 } else { 1 };
        let next = "stanch init --data DIR, a directory of its own that can be written";
        Failure { exit, ..Failure::refused(error) }.next(next)
    })?;
    if args.json {
        out!("{}", serde_json::to_string(&made).map_err(anyhow::Error::from)?);
        return Ok(0);
    }
    let what = if made.made { "made keys and a first policy" } else { "already initialized; nothing was changed" };
    out!("{}: {what}", made.data);
    out!("  policy  {}   every class starts at `observe`: stanch records what it would do", made.policy);
    out!("  trust   {}   keep a copy elsewhere: `stanch evidence verify FILE --trust` pins these keys", made.trust);
    Ok(0)
}

/// Looks at everything in the store, beside the server that uses it too; says what it found. Exit 3 on a violation.
pub(crate) fn doctor(args: &DataArgs) -> Result<u8, Failure> {
    let data = data_dir(args.data.clone(), "server")?;
    if !data.join("stanch.db").exists() && !has_database(&data) {
        let text = format!("{} holds no store", data.display());
        return Err(Failure::usage(text).next("stanch doctor --data DIR, with the directory that `stanch serve` used"));
    }
    let examined = server::backup::examine(&data);
    let examined = examined.map_err(|error| Failure { exit: 3, ..Failure::refused(error) })?;
    report(args, &examined)
}

fn has_database(data: &std::path::Path) -> bool {
    let Ok(files) = std::fs::read_dir(data) else { return false };
    files
        .flatten()
        .any(|file| file.path().extension().is_some_and(|extension| extension == "db" || extension == "sqlite"))
}

fn report(args: &DataArgs, examined: &Examined) -> Result<u8, Failure> {
    let Examined { violations, log_entries: entries, is_in_use } = examined;
    if args.json {
        out!(
            "{}",
            serde_json::json!({
                "ok": violations.is_empty(), "violations": violations, "log_entries": entries, "in_use": is_in_use,
            })
        );
    } else if violations.is_empty() {
        let beside = if *is_in_use { "; looked at beside the server that uses it" } else { "" };
        out!("every invariant of the protocol holds; {entries} records in the evidence log, none altered{beside}");
    } else {
        for violation in violations {
            out!("VIOLATED {violation}");
        }
    }
    Ok(if violations.is_empty() { 0 } else { 3 })
}

pub(crate) fn config(args: &DataArgs) -> Result<u8, Failure> {
    let data = data_dir(args.data.clone(), "server")?;
    let loaded = config::load(&data, &Flags::default());
    let (settings, shown) = loaded.map_err(|error| {
        let file = data.join("config.toml");
        Failure::file(&file, error).next(format!("correct it, then stanch config show --data {}", data.display()))
    })?;
    if args.json {
        out!("{}", serde_json::json!({ "data": data, "settings": settings, "origins": shown }));
        return Ok(0);
    }
    let rows = shown.iter().map(|value| vec![value.key.clone(), value.value.clone(), value.origin.clone()]).collect();
    out!("{}", table(&["key", "value", "from"], rows));
    out!("data directory: {}   file: config.toml   environment: STANCH__SECTION__KEY", data.display());
    Ok(0)
}

#[cfg(test)]
mod tests;
