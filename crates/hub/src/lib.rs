//! Pretrained weights in and out: catalog, download, key maps, loading, export.

pub mod archives;
pub mod catalog;
pub mod download;
