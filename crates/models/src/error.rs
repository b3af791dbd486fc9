//! What can go wrong when a model is built.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A value of the model's configuration that no model can be built from.
    #[error("model.{key} = {value}: {reason}")]
    Config {
        /// The configuration key, below `model`.
        key: &'static str,
        /// The value as given.
        value: String,
        /// Why it cannot be, and what would do.
        reason: String,
    },
    /// A policy of freezing that there is not.
    #[error("no such freeze policy: {text:?}; there are {}", crate::Freeze::FORMS.join(", "))]
    UnknownFreeze {
        /// The policy as given.
        text: String,
    },
    /// A layer that the network does not have.
    #[error("the network has no layer {layer:?}; there are {}", known.join(", "))]
    UnknownLayer {
        /// The layer as given.
        layer: String,
        /// Stem, stages and head.
        known: Vec<String>,
    },
    /// A backbone of another family, in a build that leaves candle-transformers out.
    #[error(
        "{backbone} is one of candle-transformers' networks, and this build has none; build with --features foreign"
    )]
    NotCompiled {
        /// The backbone that was asked for.
        backbone: String,
    },
    /// candle could not build or run a layer, for example because a tensor is missing or has another shape.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl ModelError {
    pub(crate) fn config(key: &'static str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Config { key, value: value.to_string(), reason: reason.into() }
    }
}
