//! Names of pretrained weights.
//!
//! [`WEIGHTS`] is the table of those that are known here; [`WeightsName::parse`] reads a short name (`resnet18`), a name
//! without its owner (`resnet18.a1_in1k`) or any `owner/name[@revision]`, in the table or not.
//!
//! ```
//! use taper_hub::catalog::WeightsName;
//!
//! let name = WeightsName::parse("resnet18")?;
//! assert_eq!(name.repository.name(), "timm/resnet18.tv_in1k");
//! assert_eq!(name.known.map(|known| known.licence), Some("BSD-3-Clause"));
//! assert!(WeightsName::parse("resnet81").unwrap_err().to_string().contains("resnet18"));
//! # Ok::<(), taper_hub::download::FetchError>(())
//! ```

use crate::download::{FetchError, Repository, Result};

/// One row of the catalog.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnownWeights {
    /// `owner/name` on the hub.
    pub repository: &'static str,
    /// Files that may hold the weights, the preferred one first.
    pub files: &'static [&'static str],
    /// Name of the architecture in `taper-models`.
    pub architecture: &'static str,
    /// Outputs of the head; none where there is no head.
    pub num_classes: Option<usize>,
    /// SPDX identifier.
    pub licence: &'static str,
    /// Accuracy on ImageNet's validation images, as published; `None` where the publisher gives none.
    pub top1: Option<PublishedTop1>,
}

impl Eq for KnownWeights {}

/// A published accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedTop1 {
    /// Fraction of the 50,000 validation images of ImageNet-1k.
    pub top1: f64,
    /// Side of the image that it was measured at, pixels. Where several sides were measured, it is the one that the
    /// repository's configuration gives.
    pub image_size: usize,
    /// Who says so.
    pub source: &'static str,
}

/// The file that has timm's measurements, read at commit aa4b5850c154.
const TIMM_RESULTS: &str = "huggingface/pytorch-image-models, results/results-imagenet.csv";
const SAFETENSORS: &[&str] = &["model.safetensors"];
/// Converted later, and not in every revision.
const TRANSFORMERS: &[&str] = &["model.safetensors", "pytorch_model.bin"];

const fn timm(
    repository: &'static str,
    architecture: &'static str,
    licence: &'static str,
    top1: f64,
    image_size: usize,
) -> KnownWeights {
    let top1 = Some(PublishedTop1 { top1, image_size, source: TIMM_RESULTS });
    KnownWeights { repository, files: SAFETENSORS, architecture, num_classes: Some(1000), licence, top1 }
}

const fn microsoft(repository: &'static str, architecture: &'static str) -> KnownWeights {
    KnownWeights {
        repository,
        files: TRANSFORMERS,
        architecture,
        num_classes: Some(1000),
        licence: "Apache-2.0",
        // The model cards name no accuracy.
        top1: None,
    }
}

/// Trained without labels. The licence is the model card's.
const fn dinov2(repository: &'static str, architecture: &'static str) -> KnownWeights {
    KnownWeights { num_classes: None, ..microsoft(repository, architecture) }
}

