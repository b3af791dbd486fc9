//! The rule that every golden names the script that made it.
//!
//! A `.safetensors` file names it under `script` in its metadata, a `.json` file under its key
//! `script`; both as a path from the root.

use serde_json::Value;

use super::Finding;
use crate::golden::{OUTPUT, SCRIPTS};
use crate::tree::Tree;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files()
        .filter(|(path, _)| is_golden(path))
        .filter_map(|(path, bytes)| {
            let problem = script_of(path, bytes).and_then(|script| exists(tree, &script));
            Some(Finding::new(path, 1, problem.err()?))
        })
        .collect()
}

fn is_golden(path: &str) -> bool {
    path.strip_prefix(OUTPUT).is_some_and(|rest| rest.starts_with('/') && !rest.ends_with(".md"))
}

fn script_of(path: &str, bytes: &[u8]) -> Result<String, String> {
    let script = if path.ends_with(".safetensors") {
        safetensors_header(bytes)
            .ok_or("is not a safetensors file")?
            .get("__metadata__")
            .and_then(|metadata| metadata.get("script"))
            .cloned()
    } else if path.ends_with(".json") {
        serde_json::from_slice::<Value>(bytes).map_err(|error| format!("is not JSON: {error}"))?.get("script").cloned()
    } else {
        return Err("a golden is a .safetensors or .json file that names its script".to_owned());
    };
    match script {
        Some(Value::String(script)) => Ok(script),
        _ => Err("does not name the script that made it (metadata key `script`)".to_owned()),
    }
}

fn safetensors_header(bytes: &[u8]) -> Option<Value> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    serde_json::from_slice(rest.get(..length)?).ok()
}

fn exists(tree: &Tree, script: &str) -> Result<(), String> {
    let inside = script.strip_prefix(SCRIPTS).is_some_and(|rest| rest.starts_with('/'));
    if inside && tree.has(script) {
        Ok(())
    } else {
        Err(format!("names the script {script}, which is not in {SCRIPTS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tree::Tree;

    fn safetensors(header: &str) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes
    }

    #[track_caller]
    fn problem(path: &str, bytes: Vec<u8>) -> Option<String> {
        let mut tree = Tree::of(&[("xtask/golden/a.py", "")]);
        tree.insert(path, bytes);
        check(&tree).pop().map(|finding| finding.message)
    }

    #[track_caller]
    fn finds(path: &str, bytes: Vec<u8>, message: &str) {
        let problem = problem(path, bytes).unwrap();
        assert!(problem.contains(message), "{problem}");
    }

    #[test]
    fn a_golden_with_its_script_is_accepted() {
        let header = r#"{"__metadata__":{"script":"xtask/golden/a.py"}}"#;
        assert_eq!(problem("data/golden/x/y.safetensors", safetensors(header)), None);
        let json = br#"{"script":"xtask/golden/a.py","loss":1}"#.to_vec();
        assert_eq!(problem("data/golden/y.json", json), None);
        assert_eq!(problem("data/golden/README.md", Vec::new()), None);
        assert_eq!(problem("data/recipes/y.json", Vec::new()), None);
    }

    #[test]
    fn a_golden_without_its_script_is_found() {
        finds("data/golden/y.safetensors", safetensors("{}"), "does not name");
        finds("data/golden/y.json", b"{\"script\":3}".to_vec(), "does not name");
        finds("data/golden/y.npy", Vec::new(), "a golden is");
    }

    #[test]
    fn a_script_that_is_not_there_is_found() {
        for script in ["xtask/golden/b.py", "a.py", "Cargo.toml"] {
            let json = format!("{{\"script\":\"{script}\"}}").into_bytes();
            finds("data/golden/y.json", json, "which is not in");
        }
    }

    #[test]
    fn a_broken_golden_is_found() {
        finds("data/golden/y.safetensors", vec![1, 2], "is not a safetensors");
        finds("data/golden/y.safetensors", vec![0xff; 16], "is not a safetensors");
        finds("data/golden/y.json", b"{".to_vec(), "is not JSON");
    }
}
