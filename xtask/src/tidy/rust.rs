//! Rules on Rust sources: sizes, leftovers, ignored tests and examples, uncounted slow tests.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::Finding;
use crate::tree::Tree;

/// A file with more lines is a finding.
const MAX_FILE_LINES: usize = 500;
/// A function with more lines is a finding.
const MAX_FUNCTION_LINES: usize = 60;
/// Functions with more lines are named, so that a review sees them grow.
pub(crate) const GOOD_FUNCTION_LINES: usize = 40;
/// Macros that mark unfinished work.
const LEFTOVERS: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Variable that only the counting helper of the package in `tests` may read.
const SLOW_VARIABLE: &str = "RUN_SLOW_TESTS";

/// What the rules say about all sources together.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    pub(crate) num_files: usize,
    pub(crate) num_functions: usize,
    /// Functions that are longer than is good, but not too long.
    pub(crate) long: Vec<Finding>,
}

/// Applies the rules to every `.rs` file.
pub(crate) fn check(tree: &Tree) -> Report {
    let mut report = Report::default();
    for (path, text) in tree.texts("rs") {
        report.num_files += 1;
        check_file(path, text, &mut report);
    }
    report
}

fn check_file(path: &str, text: &str, report: &mut Report) {
    let num_lines = text.lines().count();
    if num_lines > MAX_FILE_LINES {
        report.findings.push(Finding::new(
            path,
            num_lines,
            format!("{num_lines} lines; a file has at most {MAX_FILE_LINES}"),
        ));
    }
    ignored_examples(path, text, &mut report.findings);
    if path.starts_with("crates/") {
        uncounted_slow_tests(path, text, &mut report.findings);
    }
    match (text.parse::<TokenStream>(), syn::parse_file(text)) {
        (Ok(tokens), Ok(file)) => {
            scan_tokens(path, tokens, &mut report.findings);
            function_sizes(path, &file, report);
        }
        (Err(error), _) => unreadable(path, 1, &error.to_string(), report),
        (_, Err(error)) => {
            unreadable(path, error.span().start().line, &error.to_string(), report);
        }
    }
}

fn unreadable(path: &str, line: usize, reason: &str, report: &mut Report) {
    let message = format!("cannot be parsed: {reason}");
    report.findings.push(Finding::new(path, line, message));
}

fn ignored_examples(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let comment = line.strip_prefix("///").or(line.strip_prefix("//!"));
        if let Some(info) = comment.and_then(|text| text.trim_start().strip_prefix("```"))
            && is_ignored(info)
        {
            findings.push(Finding::new(
                path,
                index + 1,
                "an ignored doc example; make it run, or mark it `no_run` or `text`",
            ));
        }
    }
}

/// Whether the words after a code fence tell rustdoc to pass the example over.
pub(crate) fn is_ignored(info: &str) -> bool {
    info.split([',', ' ', '{', '}']).any(|word| word == "ignore" || word.starts_with("ignore-"))
}

fn uncounted_slow_tests(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        if line.contains(SLOW_VARIABLE) {
            findings.push(Finding::new(
                path,
                index + 1,
                format!(
                    "reads {SLOW_VARIABLE}; a slow test lies in the package of `tests` and asks \
                     `slow_test`, so that it is counted"
                ),
            ));
        }
    }
}

/// Looks at tokens and not at text, so that words in strings and comments do not count, and looks
/// inside macro calls, which the syntax tree keeps closed.
fn scan_tokens(path: &str, tokens: TokenStream, findings: &mut Vec<Finding>) {
    let trees: Vec<_> = tokens.into_iter().collect();
    for (index, tree) in trees.iter().enumerate() {
        let line = tree.span().start().line;
        let rest = &trees[index + 1..];
        match tree {
            TokenTree::Ident(name) if is_leftover(name, rest) => {
                findings.push(Finding::new(path, line, format!("`{name}!` is left over")));
            }
            TokenTree::Punct(mark) if mark.as_char() == '#' && is_ignore_attribute(rest) => {
                let message = "an ignored test; let it return early unless it is asked for";
                findings.push(Finding::new(path, line, message));
            }
            TokenTree::Group(group) => scan_tokens(path, group.stream(), findings),
            _ => {}
        }
    }
}

fn is_leftover(name: &Ident, rest: &[TokenTree]) -> bool {
    let is_call = matches!(rest, [TokenTree::Punct(mark), TokenTree::Group(_), ..] if mark.as_char() == '!');
    is_call && LEFTOVERS.iter().any(|leftover| name == leftover)
}

