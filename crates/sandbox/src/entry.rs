//! What a process of the shop is told on its command line.

use crate::agent::{self, AgentOptions};
use crate::load::{self, LoadOptions};
use crate::service::{self, ServiceOptions};
use crate::starts::Identity;
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;

/// The processes of the shop.
pub const PROCESSES: [&str; 3] = ["service", "load", "agent"];

/// A process with all it was told.
enum Process {
    Service(ServiceOptions),
    Load(LoadOptions),
    Agent(AgentOptions),
}

/// Runs the process that `process` and `arguments` describe, as the topology file spells them.
///
/// # Errors
/// Arguments that are not understood, or a process that cannot run.
pub async fn run(process: &str, arguments: &[String]) -> anyhow::Result<()> {
    match understand(process, arguments)? {
        Process::Service(options) => service::run(options).await,
        Process::Load(options) => load::run(options).await,
        Process::Agent(options) => agent::run(options).await,
    }
}

/// Whether [`run`] would understand this.
///
/// # Errors
/// What it would not understand.
pub fn check(process: &str, arguments: &[String]) -> anyhow::Result<()> {
    understand(process, arguments).map(|_| ())
}

fn understand(process: &str, arguments: &[String]) -> anyhow::Result<Process> {
    let mut given = Arguments::parse(arguments)?;
    let understood = match process {
        "service" => Process::Service(service_options(&mut given)?),
        "load" => Process::Load(load_options(&mut given)?),
        "agent" => Process::Agent(AgentOptions { listen: given.required("--listen")?, lifeline: given.lifeline }),
        other => bail!("the shop has no process `{other}`"),
    };
    given.finish()?;
    Ok(understood)
}

fn service_options(given: &mut Arguments) -> anyhow::Result<ServiceOptions> {
    Ok(ServiceOptions {
        name: given.required("--name")?,
        listen: given.required("--listen")?,
        replica: given.number("--replica", 0)?,
        data: given.required("--data")?.into(),
        otlp: given.values.remove("--otlp"),
        edges: std::mem::take(&mut given.edges),
        seed: given.number("--seed", 1)?,
        identity: Identity::from_environment(),
        lifeline: given.lifeline,
    })
}

fn load_options(given: &mut Arguments) -> anyhow::Result<LoadOptions> {
    Ok(LoadOptions {
        listen: given.required("--listen")?,
        gateway: given.required("--gateway")?,
        data: given.required("--data")?.into(),
        rate: given.number("--rate", crate::RATE)?,
        seed: given.number("--seed", 1)?,
        lifeline: given.lifeline,
    })
}

#[derive(Debug, Default)]
struct Arguments {
    values: BTreeMap<String, String>,
    edges: BTreeMap<String, String>,
    lifeline: bool,
}

impl Arguments {
    fn parse(arguments: &[String]) -> anyhow::Result<Arguments> {
        let mut given = Arguments::default();
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            if flag == "--lifeline" {
                given.lifeline = true;
                continue;
            }
            let value = rest.next().with_context(|| format!("`{flag}` needs a value"))?;
            if flag == "--edge" {
                let (callee, address) =
                    value.split_once('=').with_context(|| format!("`{value}` is not CALLEE=ADDRESS"))?;
                given.edges.insert(callee.to_owned(), address.to_owned());
            } else if given.values.insert(flag.clone(), value.clone()).is_some() {
                bail!("`{flag}` is given twice");
            }
        }
        Ok(given)
    }

    fn required(&mut self, flag: &str) -> anyhow::Result<String> {
        self.values.remove(flag).with_context(|| format!("`{flag}` is missing"))
    }

    fn number<T: std::str::FromStr>(&mut self, flag: &str, default: T) -> anyhow::Result<T> {
        let Some(text) = self.values.remove(flag) else { return Ok(default) };
        text.parse().ok().with_context(|| format!("`{flag} {text}`: not a number"))
    }

    fn finish(self) -> anyhow::Result<()> {
        match self.values.keys().next() {
            Some(unknown) => bail!("`{unknown}` is not understood"),
            None => Ok(()),
        }
    }
}
