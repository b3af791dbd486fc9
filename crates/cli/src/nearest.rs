//! The name that was probably meant.

/// `, did you mean …?`, or nothing where nothing is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let likeness = |known: &'a str| (strsim::jaro_winkler(word, known), known);
    match known.into_iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, known)) if likeness > 0.75 => format!(", did you mean {known}?"),
        _ => String::new(),
    }
}
