use super::*;
use clap::CommandFactory as _;

/// Every command below this one, with its words.
fn all(command: &clap::Command, words: &str, found: &mut Vec<(String, clap::Command)>) {
    for below in command.get_subcommands() {
        let words = format!("{words} {}", below.get_name());
        all(below, &words, found);
        found.push((words, below.clone()));
    }
}

fn commands() -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    all(&Cli::command(), "stanch", &mut found);
    found
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_that_people_type_shows_an_example_and_every_example_parses() {
    let mut examples = 0;
    for (words, command) in commands() {
        if command.is_hide_set() || command.has_subcommands() {
            continue;
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
        let shown: Vec<&str> = lines.flat_map(|line| line.split(" && ")).collect();
        assert!(!shown.is_empty(), "`{words}` shows no example");
        for example in shown {
            let typed = example.split(" > ").next().unwrap_or_default();
            let parsed = Cli::try_parse_from(typed.split_whitespace());
            assert!(parsed.is_ok(), "`{example}`: {}", parsed.unwrap_err());
            examples += 1;
        }
        assert!(help.contains(&words), "the examples of `{words}` show another command");
    }
    assert!(examples > 12, "{examples}");
}

#[test]
fn every_argument_is_explained() {
    for (words, command) in commands() {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "`{words}` does not explain `{}`", argument.get_id());
        }
        assert!(command.get_about().is_some(), "`{words}` does not say what it does");
    }
}

#[test]
fn what_excludes_each_other_is_refused() {
    for typed in [
        "stanch recover a --service b",
        "stanch recover a --resume i",
        "stanch recover --sandbox --resume i",
        "stanch group a --traces f --server http://127.0.0.1:1",
        "stanch group",
        "stanch evidence verify",
        "stanch recover --sandbox --fault melt",
        "stanch serve --port 70000",
        "stanch recover --sandbox --linger 601",
        "stanch lab faults --seeds 5-1",
        "stanch lab faults --fault melt",
        "stanch lab faults --again",
    ] {
        assert!(Cli::try_parse_from(typed.split(' ')).is_err(), "{typed}");
    }
}

#[test]
fn a_lying_observer_is_the_probe_unless_named() {
    let told = |typed: &str| match Cli::try_parse_from(typed.split(' ')).unwrap().command {
        Command::Recover(args) => args.lying_observer,
        other => panic!("{other:?}"),
    };
    assert_eq!(told("stanch recover a"), None);
    assert_eq!(told("stanch recover a --lying-observer").as_deref(), Some("probe"));
    assert_eq!(told("stanch recover a --lying-observer record").as_deref(), Some("record"));
}
