//! What the README tells people to type.

use std::path::Path;

/// A command, and what the page says that it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// All of it, without the prompt; a line that goes on is joined to the next.
    pub command: String,
    /// Its lines.
    pub output: Vec<String>,
}

/// The commands of the `console` blocks below a heading, in order, with what they write.
///
/// # Panics
/// There are none.
#[must_use]
pub fn typed(page: &Path, heading: &str) -> Vec<Typed> {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let found = below(&text, heading);
    assert!(!found.is_empty(), "{} has no commands below {heading:?}", page.display());
    found
}

/// The same commands alone.
///
/// # Panics
/// There are none.
#[must_use]
pub fn commands(page: &Path, heading: &str) -> Vec<String> {
    typed(page, heading).into_iter().map(|typed| typed.command).collect()
}

fn below(text: &str, heading: &str) -> Vec<Typed> {
    let level = heading.chars().take_while(|&c| c == '#').count();
    let is_end = |line: &&str| {
        let hashes = line.chars().take_while(|&c| c == '#').count();
        hashes > 0 && hashes <= level && line.as_bytes().get(hashes) == Some(&b' ')
    };
    let section = text.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !is_end(line));
    let mut in_console = false;
    let mut found: Vec<Typed> = vec![];
    for line in section {
        match (line, found.last_mut()) {
            ("```console", _) => in_console = true,
            ("```", _) => in_console = false,
            _ if !in_console => {}
            (_, Some(last)) if last.output.is_empty() && last.command.ends_with('\\') => {
                last.command.pop();
                last.command.push_str(line.trim_start());
            }
            (_, last) => match (line.strip_prefix("$ "), last) {
                (Some(command), _) => found.push(Typed { command: command.to_owned(), output: vec![] }),
                (None, Some(last)) => last.output.push(line.to_owned()),
                (None, None) => {}
            },
        }
    }
    found
}

/// A command's words, as a shell without variables would part them: single quotes hold one together.
#[must_use]
pub fn words(command: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    for (number, piece) in command.split('\'').enumerate() {
        if number % 2 == 1 {
            words.last_mut().map(|word| word.push_str(piece)).unwrap_or_default();
            continue;
        }
        for (place, word) in piece.split(' ').enumerate() {
            match words.last_mut() {
                Some(last) if place == 0 => last.push_str(word),
                _ => words.push(word.to_owned()),
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_the_section_and_of_console_blocks() {
        let text = "## A\n```console\n$ no\n```\n## B\nthen\n```console\n$ one\nsaid\nmore\n$ two \\\n  | x\n```\n```sh\n$ no\n```\n\
                    ### Under B\n```console\n$ three\n```\n## C\n```console\n$ no\n```\n";
        let typed = |command: &str, output: &[&str]| Typed {
            command: command.to_owned(),
            output: output.iter().map(|line| (*line).to_owned()).collect(),
        };
        let expected = [typed("one", &["said", "more"]), typed("two | x", &[]), typed("three", &[])];
        assert_eq!(below(text, "## B"), expected);
        assert_eq!(below(text, "### Under B"), expected[2..]);
        assert!(below(text, "## D").is_empty());
    }

    #[test]
    fn words_are_parted_as_a_shell_does() {
        let parted = words(r#"curl -X  POST 'localhost:1/a?b=c d' -d'{"x":1}' end"#);
        assert_eq!(parted, ["curl", "-X", "POST", "localhost:1/a?b=c d", r#"-d{"x":1}"#, "end"]);
    }
}