/// All weights that are known by name.
///
/// `tv` are torchvision's first (its `IMAGENET1K_V1`), `a1` those of "ResNet strikes back" (Wightman et al. 2021), `ra2`
/// timm's own, `fb_swsl` semi-weakly supervised on a billion photos (Yalniz et al. 2019; not for commercial use).
/// Repositories and licences are those of `timm/models/*.py`. No revision is pinned: no publisher gives one.
///
/// After the ResNets come backbones of other families, for heads on their frozen features.
pub const WEIGHTS: &[KnownWeights] = &[
    timm("timm/resnet18.tv_in1k", "resnet18", "BSD-3-Clause", 0.69752, 224),
    timm("timm/resnet34.tv_in1k", "resnet34", "BSD-3-Clause", 0.73298, 224),
    timm("timm/resnet50.tv_in1k", "resnet50", "BSD-3-Clause", 0.76156, 224),
    timm("timm/resnet101.tv_in1k", "resnet101", "BSD-3-Clause", 0.77404, 224),
    timm("timm/resnet152.tv_in1k", "resnet152", "BSD-3-Clause", 0.78330, 224),
    timm("timm/resnet18.a1_in1k", "resnet18", "Apache-2.0", 0.71504, 224),
    timm("timm/resnet34.a1_in1k", "resnet34", "Apache-2.0", 0.76420, 224),
    timm("timm/resnet50.a1_in1k", "resnet50", "Apache-2.0", 0.80382, 224),
    timm("timm/resnet101.a1_in1k", "resnet101", "Apache-2.0", 0.81494, 224),
    timm("timm/resnet152.a1_in1k", "resnet152", "Apache-2.0", 0.81998, 224),
    timm("timm/resnet18.fb_swsl_ig1b_ft_in1k", "resnet18", "CC-BY-NC-4.0", 0.73286, 224),
    timm("timm/resnet50.fb_swsl_ig1b_ft_in1k", "resnet50", "CC-BY-NC-4.0", 0.81146, 224),
    timm("timm/resnet18d.ra2_in1k", "resnet18d", "Apache-2.0", 0.72296, 224),
    timm("timm/resnet50d.ra2_in1k", "resnet50d", "Apache-2.0", 0.80546, 224),
    microsoft("microsoft/resnet-18", "resnet18"),
    microsoft("microsoft/resnet-34", "resnet34"),
    microsoft("microsoft/resnet-50", "resnet50"),
    microsoft("microsoft/resnet-101", "resnet101"),
    microsoft("microsoft/resnet-152", "resnet152"),
    dinov2("facebook/dinov2-small", "dinov2_small"),
    dinov2("facebook/dinov2-base", "dinov2_base"),
    timm("timm/convnext_atto.d2_in1k", "convnext_atto", "Apache-2.0", 0.75672, 224),
    timm("timm/convnext_femto.d1_in1k", "convnext_femto", "Apache-2.0", 0.77498, 224),
    timm("timm/convnext_pico.d1_in1k", "convnext_pico", "Apache-2.0", 0.79516, 224),
    timm("timm/convnext_nano.in12k_ft_in1k", "convnext_nano", "Apache-2.0", 0.82306, 224),
    timm("timm/convnext_tiny.in12k_ft_in1k", "convnext_tiny", "Apache-2.0", 0.84192, 224),
    timm("timm/convnext_tiny.fb_in1k", "convnext_tiny", "Apache-2.0", 0.82066, 224),
    timm("timm/convnext_small.in12k_ft_in1k", "convnext_small", "Apache-2.0", 0.85164, 224),
    timm("timm/convnext_base.fb_in22k_ft_in1k", "convnext_base", "Apache-2.0", 0.85814, 224),
    timm("timm/mobilenetv4_conv_small.e2400_r224_in1k", "mobilenetv4_conv_small", "Apache-2.0", 0.73756, 224),
    timm("timm/mobilenetv4_conv_medium.e500_r256_in1k", "mobilenetv4_conv_medium", "Apache-2.0", 0.79916, 256),
    timm("timm/mobilenetv4_conv_large.e600_r384_in1k", "mobilenetv4_conv_large", "Apache-2.0", 0.82974, 384),
];

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsName {
    /// Where the files are.
    pub repository: Repository,
    /// The row of the catalog; `None` for a repository that is not in it.
    pub known: Option<&'static KnownWeights>,
}

impl WeightsName {
    /// Reads a name. The name of an architecture alone means torchvision's weights (`tv_in1k`), or timm's where
    /// torchvision has none: trained with cross-entropy and without label smoothing, their features carry over better to
    /// other data than those of longer recipes (Kornblith et al. 2019, section 4.2), and their licence is the freest.
    ///
    /// # Errors
    /// A name without an owner that is not in the table (the error lists the nearest), or one no repository can have.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, revision) = text.split_once('@').map_or((text, None), |(name, revision)| (name, Some(revision)));
        let known = find(name);
        let repository = match (known, revision) {
            (Some(known), None) => Repository::parse(known.repository)?,
            (Some(known), Some(revision)) => Repository::parse(&format!("{}@{revision}", known.repository))?,
            (None, _) if name.contains('/') => Repository::parse(text)?,
            (None, _) => {
                let nearest = nearest(name);
                return Err(FetchError::UnknownName { kind: "weights", name: text.to_owned(), nearest });
            }
        };
        Ok(Self { repository, known })
    }
}

