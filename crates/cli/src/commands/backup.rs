//! `stanch backup` and `stanch restore`: everything durable in one file, and back.

use super::data_dir;
use crate::args::{BackupArgs, RestoreArgs};
use crate::failure::Failure;
use server::backup::{BackupError, FetchError, Held};
use std::path::{Path, PathBuf};

/// `stanch backup`
pub(crate) async fn backup(args: BackupArgs) -> Result<u8, Failure> {
    let to = absolute(&args.to)?;
    let held = match &args.server {
        Some(url) => server::backup::fetch(url, &to).await.map_err(|error| match error {
            FetchError::Backup(error) => refused(error, &to),
            FetchError::Server { .. } => Failure::internal(format!("{:#}", anyhow::Error::from(error)))
                .next("stanch backup --data DIR, on the server's machine, whether it runs or not"),
        })?,
        None => {
            let data = data_dir(args.data.clone(), "server")?;
            server::backup::backup(&data, &to, args.with_keys).map_err(|error| refused(error, &to))?
        }
    };
    if args.json {
        return report(&held, &to);
    }
    out!("{}", to.display());
    print(&held);
    if !held.keys {
        out!(
            "  keys     not in it. Keep keys/, keyring.json, trust.keys and policy.toml of the data directory as well: \
             without them\n           a restored server signs as a new one. --with-keys puts them in, and makes the \
             file a secret"
        );
    }
    out!("  next     stanch restore {} --data NEW", to.display());
    Ok(0)
}

/// `stanch restore`
pub(crate) fn restore(args: &RestoreArgs) -> Result<u8, Failure> {
    let (file, data) = (absolute(&args.file)?, absolute(&args.data)?);
    let held = server::backup::restore(&file, &data).map_err(|error| refused(error, &file))?;
    if args.json {
        return report(&held, &data);
    }
    out!("{}", data.display());
    print(&held);
    if held.keys {
        out!("  keys     restored with it");
    } else {
        out!(
            "  keys     not in the backup: before the first start put keys/, keyring.json, trust.keys and policy.toml \
             of the old\n           data directory there; else the server makes new keys, and signs as another one"
        );
    }
    out!("  next     stanch doctor --data {0} && stanch serve --data {0}", data.display());
    Ok(0)
}

fn report(held: &Held, path: &Path) -> Result<u8, Failure> {
    let mut told = serde_json::to_value(held).map_err(anyhow::Error::from)?;
    if let Some(fields) = told.as_object_mut() {
        fields.insert("path".to_owned(), path.display().to_string().into());
    }
    out!("{told}");
    Ok(0)
}

fn print(held: &Held) {
    let Held { bytes, promises, outbox, log_entries, digest, format, .. } = held;
    out!("  holds    {promises} promises, {outbox} messages, {log_entries} records of evidence");
    out!("  file     {bytes} bytes, format {format}, sha256 {digest}");
    out!("  checked  every page, every invariant of the protocol, every record of the log");
}

/// Exit 3: what was looked at is not sound; exit 2: it is not what the command needs.
fn refused(error: BackupError, file: &Path) -> Failure {
    let (exit, next) = match &error {
        BackupError::Exists(_) => (2, "stanch backup --to FILE, with a name that is free".to_owned()),
        BackupError::Missing(_) => {
            (2, "stanch backup --data DIR, with the directory that `stanch serve` uses".to_owned())
        }
        BackupError::NotEmpty { .. } => {
            (2, format!("stanch restore {} --data NEW, an empty directory", file.display()))
        }
        BackupError::InUse(_) => (1, "the same command again once that one is done".to_owned()),
        BackupError::File { .. } | BackupError::Keys(_) => {
            (1, "the same command again, once that is mended".to_owned())
        }
        BackupError::Unsound { .. } => (3, "stanch doctor --data DIR on the data directory it came from".to_owned()),
        BackupError::Store(store) => {
            use server::StoreError::{Damaged, Foreign, GaveWay, Newer, NoCopy, Older};
            match store {
                Newer { .. } => {
                    (2, "the same command with the version of stanch that wrote it, or a newer one".to_owned())
                }
                Older { .. } => (2, "the same command with the version of stanch that wrote it".to_owned()),
                NoCopy(_) => (2, "stanch backup --data DIR --to FILE, with the directory it lies in".to_owned()),
                Damaged { .. } => (3, "another backup; nobody should rely on this one".to_owned()),
                GaveWay(_) => (1, "the same command again, beside the server that runs now".to_owned()),
                Foreign(_) => (2, "a file that `stanch backup` wrote".to_owned()),
                _ => (1, "stanch doctor --data DIR".to_owned()),
            }
        }
    };
    Failure { exit, ..Failure::refused(error) }.next(next)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
