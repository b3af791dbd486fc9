//! The names that Markdown may use: packages, binaries, chores, commands of `taper`.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use syn::{Item, Meta};

use crate::Cli;
use crate::tree::Tree;

/// Folder of the sources that declare the commands of `taper`.
const CLI_SOURCES: &str = "crates/cli/src/";
/// Name of the enum there that has one variant a command.
const CLI_ENUM: &str = "Command";

/// What exists, by kind.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Packages of the workspace.
    pub(crate) packages: BTreeSet<String>,
    /// Binaries of the workspace that are named otherwise than their package.
    pub(crate) binaries: BTreeSet<String>,
    /// Subcommands of `cargo xtask`.
    pub(crate) chores: BTreeSet<String>,
    /// Subcommands of `taper`.
    pub(crate) commands: BTreeSet<String>,
}

impl Names {
    /// Reads the names out of manifests, sources and this program's own command line.
    pub(crate) fn read(tree: &Tree) -> Self {
        let mut names = Self { chores: chores(), commands: commands(tree), ..Self::default() };
        for (path, text) in tree.texts("toml") {
            if (path == "Cargo.toml" || path.ends_with("/Cargo.toml"))
                && let Ok(manifest) = text.parse::<toml::Table>()
            {
                names.add_manifest(&manifest);
            }
        }
        names
    }

    fn add_manifest(&mut self, manifest: &toml::Table) {
        let name_of = |table: &toml::Value| Some(table.get("name")?.as_str()?.to_owned());
        self.packages.extend(manifest.get("package").and_then(name_of));
        let binaries = manifest.get("bin").and_then(toml::Value::as_array);
        self.binaries.extend(binaries.into_iter().flatten().filter_map(name_of));
    }
}

fn chores() -> BTreeSet<String> {
    Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).chain(["help".to_owned()]).collect()
}

/// Variants of the enum `Command`, named as clap names them.
fn commands(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (path, text) in tree.texts("rs") {
        if !path.starts_with(CLI_SOURCES) {
            continue;
        }
        let items = syn::parse_file(text).map(|file| file.items);
        for item in items.into_iter().flatten() {
            if let Item::Enum(item) = item
                && item.ident == CLI_ENUM
            {
                names.extend(item.variants.iter().map(command_name));
                names.insert("help".to_owned());
            }
        }
    }
    names
}

fn command_name(variant: &syn::Variant) -> String {
    variant.attrs.iter().find_map(given_name).unwrap_or_else(|| kebab_case(&variant.ident.to_string()))
}

/// The name in `#[command(name = "…")]`.
fn given_name(attribute: &syn::Attribute) -> Option<String> {
    let Meta::List(list) = &attribute.meta else {
        return None;
    };
    if !list.path.is_ident("command") && !list.path.is_ident("clap") {
        return None;
    }
    let text = list.tokens.to_string();
    let (_, rest) = text.split_once("name = \"")?;
    rest.split('"').next().map(str::to_owned)
}

fn kebab_case(name: &str) -> String {
    let mut kebab = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(letter.to_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::Names;
    use crate::tree::Tree;

    #[test]
    fn names_come_from_manifests_and_the_command_enum() {
        let names = Names::read(&Tree::of(&[
            ("crates/cli/Cargo.toml", "[package]\nname = \"taper-cli\"\n[[bin]]\nname = \"taper\"\n"),
            (
                "crates/cli/src/args.rs",
                "enum Command { Train(A), #[command(name = \"look\", about)] Inspect, PrintConfig }",
            ),
            ("crates/data/src/lib.rs", "enum Command { Other }"),
        ]));
        assert!(names.packages.contains("taper-cli") && names.binaries.contains("taper"));
        let commands: Vec<_> = names.commands.iter().collect();
        assert_eq!(commands, ["help", "look", "print-config", "train"]);
        assert!(names.chores.contains("tidy") && names.chores.contains("golden"));
    }
}
