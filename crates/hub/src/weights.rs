//! Weights files in and out: any of the forms and names they come in, to the names of `taper-models` and back.
//!
//! [`WeightsFile`] reads safetensors and what `torch.save` wrote; [`Pretrained`] understands the tensors as a ResNet
//! (or a backbone of another family) by their [`Naming`] and the [`Documents`] beside them; [`load`] puts them into a model and gives a [`LoadReport`];
//! [`export()`] goes the other way.
//!
//! ```
//! use taper_hub::weights::Naming;
//!
//! let theirs = "resnet.encoder.stages.0.layers.1.layer.0.convolution.weight";
//! assert_eq!(Naming::Transformers.to_ours(theirs), "layer1.1.conv1.weight");
//! assert_eq!(Naming::Transformers.to_theirs("fc.weight").as_deref(), Some("classifier.1.weight"));
//! ```

mod config;
mod error;
mod export;
mod file;
mod foreign;
mod identify;
mod load;
mod names;
mod pretrained;
mod raw;
mod safetensors;
mod torch;

pub use config::{CONFIG, Description, Document, Documents, Origin, PREPROCESSOR_CONFIG};
pub use error::WeightsError;
pub use export::{Export, Source, export};
pub use file::{FileForm, WeightsFile};
pub use identify::{Identified, identify};
pub use load::{Head, LoadReport, Reshaped, load};
pub use names::Naming;
pub use pretrained::Pretrained;
