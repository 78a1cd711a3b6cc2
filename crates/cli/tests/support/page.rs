//! A page of the documentation, as somebody types it: every `console` block, in its order, in a shell.

use super::output;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command of a page and the lines that it shows below it.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    pub(crate) command: String,
    pub(crate) shown: Vec<String>,
}

/// The commands of the blocks that are marked `console`.
pub(crate) fn commands(page: &str) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            typed.push(Typed { command: command.to_owned(), shown: Vec::new() });
        } else if let Some(last) = typed.last_mut().filter(|_| inside) {
            last.shown.push(line.to_owned());
        }
    }
    typed
}

/// Whether a real line is the shown one, where `…` stands for anything.
pub(crate) fn is_shown(real: &str, shown: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let mut rest = real.trim_end();
    for (index, part) in parts.iter().enumerate() {
        let part = if index + 1 == parts.len() { part.trim_end() } else { part };
        let at = if index == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    parts.last().is_some_and(|last| last.trim().is_empty() && parts.len() > 1) || rest.is_empty()
}

/// The first shown line that does not occur, after those before it.
pub(crate) fn missing<'a>(output: &str, shown: &'a [String]) -> Option<&'a str> {
    let mut real = output.lines();
    shown.iter().find(|line| !real.any(|real| is_shown(real, line))).map(String::as_str)
}

/// A directory of one's own, with the program on the path, and nothing of the machine's user in the environment.
pub(crate) struct Desk {
    dir: PathBuf,
    server: String,
}

impl Desk {
    pub(crate) fn set(dir: &Path, server: &str) -> Desk {
        for name in ["bin", "home", "state", "tmp", "desk"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stanch"), dir.join("bin/stanch")).unwrap();
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        std::os::unix::fs::symlink(crates, dir.join("desk/crates")).unwrap();
        Desk { dir: dir.to_owned(), server: server.to_owned() }
    }

    /// Runs a command; answers its exit code and both of its outputs.
    pub(crate) fn run(&self, command: &str) -> (Option<i32>, String) {
        let path = format!("{}:/usr/bin:/bin", self.dir.join("bin").display());
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.dir.join("home"))
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("TMPDIR", self.dir.join("tmp"))
            // Nobody's port is taken: the pages say that it may be another one.
            .env("STANCH_PORT", self.server.rsplit(':').next().unwrap_or_default())
            .env("STANCH_SERVER", &self.server)
            .current_dir(self.dir.join("desk"))
            .stdin(Stdio::null());
        let output = output(shell);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}
