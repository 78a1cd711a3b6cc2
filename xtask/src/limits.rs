//! The rule of limits: every constant `…_MAX` is named in a test of its crate, so that a limit that nothing trips
//! is found before somebody relies on it.

use std::collections::BTreeMap;

/// One source file.
pub(crate) struct Source {
    /// Path below the workspace, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// Limits without a test that names them, and names that two limits of a crate share: a test's mention must say which
/// one it means.
pub(crate) fn findings(sources: &[Source]) -> Vec<String> {
    let mut limits: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut tests: BTreeMap<&str, String> = BTreeMap::new();
    for source in sources {
        let krate = crate_of(&source.path);
        let (product, test) = split(source);
        tests.entry(krate).or_default().push_str(test);
        for (line, name) in defined(product) {
            limits.entry((krate, name)).or_default().push(format!("{}:{line}", source.path));
        }
    }
    let mut found = Vec::new();
    for ((krate, name), places) in &limits {
        if let [first, second, ..] = places.as_slice() {
            found.push(format!("{second}: a second limit `{name}` in this crate; the other is {first}"));
        }
        let own = tests.get(krate).is_some_and(|text| mentions(text, name).next().is_some());
        let tested = own || tests.values().any(|text| mentions(text, name).any(|path| is_of(path, krate)));
        if let (false, Some(place)) = (tested, places.first()) {
            found.push(format!("{place}: no test names the limit `{name}`; write one that trips it"));
        }
    }
    found
}

/// The path before each mention of a name: `client::` of `client::JOBS_MAX`, empty of `JOBS_MAX`.
fn mentions<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(name).filter_map(move |(at, _)| {
        let (before, rest) = (text.get(..at)?, text.get(at + name.len()..)?);
        let path = before.get(before.rfind(|c| !is_word(c) && c != ':').map_or(0, |end| end + 1)..)?;
        (!rest.starts_with(is_word) && (path.is_empty() || path.ends_with(':'))).then_some(path)
    })
}

fn is_of(path: &str, krate: &str) -> bool {
    path.split("::").next() == Some(krate)
}

fn crate_of(path: &str) -> &str {
    path.strip_prefix("crates/").unwrap_or(path).split('/').next().unwrap_or_default()
}

/// What of a file is product and what is test.
fn split(source: &Source) -> (&str, &str) {
    let parts: Vec<&str> = source.path.split('/').collect();
    // The simulator is a test as a whole; the contract suite and the test kits are tests that other crates run.
    let is_test = parts.first() == Some(&"sim")
        || parts.iter().any(|part| ["tests", "tests.rs", "contract", "testkit.rs"].contains(part));
    if is_test {
        return ("", &source.text);
    }
    // Tests inside a file stand at its end.
    let at = source.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(source.text.len());
    source.text.split_at_checked(at).unwrap_or((&source.text, ""))
}

fn defined(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let (head, rest) = line.split_once("const ")?;
        let name = rest.split(':').next()?;
        let visible = head.trim_start();
        let is_item = visible.is_empty() || visible.starts_with("pub");
        (is_item && name.ends_with("_MAX") && name.chars().all(is_word)).then_some((number, name))
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), text: (*text).to_owned() };
        findings(&files.iter().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn a_limit_needs_a_test_of_its_own_crate_that_names_it() {
        let limit = ("crates/a/src/x.rs", "/// LIMIT: of x.\npub(crate) const X_MAX: usize = 1;\n");
        let other_crate = ("crates/b/src/tests.rs", "assert!(X_MAX > 0);");
        let another = ("crates/a/tests/x.rs", "assert!(X_MAX_ROWS > 0);");
        let untested = found(&[limit, other_crate, another]);
        assert_eq!(untested, ["crates/a/src/x.rs:2: no test names the limit `X_MAX`; write one that trips it"]);
        for test in ["crates/a/src/x/tests.rs", "crates/a/src/tests/x.rs", "crates/a/tests/x.rs"] {
            assert!(found(&[limit, (test, "take(X_MAX + 1)")]).is_empty(), "{test}");
        }
        assert!(found(&[limit, ("crates/b/tests/x.rs", "for _ in 0..a::X_MAX {")]).is_empty(), "named with its crate");
        assert_eq!(found(&[limit, ("crates/b/tests/x.rs", "for _ in 0..c::X_MAX {")]).len(), 1, "another crate's");
        let inside = "const Y_MAX: u32 = 2;\nfn f() { Y_MAX }\n#[cfg(test)]\nmod tests {\n    // ";
        assert_eq!(found(&[("crates/a/src/y.rs", inside)]).len(), 1);
        assert!(found(&[("crates/a/src/y.rs", &format!("{inside}Y_MAX"))]).is_empty());
    }

    #[test]
    fn two_limits_of_a_crate_have_two_names() {
        let one = ("crates/a/src/x.rs", "const X_MAX: u32 = 1;");
        let two = ("crates/a/src/y.rs", "const X_MAX: u32 = 2;");
        let elsewhere = ("crates/b/src/lib.rs", "const X_MAX: u32 = 3;\n#[cfg(test)]\nmod tests {\n X_MAX");
        let test = ("crates/a/tests/x.rs", "X_MAX");
        let shared = found(&[one, two, test, elsewhere]);
        assert_eq!(
            shared,
            ["crates/a/src/y.rs:1: a second limit `X_MAX` in this crate; the other is crates/a/src/x.rs:1"]
        );
    }
}
