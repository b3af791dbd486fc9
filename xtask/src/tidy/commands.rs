//! Whether the commands that Markdown shows exist: cargo's, the chores, and those of `taper`.

use super::claims;
use super::names::Names;
use crate::tree::Tree;

/// Subcommands of cargo that documents may name.
const CARGO: [&str; 15] = [
    "add", "bench", "build", "check", "clippy", "deny", "doc", "fetch", "fmt", "fuzz", "install", "run", "test",
    "tree", "update",
];

/// The problems with a line as typed into a shell; several commands may stand in it.
pub(crate) fn check_line(tree: &Tree, names: &Names, line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap_or_default();
    line.split([';', '|', '&']).flat_map(|command| check_command(tree, names, command)).collect()
}

fn check_command(tree: &Tree, names: &Names, command: &str) -> Vec<String> {
    let words: Vec<_> = command.split_whitespace().skip_while(|word| *word == "$" || is_assignment(word)).collect();
    let Some((program, rest)) = words.split_first() else {
        return Vec::new();
    };
    let mut problems: Vec<_> = words.iter().filter_map(|word| claims::check_word(tree, word)).collect();
    match program.rsplit('/').next() {
        Some("cargo") => problems.extend(check_cargo(names, rest)),
        Some("taper") => problems.extend(check_taper(names, rest)),
        _ => {}
    }
    problems
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    })
}

fn check_cargo(names: &Names, words: &[&str]) -> Vec<String> {
    let words = match words {
        [toolchain, rest @ ..] if toolchain.starts_with('+') => rest,
        words => words,
    };
    let Some((subcommand, rest)) = words.split_first() else {
        return Vec::new();
    };
    if *subcommand == "xtask" {
        return check_name(rest, "cargo xtask", |name| names.chores.contains(name));
    }
    let mut problems = check_name(words, "cargo", |name| CARGO.contains(&name));
    let package = package_of(rest);
    if let Some(package) = package
        && is_name(package)
        && !names.packages.contains(package)
    {
        problems.push(format!("names the package {package}, which does not exist"));
    }
    // A plain `cargo run` is the tool, because the root's default member is its package.
    if *subcommand == "run"
        && package.is_none_or(|package| package == "taper-cli")
        && let Some(start) = rest.iter().position(|word| *word == "--")
    {
        problems.extend(check_taper(names, &rest[start + 1..]));
    }
    problems
}

fn package_of<'a>(words: &[&'a str]) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(index, word)| match *word {
        "-p" | "--package" => words.get(index + 1).copied(),
        word => word.strip_prefix("--package="),
    })
}

fn check_taper(names: &Names, words: &[&str]) -> Vec<String> {
    check_name(words, "taper", |name| names.commands.contains(name))
}

/// The problem with a subcommand; options and placeholders such as `COMMAND` are none.
fn check_name(words: &[&str], program: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    match words.first() {
        Some(name) if is_name(name) && !exists(name) => {
            vec![format!("names `{program} {name}`, which does not exist")]
        }
        _ => Vec::new(),
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_lowercase())
        && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

/// The problems with words that have the form of our packages' names.
pub(crate) fn check_packages(names: &Names, text: &str) -> Vec<String> {
    const PREFIX: &str = "taper-";
    let is_inside = |letter: char| letter.is_ascii_alphanumeric() || "_-./".contains(letter);
    text.split(|letter: char| !is_inside(letter))
        .map(|word| word.trim_end_matches(['.', '-']))
        .filter(|word| word.starts_with(PREFIX) && is_name(word))
        .filter(|word| !names.packages.contains(*word) && !names.binaries.contains(*word))
        .map(|word| format!("names the crate {word}, which does not exist"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::names::Names;
    use super::{check_line, check_packages};
    use crate::tree::Tree;

    fn names() -> Names {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names {
            packages: set(&["taper-cli", "taper-data", "xtask"]),
            binaries: set(&["taper", "taper-check"]),
            chores: set(&["ci", "tidy"]),
            commands: set(&["train"]),
        }
    }

    #[track_caller]
    fn line(line: &str, num_problems: usize) {
        let tree = Tree::of(&[("data/recipes/a.toml", "")]);
        let problems = check_line(&tree, &names(), line);
        assert_eq!(problems.len(), num_problems, "{line}: {problems:?}");
    }

    #[test]
    fn commands_that_exist() {
        line("cargo xtask ci --only tidy", 0);
        line("$ RUN_SLOW_TESTS=1 cargo +stable test -p taper-data", 0);
        line("cargo run --release -- train --epochs 3 # hub", 0);
        line("cargo run -p xtask -- anything", 0);
        line("target/release/taper train -c data/recipes/a.toml", 0);
        line("taper --help; taper COMMAND --help && ls gone", 0);
        line("cargo", 0);
    }

    #[test]
    fn commands_that_do_not_exist() {
        line("cargo xtask publish", 1);
        line("cargo nextest run", 1);
        line("cargo test --package=taper-hub", 1);
        line("cargo run --release -- finetune", 1);
        line("cargo run -p taper-cli -- finetune", 1);
        line("ls && taper finetune | tee log", 1);
        line("taper train -c data/recipes/gone.toml", 1);
    }

    #[test]
    fn crates_that_do_not_exist() {
        let problems = |text| check_packages(&names(), text).len();
        assert_eq!(problems("taper-data = \"0.1\" # taper-check."), 0);
        assert_eq!(problems("my/taper-hub out.taper-hub taper-hub.tar taper-"), 0);
        assert_eq!(problems("taper-hub"), 1);
        assert_eq!(problems("(taper-hub, taper-zoo)"), 2);
    }
}
