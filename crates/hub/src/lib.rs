//! `taper-hub` brings pretrained weights in and takes trained ones out: catalog, download, key maps, loading, export.
//!
//! **Owns** the names of published weights and data sets ([`catalog`], [`archives`]) and the network ([`download`]).
//! **Does not know** training: it hands over files and what they are.
//!
//! In reading order: [`catalog`] turns a name into a repository, [`download`] fetches its files into the cache that
//! Python's `huggingface_hub` uses too, [`archives`] makes the folder of a data set.
//!
//! ```
//! use taper_hub::catalog::WeightsName;
//!
//! let name = WeightsName::parse("resnet50.a1_in1k")?;
//! assert_eq!(name.repository.name(), "timm/resnet50.a1_in1k");
//! # Ok::<(), taper_hub::download::FetchError>(())
//! ```
//!
//! Read `taper-models` next: the networks that the weights are for.

#![forbid(unsafe_code)]

pub mod archives;
pub mod catalog;
pub mod download;
