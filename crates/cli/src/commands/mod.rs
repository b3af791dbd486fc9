//! One module a command: arguments in, calls in order, results out.

pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod fetch;
pub(crate) mod finetune;
pub(crate) mod help;
pub(crate) mod inspect;
pub(crate) mod lr_find;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod reproduce;
pub(crate) mod submit;
pub(crate) mod train;
