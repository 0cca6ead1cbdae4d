//! The conformance table of the docs names tests: none may be made up, or left behind by a rename.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};

use crate::command::root;

/// The page, below the root.
const PAGE: &str = "docs/src/conformance.md";
/// Tests are sentences: a name in backquotes with this many underscores is meant to be one.
const UNDERSCORES_MIN: usize = 3;

/// Adds the names of the functions of one source to `names`.
pub fn functions(text: &str, names: &mut BTreeSet<String>) {
    for (at, keyword) in text.match_indices("fn ") {
        let name: String = text[at + keyword.len()..].chars().take_while(|next| is_part(*next)).collect();
        names.insert(name);
    }
}

/// The tests that the page names and that are no functions.
pub fn unknown_tests(functions: &BTreeSet<String>) -> Result<Vec<String>> {
    let page = fs::read_to_string(root().join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let unknown = named_tests(&page).filter(|name| !functions.contains(*name));
    Ok(unknown.map(|name| format!("{PAGE}: there is no test `{name}`")).collect())
}

fn named_tests(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2).filter(|code| {
        code.chars().all(is_part) && code.matches('_').count() >= UNDERSCORES_MIN && !code.ends_with('_')
    })
}

fn is_part(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_backquotes_are_tests_if_they_are_sentences() {
        let page = "| a | `one_two_three_four`, `wg show`, `tests/src`, `n01_`, `update_only` | `x_y_z_1` |";
        assert_eq!(named_tests(page).collect::<Vec<_>>(), ["one_two_three_four", "x_y_z_1"]);
    }

    #[test]
    fn functions_are_found_wherever_they_are() {
        let mut names = BTreeSet::new();
        functions("fn a_b_c() {}\n    pub fn d1<T>(x: T) {}\nlet x = fn_pointer;", &mut names);
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a_b_c", "d1"]);
    }
}
