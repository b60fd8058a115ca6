//! The commands that the README tells people to type.

use std::path::Path;

/// The commands of the `console` blocks below a heading: the lines that begin with `$ `, in order.
///
/// # Panics
/// There are none.
#[must_use]
pub fn commands(page: &Path, heading: &str) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let found = below(&text, heading);
    assert!(!found.is_empty(), "{} has no commands below {heading:?}", page.display());
    found
}

fn below(text: &str, heading: &str) -> Vec<String> {
    let level = heading.chars().take_while(|&c| c == '#').count();
    let is_end = |line: &&str| {
        let hashes = line.chars().take_while(|&c| c == '#').count();
        hashes > 0 && hashes <= level && line.as_bytes().get(hashes) == Some(&b' ')
    };
    let section = text.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !is_end(line));
    let mut in_console = false;
    let mut found = vec![];
    for line in section {
        match line {
            "```console" => in_console = true,
            "```" => in_console = false,
            _ => found.extend(in_console.then(|| line.strip_prefix("$ ")).flatten().map(str::to_owned)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_the_section_and_of_console_blocks() {
        let text = "## A\n```console\n$ no\n```\n## B\nthen\n```console\n$ one\nsaid\n$ two | x\n```\n```sh\n$ no\n```\n\
                    ### Under B\n```console\n$ three\n```\n## C\n```console\n$ no\n```\n";
        assert_eq!(below(text, "## B"), ["one", "two | x", "three"]);
        assert_eq!(below(text, "### Under B"), ["three"]);
        assert!(below(text, "## D").is_empty());
    }
}
