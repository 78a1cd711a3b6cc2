//! Codes and their pages: every G, V and ST code has one page under `docs/errors/`, and every page a code.

use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where the pages lie.
const PAGES: &str = "docs/errors";
/// Where the codes of decisions and of the verifier are declared, with their titles.
const CODES: &str = "crates/governance/src/code.rs";

/// What is wrong with the pages, given the sources by name.
pub(crate) fn check(root: &Path, sources: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    for entry in std::fs::read_dir(root.join(PAGES)).context(PAGES)? {
        let path = entry?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        pages.insert(name, std::fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    }
    let declared = sources.get(CODES).with_context(|| CODES.to_owned())?;
    Ok(findings(&titles(declared), &shell_codes(sources), &pages))
}

/// Codes G and V with their titles, as `G101 = 101 "G101", "title", …` declares them.
fn titles(declared: &str) -> BTreeMap<String, String> {
    let read = |line: &str| {
        let (code, rest) = line.trim().split_once(" = ")?;
        let number = code.strip_prefix(['G', 'V'])?;
        let title = rest.split('"').nth(3)?;
        number.parse::<u32>().ok().map(|_| (code.to_owned(), title.to_owned()))
    };
    declared.lines().filter_map(read).collect()
}

/// Codes `"ST-1401"` anywhere in the product.
fn shell_codes(sources: &BTreeMap<String, String>) -> BTreeSet<String> {
    let product = sources.iter().filter(|(path, _)| path.starts_with("crates/"));
    let quoted = product.flat_map(|(_, text)| text.split('"'));
    let is_code = |word: &&str| {
        let digits = word.strip_prefix("ST-");
        digits.is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    quoted.filter(is_code).map(str::to_owned).collect()
}

fn findings(
    titles: &BTreeMap<String, String>,
    shell: &BTreeSet<String>,
    pages: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for code in titles.keys().chain(shell) {
        let Some(page) = pages.get(code) else {
            found.push(format!("{PAGES}/{code}.md: missing; the code exists"));
            continue;
        };
        let first = page.lines().next().unwrap_or_default();
        let title = titles.get(code).map_or_else(|| first.to_owned(), |title| format!("# {code}: {title}"));
        if first != title || !first.starts_with(&format!("# {code}: ")) {
            found.push(format!("{PAGES}/{code}.md: the first line is not the code and its title"));
        }
        let parts = ["**Cause.**", "**What to do.**", "**Next command.**"];
        found.extend(
            parts.iter().filter(|part| !page.contains(**part)).map(|part| format!("{PAGES}/{code}.md: no {part}")),
        );
    }
    let index = pages.get("README").map(String::as_str).unwrap_or_default();
    for page in pages.keys().filter(|page| *page != "README") {
        if !titles.contains_key(page) && !shell.contains(page) {
            found.push(format!("{PAGES}/{page}.md: a page without a code"));
        }
        if !index.contains(&format!("({page}.md)")) {
            found.push(format!("{PAGES}/README.md: does not list {page}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first: &str) -> String {
        format!("{first}\n\n**Cause.** a\n\n**What to do.** b\n\n**Next command.** c\n")
    }

    #[test]
    fn a_code_without_its_page_and_a_page_without_its_code_are_found() {
        let declared = "    G101 = 101 \"G101\", \"held\", \"wait\";\n    V0 = 400 \"V0\", \"broken\", \"ask\";\n    A1 = 1 \"A1\";";
        let titles = titles(declared);
        assert_eq!(titles.keys().collect::<Vec<_>>(), ["G101", "V0"]);
        let sources = BTreeMap::from([("crates/a/src/a.rs".to_owned(), "code(\"ST-1401\", \"ST-14\")".to_owned())]);
        let shell = shell_codes(&sources);
        assert_eq!(shell.iter().collect::<Vec<_>>(), ["ST-1401"]);
        let mut pages = BTreeMap::from([
            ("G101".to_owned(), page("# G101: held")),
            ("V0".to_owned(), page("# V0: broken")),
            ("ST-1401".to_owned(), page("# ST-1401: anything")),
            ("README".to_owned(), "(G101.md) (V0.md) (ST-1401.md)".to_owned()),
        ]);
        assert!(findings(&titles, &shell, &pages).is_empty());
        pages.insert("V0".to_owned(), page("# V0: whole").replace("**Cause.**", ""));
        pages.insert("G999".to_owned(), page("# G999: unknown"));
        pages.remove("ST-1401");
        assert_eq!(findings(&titles, &shell, &pages).len(), 5);
    }
}
