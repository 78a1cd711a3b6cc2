//! The process actuator, the supervisor and the proxy on real processes. The test binary starts itself again
//! as service, proxy, supervisor and executor; without a role it runs the scenarios one after the other.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a test with a main function of its own")]

#[path = "process/relay.rs"]
mod relay;
#[path = "process/rig.rs"]
mod rig;
#[path = "process/roles.rs"]
mod roles;
#[path = "process/scenarios.rs"]
mod scenarios;

use std::process::ExitCode;

type Scenario = (&'static str, fn() -> Outcome);
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        scenarios::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().skip(1).find(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (name, scenario) in scenarios::ALL {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let outcome = scenario();
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if let Err(why) = outcome {
            println!("    {why}");
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
