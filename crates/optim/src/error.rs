//! What can go wrong when parameters are grouped or moved.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A value of the configuration that cannot be.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The configuration key.
        key: &'static str,
        /// The value as given.
        value: String,
        /// Why it cannot be, and what would do.
        reason: String,
    },
    /// A group rule that matches no parameter.
    #[error("optim.groups: no parameter's name starts with {prefix:?}; the names start with {known}")]
    NoSuchGroup {
        /// The prefix as given.
        prefix: String,
        /// First parts of the names there are.
        known: String,
    },
    /// Saved state that does not fit the parameters.
    #[error("optimizer state {name} {problem}")]
    State {
        /// The tensor's name in the state.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// candle could not compute.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl OptimError {
    pub(crate) fn config(key: &'static str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Config { key, value: value.to_string(), reason: reason.into() }
    }
}
