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
        if command.is_hide_set() {
            continue;
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.starts_with("stanch "));
        let shown: Vec<&str> = lines.flat_map(|line| line.split(" && ")).collect();
        assert!(!shown.is_empty(), "`{words}` shows no example");
        for example in shown {
            let typed = example.split(" > ").next().unwrap_or_default();
            let parsed = Cli::try_parse_from(shell_words(typed));
            assert!(parsed.is_ok(), "`{example}`: {}", parsed.unwrap_err());
            examples += 1;
        }
        assert!(help.contains(&words), "the examples of `{words}` show another command");
    }
    assert!(examples > 12, "{examples}");
}

/// What a line of a page would have a reader type, one command of ours after the other.
fn typed(line: &str) -> Vec<&str> {
    let line = line.split("  #").next().unwrap_or_default();
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let parts = line.split(" && ").flat_map(|part| part.split(" || ")).flat_map(|part| part.split(" > "));
    parts.filter(|part| part.starts_with("stanch ")).map(str::trim_end).collect()
}

/// The texts between backticks that begin like one of our commands.
fn inline(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).filter(|text| text.starts_with("stanch ")).collect()
}

/// The words of a line as a shell would take them: quotation marks of both kinds, and `\\` before one.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn words_are_taken_as_a_shell_takes_them() {
    for (line, words) in [
        ("a  b", &["a", "b"][..]),
        ("a \"b c\" ''", &["a", "b c", ""]),
        ("\"{\\\"a\\\": 1}\" '\"x\"'", &["{\"a\": 1}", "\"x\""]),
        ("a='b c'd", &["a=b cd"]),
    ] {
        assert_eq!(shell_words(line), words, "{line}");
    }
}

/// Words with the file they stand in.
type Named = Vec<(String, String)>;

/// The commands in the README and in the pages under `docs`: those in blocks, and those within a sentence.
fn documented() -> (Named, Named) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md"), root.join("ARCHITECTURE.md")];
    for dir in ["docs", "docs/how-to", "docs/reference"] {
        pages.extend(std::fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let (mut blocks, mut sentences) = (Vec::new(), Vec::new());
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(page).unwrap();
        let mut inside = false;
        for (number, line) in (1..).zip(text.lines()) {
            let at = || format!("{}:{number}", page.display());
            if line.starts_with("```") {
                inside = !inside;
            } else if inside {
                blocks.extend(typed(line).into_iter().map(|command| (at(), command.to_owned())));
            } else {
                sentences.extend(inline(line).into_iter().map(|command| (at(), command.to_owned())));
            }
        }
    }
    (blocks, sentences)
}

#[test]
fn every_command_in_the_documentation_exists() {
    let (blocks, sentences) = documented();
    assert!(blocks.len() > 15 && sentences.len() > 10, "{blocks:?} {sentences:?}");
    for (at, command) in &blocks {
        let parsed = Cli::try_parse_from(shell_words(command));
        assert!(parsed.is_ok(), "{at}: `{command}`: {}", parsed.unwrap_err());
    }
    for (at, command) in &sentences {
        let mut below = &Cli::command();
        let words = command.split_whitespace().skip(1);
        for (index, word) in words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase())).enumerate() {
            match below.find_subcommand(word) {
                Some(found) => below = found,
                // A service's name, say; but the first word is a command, and so is one after `sandbox`.
                None => {
                    let takes_words = !below.has_subcommands() || below.get_positionals().next().is_some();
                    assert!(index > 0 && takes_words, "{at}: there is no `{command}`");
                }
            }
        }
        let options = command.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        for option in options.filter(|option| !option.is_empty()) {
            let known = below.get_arguments().any(|argument| argument.get_long() == Some(option));
            assert!(known, "{at}: `{command}` has no --{option}");
        }
    }
    assert_eq!(typed("$ stanch doctor  # why"), ["stanch doctor"]);
    assert_eq!(inline("say `stanch doctor` or `cargo`"), ["stanch doctor"]);
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
        "stanch group",
        "stanch evidence verify",
        "stanch recover --sandbox --fault melt",
        "stanch serve --port 70000",
        "stanch recover --sandbox --linger 601",
        "stanch lab faults --seeds 5-1",
        "stanch lab faults --fault melt",
        "stanch lab faults --again",
        "stanch outbox retry",
        "stanch outbox retry 1 --all",
        "stanch outbox retry one",
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
