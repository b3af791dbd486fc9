//! The rule that `crates/README.md`, the map, has a row for every crate.

use super::Finding;
use crate::tree::Tree;

const MAP: &str = "crates/README.md";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let text = tree.text(MAP).unwrap_or_default();
    let rows: Vec<_> = text.lines().filter_map(first_cell).collect();
    crate_folders(tree)
        .filter(|name| !rows.contains(name))
        .map(|name| Finding::new(MAP, 1, format!("the map has no row for `{name}`")))
        .collect()
}

fn crate_folders(tree: &Tree) -> impl Iterator<Item = &str> {
    tree.files().filter_map(|(path, _)| {
        let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
        (!name.contains('/')).then_some(name)
    })
}

/// The name in the first cell of a table's row, without the marks of code and link around it.
fn first_cell(line: &str) -> Option<&str> {
    let cell = line.trim().strip_prefix('|')?.split('|').next()?.trim();
    let cell = cell.strip_prefix('[').unwrap_or(cell);
    let text = cell.split(']').next()?;
    Some(text.trim_matches('`'))
}

#[cfg(test)]
mod tests {
    use super::{MAP, check};
    use crate::tree::Tree;

    #[track_caller]
    fn num_findings(map: &str) -> usize {
        check(&Tree::of(&[("crates/data/Cargo.toml", ""), (MAP, map)])).len()
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(num_findings("| [`data`](data) | bytes |"), 0);
        assert_eq!(num_findings("| data | bytes |"), 0);
        assert_eq!(num_findings("| `metrics` | data |"), 1);
        assert_eq!(num_findings("the crate `data` in prose"), 1);
    }

    #[test]
    fn a_missing_map_is_found() {
        assert_eq!(check(&Tree::of(&[("crates/a/Cargo.toml", "")])).len(), 1);
    }
}
