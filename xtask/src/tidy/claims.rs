//! Which words of Markdown claim that a path exists, and whether it does.

use globset::GlobBuilder;

use crate::tree::Tree;

/// Extensions that, after a path without a known first folder, still mean a file of ours.
const SOURCE_EXTENSIONS: [&str; 4] = [".rs", ".py", ".md", ".sh"];

/// The problem with a piece of inline code, if it reads as a path and no such path exists.
pub(crate) fn check_code(tree: &Tree, document: &str, code: &str) -> Option<String> {
    let path = as_path(code)?;
    if starts_at_root(tree, path) {
        return check_rooted(tree, path);
    }
    let is_source = SOURCE_EXTENSIONS.iter().any(|end| path.ends_with(end));
    let beside = resolve(document, path).is_some_and(|path| exists(tree, &path));
    (is_source && !beside && !tree.has(path) && !tree.has_file_ending(path)).then(|| missing(path))
}

/// The problem with a word of a command, which is a path of ours only if it starts at the root.
pub(crate) fn check_word(tree: &Tree, word: &str) -> Option<String> {
    let path = as_path(word)?;
    if starts_at_root(tree, path) {
        return check_rooted(tree, path);
    }
    None
}

/// The problem with the target of a link, if it is relative and leads nowhere.
pub(crate) fn check_link(tree: &Tree, document: &str, target: &str) -> Option<String> {
    let is_foreign = target.contains("://") || target.starts_with("mailto:");
    let path = target.split('#').next().unwrap_or_default();
    if is_foreign || path.is_empty() {
        return None;
    }
    match resolve(document, path) {
        Some(resolved) if resolved.is_empty() || tree.has(&resolved) => None,
        _ => Some(format!("the link leads to {target}, which does not exist")),
    }
}

fn missing(path: &str) -> String {
    format!("names the path {path}, which does not exist")
}

fn check_rooted(tree: &Tree, path: &str) -> Option<String> {
    (!exists(tree, path)).then(|| missing(path))
}

/// The code as a path, unless it holds letters that no path of the repository has.
fn as_path(code: &str) -> Option<&str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./*{},".contains(letter);
    let path = code.strip_prefix("./").unwrap_or(code).trim_end_matches('/');
    (!path.is_empty() && code.chars().all(is_plain)).then_some(path)
}

fn starts_at_root(tree: &Tree, path: &str) -> bool {
    path.split_once('/').is_some_and(|(first, _)| tree.has_folder(first))
}

fn exists(tree: &Tree, path: &str) -> bool {
    if !path.contains(['*', '{']) {
        return tree.has(path);
    }
    let glob = GlobBuilder::new(path).literal_separator(true).build();
    glob.is_ok_and(|glob| {
        let matcher = glob.compile_matcher();
        tree.paths().any(|path| matcher.is_match(path))
    })
}

/// The path from the root that a path relative to a document's folder means.
fn resolve(document: &str, path: &str) -> Option<String> {
    let mut parts: Vec<_> = document.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{check_code, check_link, check_word};
    use crate::tree::Tree;

    const DOCUMENT: &str = "crates/README.md";

    fn tree() -> Tree {
        Tree::of(&[
            ("Cargo.toml", ""),
            (".ci/run", ""),
            ("crates/README.md", ""),
            ("crates/data/src/lib.rs", ""),
            ("tests/architecture.rs", ""),
        ])
    }

    #[track_caller]
    fn code(code: &str, accepted: bool) {
        let problem = check_code(&tree(), DOCUMENT, code);
        assert_eq!(problem.is_none(), accepted, "{code}: {problem:?}");
    }

    #[track_caller]
    fn link(target: &str, accepted: bool) {
        let problem = check_link(&tree(), DOCUMENT, target);
        assert_eq!(problem.is_none(), accepted, "{target}: {problem:?}");
    }

    #[test]
    fn inline_code_that_exists() {
        code("crates/data", true);
        code("crates/data/", true);
        code("./.ci/run", true);
        code("crates/*/src/lib.rs", true);
        code("crates/{data,metrics}/src", true);
        code("data/src/lib.rs", true);
        code("src/lib.rs", true);
        code("lib.rs", true);
    }

    #[test]
    fn inline_code_that_does_not_exist() {
        code("crates/hub", false);
        code(".ci/walk", false);
        code("crates/*/src/main.rs", false);
        code("crates/*.rs", false);
        code("src/gone.rs", false);
        code("OTHER.md", false);
    }

    #[test]
    fn inline_code_that_is_no_path_of_ours() {
        code("config.toml", true);
        code("root/{train,val}/<class>/*", true);
        code("model.safetensors", true);
        code("runs/first", true);
        code("[n, h, w, c]", true);
    }

    #[test]
    fn links_are_relative_to_their_document() {
        link("data", true);
        link("../tests/architecture.rs#top", true);
        link("..", true);
        link("#words", true);
        link("https://example.org/gone", true);
        link("metrics", false);
        link("../../outside", false);
        link("crates/data", false);
    }

    #[test]
    fn words_of_commands_are_paths_from_the_root() {
        let problem = |word| check_word(&tree(), word);
        assert!(problem(".ci/run").is_none() && problem("lib2.rs").is_none());
        assert!(problem("crates/hub").is_some());
    }
}