fn is_ignore_attribute(rest: &[TokenTree]) -> bool {
    let Some(TokenTree::Group(group)) = rest.first() else {
        return false;
    };
    if group.delimiter() != Delimiter::Bracket {
        return false;
    }
    let words: Vec<_> = group.stream().into_iter().collect();
    match words.as_slice() {
        [TokenTree::Ident(name), TokenTree::Group(inner), ..] if name == "cfg_attr" => {
            inner.stream().into_iter().any(|tree| matches!(tree, TokenTree::Ident(word) if word == "ignore"))
        }
        [TokenTree::Ident(name), ..] => name == "ignore",
        _ => false,
    }
}

fn function_sizes(path: &str, file: &syn::File, report: &mut Report) {
    let mut functions = Functions::default();
    functions.visit_file(file);
    report.num_functions += functions.found.len();
    for (name, line, num_lines) in functions.found {
        if num_lines > MAX_FUNCTION_LINES {
            let message = format!("`{name}` has {num_lines} lines; a function has at most {MAX_FUNCTION_LINES}");
            report.findings.push(Finding::new(path, line, message));
        } else if num_lines > GOOD_FUNCTION_LINES {
            let message = format!("`{name}` has {num_lines} lines");
            report.long.push(Finding::new(path, line, message));
        }
    }
}

/// Name, first line and number of lines of every function with a body.
#[derive(Default)]
struct Functions {
    found: Vec<(String, usize, usize)>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let last = body.brace_token.span.close().end().line;
        self.found.push((signature.ident.to_string(), first, last - first + 1));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, check};
    use crate::tree::Tree;

    fn report(path: &str, text: &str) -> Report {
        check(&Tree::of(&[(path, text)]))
    }

    #[track_caller]
    fn finds(text: &str, message: &str) {
        let findings = report("crates/data/src/lib.rs", text).findings;
        assert!(findings.len() == 1 && findings[0].message.contains(message), "{text} gives {findings:?}");
    }

    #[track_caller]
    fn accepts(text: &str) {
        let findings = report("crates/data/src/lib.rs", text).findings;
        assert!(findings.is_empty(), "{text} gives {findings:?}");
    }

    fn function_of(num_lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    ();\n".repeat(num_lines - 2))
    }

    #[test]
    fn files_have_at_most_500_lines() {
        accepts(&"//\n".repeat(500));
        finds(&"//\n".repeat(501), "501 lines");
    }

    #[test]
    fn functions_have_at_most_60_lines() {
        accepts(&function_of(60));
        finds(&function_of(61), "`f` has 61 lines");
        finds(&format!("impl A {{ {} }}", function_of(61)), "`f` has 61 lines");
        finds(&format!("trait A {{ {} }}", function_of(61)), "`f` has 61 lines");
        finds(&format!("mod a {{ {} }}", function_of(61)), "`f` has 61 lines");
    }

    #[test]
    fn attributes_and_docs_are_not_lines_of_a_function() {
        accepts(&format!("{}#[inline]\n{}", "/// a\n".repeat(20), function_of(60)));
    }

    #[test]
    fn functions_above_40_lines_are_named() {
        let named = |lines| report("xtask/src/main.rs", &function_of(lines)).long.len();
        assert_eq!((named(40), named(41), named(60)), (0, 1, 1));
    }

    #[test]
    fn leftover_macros_are_found() {
        finds("fn f() { todo!() }", "`todo!`");
        finds("fn f() { let a = unimplemented!(\"b\"); }", "`unimplemented!`");
        finds("fn f() { assert_eq!(1, dbg!(1)); }", "`dbg!`");
        accepts("fn f() { let todo = 1; if todo != (2) { g(\"todo!()\") } } // todo!()");
    }

    #[test]
    fn ignored_tests_are_found() {
        finds("#[test]\n#[ignore]\nfn f() {}", "an ignored test");
        finds("#[ignore = \"slow\"]\nfn f() {}", "an ignored test");
        finds("#[cfg_attr(unix, ignore)]\nfn f() {}", "an ignored test");
        accepts("#[test]\nfn ignore() {}");
        accepts("#[serde(ignore)]\nfn f() {}");
    }

    #[test]
    fn ignored_examples_are_found() {
        finds("/// ```ignore\n/// a\n/// ```\nfn f() {}", "ignored doc");
        finds("//! ```rust, ignore\n//! a\n//! ```", "ignored doc");
        finds("//! ```ignore-windows\n//! a\n//! ```", "ignored doc");
        accepts("//! ```no_run\n//! a\n//! ```\n//! ```text\n//! ignore\n//! ```");
    }

    #[test]
    fn slow_tests_of_crates_are_sent_to_the_counting_helper() {
        let text = "fn f() { g(\"RUN_SLOW_TESTS\") }";
        finds(text, "is counted");
        assert!(report("tests/src/lib.rs", text).findings.is_empty());
    }

    #[test]
    fn a_file_that_does_not_parse_is_a_finding() {
        finds("fn f( {}", "cannot be parsed");
        finds("fn 1() {}", "cannot be parsed");
    }
}
