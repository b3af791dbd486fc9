//! One module a command: arguments in, calls in order, results out.

pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod fetch;
pub(crate) mod finetune;
pub(crate) mod inspect;
pub(crate) mod predict;
pub(crate) mod reproduce;
pub(crate) mod train;
