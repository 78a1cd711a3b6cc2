//! What each program runs in: made once, kept below the target directory, pinned to exact versions and digests.

use crate::support::output_within;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A build of the Rust program with everything it needs, on a busy machine.
const BUILD: Duration = Duration::from_secs(1_500);

/// A program and what it runs in.
pub(crate) struct Sdk {
    pub(crate) name: String,
    command: Vec<OsString>,
    /// Between the command and the scenarios stands the server's address.
    environment: Vec<(&'static str, OsString)>,
}

impl Sdk {
    /// The program, with these scenarios against this server, and without what would lead it to another.
    pub(crate) fn command(&self, url: &str, scenarios: &[&str]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg(url).args(scenarios);
        for ours in
            std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("RESONATE"))
        {
            command.env_remove(ours);
        }
        command.env("NO_PROXY", "127.0.0.1").envs(self.environment.iter().cloned());
        command
    }
}

/// Every SDK, or why this machine cannot run it.
pub(crate) fn all() -> Vec<Result<Sdk, String>> {
    let (kept, _alone) = kept();
    vec![
        python(&kept, "0.8.1"),
        python(&kept, "0.7.4"),
        typescript(&kept, "generators"),
        typescript(&kept, "asyncs"),
        rust(&kept),
    ]
}

/// The OpenTelemetry SDK of Python with its program, or why this machine cannot run it.
pub(crate) fn opentelemetry() -> Result<Sdk, String> {
    let (kept, _alone) = kept();
    let name = "Python opentelemetry-sdk 1.45.2".to_owned();
    let home = sources().join("../otel");
    let (interpreter, site) =
        packages(&kept, "otel", &home.join("requirements.txt")).map_err(|why| format!("{name}: {why}"))?;
    let command = vec![interpreter.into(), "-B".into(), home.join("emit.py").into()];
    Ok(Sdk { name, command, environment: vec![("PYTHONPATH", site.into())] })
}

/// The directory in which everything is kept, and the lock on it.
fn kept() -> (PathBuf, std::fs::File) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk");
    std::fs::create_dir_all(&kept).unwrap();
    let alone = std::fs::File::create(kept.join("lock")).unwrap();
    alone.lock().unwrap();
    (kept, alone)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/sdk").canonicalize().unwrap()
}

/// An interpreter, and the packages that a file of digests names.
fn packages(kept: &Path, name: &str, requirements: &Path) -> Result<(PathBuf, PathBuf), String> {
    let found = ran(Command::new("sh").arg(sources().join("python.sh")).arg(kept.join("python")))?;
    let interpreter = PathBuf::from(found.trim());
    let site = kept.join(format!("python-{name}-{}", digest(&[requirements], &found)));
    made(&site, |fresh| {
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
        ran(pip
            .args(["--disable-pip-version-check", "--root-user-action=ignore", "--target"])
            .arg(fresh)
            .arg("-r")
            .arg(requirements))
    })?;
    Ok((interpreter, site))
}

fn python(kept: &Path, version: &str) -> Result<Sdk, String> {
    let name = format!("Python resonate-sdk {version}");
    let sources = sources();
    let (interpreter, site) = packages(kept, version, &sources.join(format!("python/requirements-{version}.txt")))
        .map_err(|why| format!("{name}: {why}"))?;
    let command = vec![interpreter.into(), "-B".into(), sources.join("python/smoke.py").into()];
    Ok(Sdk { name, command, environment: vec![("PYTHONPATH", site.into())] })
}

fn typescript(kept: &Path, engine: &str) -> Result<Sdk, String> {
    let name = format!("TypeScript @resonatehq-sdk 0.11.5 {engine}");
    let version = ran(Command::new("node").arg("--version")).map_err(|why| format!("{name}: {why}"))?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 20) {
        return Err(format!("{name}: Node 20 or later, and here is {version}"));
    }
    let sources = sources().join("typescript");
    let pinned = ["package.json", "package-lock.json"].map(|file| sources.join(file));
    let home = kept.join(format!("typescript-{}", digest(&[&pinned[0], &pinned[1]], &version)));
    made(&home, |fresh| {
        std::fs::create_dir_all(fresh).map_err(|error| error.to_string())?;
        for file in &pinned {
            std::fs::copy(file, fresh.join(file.file_name().unwrap())).map_err(|error| error.to_string())?;
        }
        let quiet = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        ran(Command::new("npm").args(quiet).current_dir(fresh))
    })
    .map_err(|why| format!("{name}: {why}"))?;
    // A module finds its packages beside itself.
    for file in std::fs::read_dir(&sources).unwrap().flatten() {
        if file.path().extension().is_some_and(|extension| extension == "mjs") {
            std::fs::copy(file.path(), home.join(file.file_name())).unwrap();
        }
    }
    Ok(Sdk {
        name,
        command: vec!["node".into(), home.join("smoke.mjs").into(), engine.into()],
        environment: Vec::new(),
    })
}

fn rust(kept: &Path) -> Result<Sdk, String> {
    let name = "Rust resonate-sdk 0.6.0".to_owned();
    let cargo = || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(sources().join("rust")).env("CARGO_TARGET_DIR", kept.join("rust"));
        cargo
    };
    ran(cargo().args(["fetch", "--locked", "--quiet"])).map_err(|why| format!("{name}: {why}"))?;
    // What could be fetched has to build.
    ran(cargo().args(["build", "--locked", "--offline", "--quiet"])).unwrap();
    Ok(Sdk { name, command: vec![kept.join("rust/debug/sdk-smoke").into()], environment: Vec::new() })
}

/// Makes a directory under another name first, so that one that is there is whole.
fn made(home: &Path, make: impl FnOnce(&Path) -> Result<String, String>) -> Result<(), String> {
    if home.exists() {
        return Ok(());
    }
    let fresh = home.with_extension("fresh");
    let _ = std::fs::remove_dir_all(&fresh);
    make(&fresh)?;
    std::fs::rename(&fresh, home).map_err(|error| error.to_string())
}

/// What a command says, or why it failed.
fn ran(command: &mut Command) -> Result<String, String> {
    let called = format!("{:?}", command.get_program());
    // A program that is not here cannot be waited for.
    if let Err(error) = Command::new(command.get_program()).arg("--version").output() {
        return Err(format!("{called}: {error}"));
    }
    let done = output_within(BUILD, std::mem::replace(command, Command::new("true")));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(format!("{called}: {}", text(&done.stderr).trim())) }
}

/// What an environment depends on.
fn digest(files: &[&Path], more: &str) -> String {
    let mut hasher = DefaultHasher::new();
    more.hash(&mut hasher);
    for file in files {
        std::fs::read(file).unwrap().hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
