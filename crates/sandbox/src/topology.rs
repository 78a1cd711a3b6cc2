//! The shop's topology file, written from the profiles.

use crate::profile::{Call, PROFILES, Profile};
use std::fmt::Write as _;

/// What the file depends on.
#[derive(Clone, Debug)]
pub struct TopologyOptions {
    /// Base address of the intake of spans, for example `http://127.0.0.1:8001`.
    pub otlp: String,
    /// Where the load generator answers for its record.
    pub load: String,
    /// Where the scripted agent answers.
    pub agent: String,
    /// Root requests a second.
    pub rate: u32,
    /// Of everything random.
    pub seed: u64,
}

/// Failure domains.
const ZONES: [&str; 3] = ["z1", "z2", "z3"];

/// The text of `stanch.toml`.
#[must_use]
pub fn text(options: &TopologyOptions) -> String {
    let mut out = String::from("# The sample shop. Written by `stanch sandbox up`; changes are overwritten.\n");
    for (index, profile) in PROFILES.iter().enumerate() {
        service(&mut out, options, profile, index);
    }
    for profile in PROFILES.iter().filter(|profile| !profile.path.is_empty()) {
        profile.calls.iter().for_each(|call| edge(&mut out, profile, call));
    }
    out.push_str("\n[edge.\"orders->fulfillment\"]\nkind = \"async\"\n");
    companions(&mut out, options);
    out
}

fn service(out: &mut String, options: &TopologyOptions, profile: &Profile, index: usize) {
    let mut arguments: Vec<String> = ["{self}", "sandbox", "service", "--name", profile.name].map(String::from).into();
    let fixed = [("--listen", "{listen}"), ("--replica", "{replica}"), ("--data", "{data}"), ("--otlp", &options.otlp)];
    for (flag, value) in fixed {
        arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    arguments.extend(["--seed".to_owned(), options.seed.to_string(), "--lifeline".to_owned()]);
    for call in profile.calls {
        arguments.extend(["--edge".to_owned(), format!("{0}={{edge:{0}}}", call.callee)]);
    }
    let zones: Vec<&str> = (0..ZONES.len()).filter_map(|n| ZONES.get((n + index) % ZONES.len()).copied()).collect();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("\n[service.{}]", profile.name));
    line(format!("run = {}", list(&arguments)));
    line("listen = \"127.0.0.1:0\"".into());
    line("probe = { http = \"/ready\", every = \"200ms\", timeout = \"200ms\" }".into());
    let Profile { replicas, replicas_max, workers, queue_max, .. } = profile;
    line(format!("replicas = {{ min = 1, start = {replicas}, max = {replicas_max} }}"));
    line(format!("zones = {}", list(&zones)));
    line(format!("workers = {workers}\nqueue_max = {queue_max}"));
    if let Some(p99_ms) = profile.p99_ms {
        line(format!("objective = {{ p99 = \"{p99_ms}ms\", errors = \"1%\" }}"));
    }
    if let Some(capacity_rps) = profile.capacity_rps {
        line(format!("capacity_rps = {capacity_rps}"));
    }
    if let Some(object) = profile.config {
        line(format!("config = [{object:?}]"));
    }
    if *replicas > 1 {
        line("min_available = 1".into());
    }
    for (key, names) in [("start_needs", profile.start_needs), ("coupled", profile.coupled)] {
        if !names.is_empty() {
            line(format!("{key} = {}", list(names)));
        }
    }
    if profile.store {
        line("store = true".into());
    }
}

fn edge(out: &mut String, caller: &Profile, call: &Call) {
    let Call { callee, timeout_ms, attempts, base_ms, cap_ms } = call;
    let store = PROFILES.iter().any(|profile| profile.name == *callee && profile.store);
    let kind = if store { "store" } else { "sync" };
    let retry = format!("{{ attempts = {attempts}, base = \"{base_ms}ms\", cap = \"{cap_ms}ms\" }}");
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "\n[edge.\"{}->{callee}\"]\nkind = \"{kind}\"\ntimeout = \"{timeout_ms}ms\"\nretry = {retry}\n",
        caller.name
    );
}

fn companions(out: &mut String, options: &TopologyOptions) {
    let TopologyOptions { load, agent, rate, seed, .. } = options;
    let (rate, seed) = (rate.to_string(), seed.to_string());
    let load_arguments = [
        "{self}",
        "sandbox",
        "load",
        "--listen",
        load,
        "--gateway",
        "{edge:gateway}",
        "--data",
        "{data}",
        "--rate",
        &rate,
        "--seed",
        &seed,
        "--lifeline",
    ];
    let agent_arguments = ["{self}", "sandbox", "agent", "--listen", agent, "--lifeline"];
    let _ = write!(out, "\n[process.load]\nrun = {}\n", list(&load_arguments));
    let _ = write!(out, "\n[process.agent]\nrun = {}\n", list(&agent_arguments));
    let observers = [("spans", "spans", 0), ("probe", "probe", 1), ("outside", "record", 2)];
    for (name, source, zone) in observers {
        let zone = ZONES.get(zone).copied().unwrap_or_default();
        let _ = write!(out, "\n[observer.{name}]\nsource = \"{source}\"\nzone = \"{zone}\"\n");
        if source == "record" {
            let _ = writeln!(out, "url = \"http://{load}/record\"");
        }
    }
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("{:?}", item.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use recovery::topology::Topology;

    fn options() -> TopologyOptions {
        TopologyOptions {
            otlp: "http://127.0.0.1:8001".into(),
            load: "127.0.0.1:9001".into(),
            agent: "127.0.0.1:9002".into(),
            rate: 110,
            seed: 7,
        }
    }

    #[test]
    fn the_file_is_valid_and_says_what_the_profiles_say() {
        let topology: Topology = toml::from_str(&text(&options())).expect("parses");
        topology.validate().expect("valid");
        assert_eq!((topology.service.len(), topology.process.len(), topology.observer.len()), (10, 2, 3));
        let payments = &topology.service["payments"];
        assert_eq!((payments.workers, payments.queue_max, payments.replicas.start), (Some(8), Some(64), 2));
        let call = topology.edge("checkout", "payments").expect("edge");
        assert_eq!((call.timeout, call.retry.expect("retry").attempts), (Some(base::Millis(400)), 3));
        assert_eq!(payments.config, [crate::rollout::PAYMENTS]);
        assert_eq!(topology.service["catalog"].coupled, ["catalog-cache"]);
        assert_eq!(topology.service["catalog-cache"].coupled, ["catalog"]);
        let zones: std::collections::BTreeSet<_> = topology
            .service
            .values()
            .flat_map(|service| (0..service.replicas.start).map(|n| service.zone_of(n)))
            .collect();
        assert_eq!(zones.len(), 3);
    }

    #[test]
    fn every_process_understands_its_arguments() {
        let topology: Topology = toml::from_str(&text(&options())).expect("parses");
        let runs = topology.service.values().map(|service| &service.run);
        for run in runs.chain(topology.process.values().map(|process| &process.run)) {
            assert_eq!(run[..2], ["{self}", "sandbox"]);
            crate::entry::check(&run[2], &run[3..].iter().map(|it| it.replace("{replica}", "1")).collect::<Vec<_>>())
                .expect("understood");
        }
    }
}
