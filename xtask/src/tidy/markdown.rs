//! The rule that what Markdown names exists: links, paths, crates, commands; and that its
//! examples run.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::names::Names;
use super::{Finding, claims, commands, rust};
use crate::tree::Tree;

/// Languages of fenced blocks whose every line is a command.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", ""];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let names = Names::read(tree);
    let mut findings = Vec::new();
    for (path, text) in tree.texts("md") {
        let mut document = Document { tree, names: &names, path, findings: Vec::new() };
        document.check(text);
        findings.append(&mut document.findings);
    }
    findings
}

struct Document<'a> {
    tree: &'a Tree,
    names: &'a Names,
    path: &'a str,
    findings: Vec<Finding>,
}

impl Document<'_> {
    fn check(&mut self, text: &str) {
        let mut language = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = text[..range.start].matches('\n').count() + 1;
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    let problem = claims::check_link(self.tree, self.path, &dest_url);
                    self.add(line, problem);
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.to_string(),
                        CodeBlockKind::Indented => "text".to_owned(),
                    };
                    self.add(line, rust::is_ignored(&info).then(ignored_example));
                    language = Some(info);
                }
                Event::End(TagEnd::CodeBlock) => language = None,
                Event::Text(code) => {
                    if let Some(language) = &language {
                        self.check_block(line, language, &code);
                    }
                }
                Event::Code(code) => self.check_inline(line, &code),
                _ => {}
            }
        }
    }

    fn check_inline(&mut self, line: usize, code: &str) {
        // One word is a path or a name; several may be a command.
        if code.split_whitespace().count() > 1 {
            self.add(line, commands::check_line(self.tree, self.names, code));
        } else {
            self.add(line, claims::check_code(self.tree, self.path, code));
        }
        self.add(line, commands::check_packages(self.names, code));
    }

    fn check_block(&mut self, first_line: usize, language: &str, code: &str) {
        for (index, text) in code.lines().enumerate() {
            let line = first_line + index;
            if SHELLS.contains(&language) || text.starts_with("$ ") {
                self.add(line, commands::check_line(self.tree, self.names, text));
            }
            self.add(line, commands::check_packages(self.names, text));
        }
    }

    fn add(&mut self, line: usize, problems: impl IntoIterator<Item = String>) {
        let path = self.path;
        self.findings.extend(problems.into_iter().map(|problem| Finding::new(path, line, problem)));
    }
}

fn ignored_example() -> String {
    "an ignored example; make it run, or mark it `no_run` or `text`".to_owned()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tree::Tree;

    #[track_caller]
    fn lines(markdown: &str, expected: &[usize]) {
        let findings = check(&Tree::of(&[
            ("README.md", markdown),
            ("crates/cli/Cargo.toml", "[package]\nname = \"taper-cli\""),
            ("crates/cli/src/args.rs", "pub enum Command { Train }"),
        ]));
        let lines: Vec<_> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{findings:?}");
    }

    #[test]
    fn links_and_images_are_followed() {
        lines("[a](crates/cli) and <https://example.org>", &[]);
        lines("\n[a](crates/hub)", &[2]);
        lines("![a](gone.png)", &[1]);
        lines("[a][b]\n\n[b]: gone", &[1]);
    }

    #[test]
    fn inline_code_is_read_as_path_crate_or_command() {
        lines("`crates/cli` `taper-cli` `taper train` `cargo xtask ci`", &[]);
        lines("`crates/hub`\n`taper-hub`\n`taper fetch`\n`cargo xtask go`", &[1, 2, 3, 4]);
        lines("crates/hub in prose", &[]);
    }

    #[test]
    fn shell_blocks_are_commands_line_by_line() {
        lines("```sh\ncargo xtask ci\ntaper gone\n```\n", &[3]);
        lines("```\ncargo gone\n```\n", &[2]);
        lines("```text\ntaper gone\n$ taper gone\n```\n", &[3]);
        lines("```toml\ntaper-hub = 1\n```\n", &[2]);
    }

    #[test]
    fn cells_of_tables_are_read() {
        lines("| a | b |\n|---|---|\n| `crates/hub` | c |\n", &[3]);
    }

    #[test]
    fn ignored_examples_are_found() {
        lines("```rust\nfn main() {}\n```\n", &[]);
        lines("```rust,ignore\nfn main() {}\n```\n", &[1]);
    }
}