/// The row of a full name, of one without its owner, or of an architecture: the table begins with its default.
fn find(name: &str) -> Option<&'static KnownWeights> {
    let by_repository = |known: &&KnownWeights| known.repository == name || without_owner(known) == name;
    let by_architecture = |known: &&KnownWeights| known.architecture == name;
    WEIGHTS.iter().find(by_repository).or_else(|| WEIGHTS.iter().find(by_architecture))
}

fn without_owner(known: &KnownWeights) -> &'static str {
    known.repository.split_once('/').map_or(known.repository, |(_, name)| name)
}

/// At most three names of the table that are like this one, the best first.
pub(crate) fn nearest(name: &str) -> Vec<String> {
    let has_owner = name.contains('/');
    let names = WEIGHTS.iter().flat_map(|known| {
        if has_owner { vec![known.repository] } else { vec![known.architecture, without_owner(known)] }
    });
    most_alike(name, names)
}

/// At most three of `names` that are like `name` or begin with it, the best first; none if none is.
pub(crate) fn most_alike<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut alike: Vec<(f64, &str)> = names
        .filter(|known| *known != name)
        .map(|known| (strsim::normalized_damerau_levenshtein(&name.to_lowercase(), known), known))
        .filter(|(likeness, known)| *likeness > 0.6 || !name.is_empty() && known.starts_with(name))
        .collect();
    alike.sort_by(|one, other| other.0.total_cmp(&one.0));
    alike.dedup_by_key(|(_, known)| *known);
    alike.into_iter().take(3).map(|(_, known)| known.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_mean() {
        let cases = [
            ("resnet18", "timm/resnet18.tv_in1k", "main"),
            ("resnet152", "timm/resnet152.tv_in1k", "main"),
            ("resnet50d", "timm/resnet50d.ra2_in1k", "main"),
            ("resnet18.a1_in1k", "timm/resnet18.a1_in1k", "main"),
            ("resnet18@v1", "timm/resnet18.tv_in1k", "v1"),
            ("dinov2_small", "facebook/dinov2-small", "main"),
            ("dinov2-base", "facebook/dinov2-base", "main"),
            ("convnext_tiny", "timm/convnext_tiny.in12k_ft_in1k", "main"),
            ("resnet-50", "microsoft/resnet-50", "main"),
            ("microsoft/resnet-50", "microsoft/resnet-50", "main"),
            ("somebody/else@refs/pr/1", "somebody/else", "refs/pr/1"),
        ];
        for (text, repository, revision) in cases {
            let name = WeightsName::parse(text).unwrap();
            assert_eq!((name.repository.name(), name.repository.revision()), (repository, revision), "{text}");
            assert_eq!(name.known.is_some(), repository != "somebody/else", "{text}");
        }
    }

    #[test]
    fn wrong_names_suggest_right_ones() {
        let cases = [
            ("resnet81", "resnet18"),
            ("resnet-5", "resnet-50"),
            ("resnet50.a1_ink", "resnet50.a1_in1k"),
            ("rasnet34", "resnet34"),
        ];
        for (text, expected) in cases {
            match WeightsName::parse(text) {
                Err(FetchError::UnknownName { nearest, .. }) => {
                    assert!(nearest.contains(&expected.to_owned()), "{text}: {nearest:?}");
                    assert!(nearest.len() <= 3);
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(nearest("timm/resnet18.tv_in1")[0], "timm/resnet18.tv_in1k");
        assert!(nearest("banana").is_empty());
    }

    #[test]
    fn the_table_is_in_order() {
        for known in WEIGHTS {
            assert_eq!(Repository::parse(known.repository).unwrap().revision(), "main");
            assert_eq!(WEIGHTS.iter().filter(|other| other.repository == known.repository).count(), 1);
            assert!(known.top1.is_none_or(|published| (0.69..0.87).contains(&published.top1)));
            assert!(!known.files.is_empty() && known.num_classes.is_none_or(|count| count == 1000));
        }
    }
}
