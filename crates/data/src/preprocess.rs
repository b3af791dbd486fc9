//! How images must look to a set of weights.

use serde::{Deserialize, Serialize};

use crate::{ChannelStats, Compose, DataError, Result, Transform};

/// How pixels are computed when an image is scaled; both filters are Pillow's, with antialiasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Cubic convolution with a = -0.5 (Keys 1981).
    Bicubic,
}

/// What travels with the weights as `preprocess.json`: evaluation, prediction and export all read this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// `[height, width]` that the model sees, in pixels.
    pub input_size: [usize; 2],
    /// Length to which the shorter side is scaled before the central crop; `None` for sets of small images that are
    /// used as they are.
    pub resize: Option<usize>,
    /// Share of the scaled image that the central crop keeps, for programs that derive `resize` from it.
    pub crop_pct: f32,
    /// How pixels are computed when scaling.
    pub interpolation: Interpolation,
    /// Per channel, of pixels scaled to 0..=1.
    pub mean: [f32; 3],
    /// Per channel, of pixels scaled to 0..=1.
    pub std: [f32; 3],
}

impl Preprocess {
    /// For images that are used at their own size, as CIFAR's and the built-in set's are.
    pub fn unscaled(input_size: [usize; 2], stats: ChannelStats) -> Self {
        Self {
            input_size,
            resize: None,
            crop_pct: 1.0,
            interpolation: Interpolation::Bilinear,
            mean: stats.mean,
            std: stats.std,
        }
    }

    /// ImageNet's default (He et al. 2016, as torchvision evaluates): 256, central 224, bilinear.
    pub fn imagenet() -> Self {
        Self {
            input_size: [224, 224],
            resize: Some(256),
            crop_pct: 0.875,
            interpolation: Interpolation::Bilinear,
            mean: ChannelStats::IMAGENET.mean,
            std: ChannelStats::IMAGENET.std,
        }
    }

    /// Mean and standard deviation, for [`normalise`](crate::normalise).
    pub fn stats(&self) -> ChannelStats {
        ChannelStats { mean: self.mean, std: self.std }
    }

    /// The same with another mean and standard deviation.
    pub fn with_stats(self, stats: ChannelStats) -> Self {
        Self { mean: stats.mean, std: stats.std, ..self }
    }

    /// The transforms for evaluation and prediction, none of them random.
    ///
    /// Without `resize`, an image of another size than `input_size` is scaled to it, so that any picture can be
    /// predicted; one of that size stays as it is.
    pub fn eval_transform(&self) -> Compose {
        let (size, interpolation) = (self.input_size, self.interpolation);
        Compose(match self.resize {
            None => vec![Transform::ResizeExact { size, interpolation }],
            Some(side) => vec![Transform::Resize { side, interpolation }, Transform::CenterCrop { size }],
        })
    }

    /// Checks the values, as read from a file.
    ///
    /// # Errors
    /// [`DataError::InvalidOption`] that names the field.
    pub fn validate(&self) -> Result<()> {
        let fail = |option, reason: String| Err(DataError::InvalidOption { option, reason });
        if self.input_size.contains(&0) {
            return fail("preprocess.input_size", "it is zero".to_string());
        }
        if self.resize.is_some_and(|side| side < self.input_size[0].max(self.input_size[1])) {
            return fail("preprocess.resize", "it is smaller than input_size".to_string());
        }
        if !(self.crop_pct > 0.0 && self.crop_pct <= 1.0) {
            return fail("preprocess.crop_pct", format!("{} is not above 0 and at most 1", self.crop_pct));
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return fail("preprocess.mean", format!("{:?} is not finite", self.mean));
        }
        if !self.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return fail("preprocess.std", format!("{:?} is not above 0", self.std));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_documented_one() {
        let stats = ChannelStats { mean: [0.5, 0.25, 0.125], std: [0.5; 3] };
        let preprocess = Preprocess::unscaled([32, 32], stats);
        let json = serde_json::to_string(&preprocess).unwrap();
        let expected = r#"{"input_size":[32,32],"resize":null,"crop_pct":1.0,"interpolation":"bilinear","mean":[0.5,0.25,0.125],"std":[0.5,0.5,0.5]}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Preprocess>(&json).unwrap(), preprocess);
    }

    #[test]
    fn wrong_values_are_named() {
        let good = Preprocess::imagenet();
        good.validate().unwrap();
        let cases = [
            (Preprocess { input_size: [0, 224], ..good.clone() }, "input_size"),
            (Preprocess { resize: Some(200), ..good.clone() }, "resize"),
            (Preprocess { crop_pct: 0.0, ..good.clone() }, "crop_pct"),
            (Preprocess { mean: [f32::NAN, 0.0, 0.0], ..good.clone() }, "mean"),
            (Preprocess { std: [0.0, 1.0, 1.0], ..good.clone() }, "std"),
        ];
        for (preprocess, field) in cases {
            let message = preprocess.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
