//! Which image is for what.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DataError, Result, rng};

/// A part of a data set: learn on `Train`, choose on `Val`, report `Test` once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// For learning.
    Train,
    /// For choosing among models and settings.
    Val,
    /// For the final figure.
    Test,
}

impl Part {
    /// All parts, in the order in which they are listed everywhere.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The name in files, folders and options: `train`, `val` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Part {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == text).ok_or_else(|| DataError::InvalidOption {
            option: "split",
            reason: format!("{text:?} is none of train, val, test"),
        })
    }
}

/// How many images a stratified split puts into `val`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValSize {
    /// So many images of all classes together.
    Count(usize),
    /// This share of the candidates, above 0 and below 1; the total is rounded to the nearest image.
    Fraction(f64),
}

/// Indices into one [`Dataset`](crate::Dataset), per part, each list ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// For learning.
    pub train: Vec<usize>,
    /// For choosing.
    pub val: Vec<usize>,
    /// For the final figure.
    pub test: Vec<usize>,
}

impl Split {
    /// The indices of one part.
    pub fn get(&self, part: Part) -> &[usize] {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
            Part::Test => &self.test,
        }
    }

    pub(crate) fn get_mut(&mut self, part: Part) -> &mut Vec<usize> {
        match part {
            Part::Train => &mut self.train,
            Part::Val => &mut self.val,
            Part::Test => &mut self.test,
        }
    }

    /// Divides `candidates` into `train` and `val` so that each class gives its share; `test` stays empty.
    ///
    /// `labels` are those of the whole data set and `candidates` indices into them. The shares of the classes are
    /// rounded by largest remainder, so that the total is exact, and every class keeps an image to learn from. The same
    /// arguments give the same split everywhere.
    ///
    /// # Errors
    /// [`DataError::InvalidOption`] if `val` asks for nothing or for so much that a class would have nothing left to
    /// learn from, and [`DataError::IndexOutOfRange`] if a candidate has no label.
    ///
    /// ```
    /// use taper_data::{Split, ValSize};
    ///
    /// let labels = [0, 0, 0, 0, 1, 1, 1, 1];
    /// let split = Split::stratified(&labels, &[0, 1, 2, 3, 4, 5, 6, 7], ValSize::Count(2), 0)?;
    /// assert_eq!((split.train.len(), split.val.len()), (6, 2));
    /// # Ok::<(), taper_data::DataError>(())
    /// ```
    pub fn stratified(labels: &[u32], candidates: &[usize], val: ValSize, seed: u64) -> Result<Self> {
        let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for &index in candidates {
            let label = labels.get(index).ok_or(DataError::IndexOutOfRange { index, len: labels.len() })?;
            classes.entry(*label).or_default().push(index);
        }
        let counts: Vec<usize> = classes.values().map(Vec::len).collect();
        let quotas = quotas(&counts, val_total(val, candidates.len())?)?;
        let mut split = Self::default();
        for ((class, mut members), quota) in classes.into_iter().zip(quotas) {
            // Sorted first, so that the split does not depend on the order in which the candidates were listed.
            members.sort_unstable();
            rng::for_split(seed, class).shuffle(&mut members);
            split.val.extend_from_slice(&members[..quota]);
            split.train.extend_from_slice(&members[quota..]);
        }
        split.train.sort_unstable();
        split.val.sort_unstable();
        Ok(split)
    }
}

fn val_total(val: ValSize, num_candidates: usize) -> Result<usize> {
    let total = match val {
        ValSize::Count(count) => count,
        ValSize::Fraction(fraction) if fraction > 0.0 && fraction < 1.0 => {
            (fraction * num_candidates as f64).round() as usize
        }
        ValSize::Fraction(fraction) => return Err(invalid(format!("a fraction of {fraction} is not between 0 and 1"))),
    };
    match total {
        0 => Err(invalid(format!(
            "it leaves no image for val of the {num_candidates} there are; ask for more, or add images"
        ))),
        total => Ok(total),
    }
}

/// How many images each class gives, in proportion to its `counts`, `total` in all (largest remainder).
fn quotas(counts: &[usize], total: usize) -> Result<Vec<usize>> {
    let available: usize = counts.iter().map(|count| count.saturating_sub(1)).sum();
    if total > available {
        return Err(invalid(format!(
            "{total} images for val are more than the {available} that leave every class an image to learn from"
        )));
    }
    let sum = counts.iter().sum::<usize>() as u128;
    let share = |count: usize| total as u128 * count as u128;
    let mut quotas: Vec<usize> =
        counts.iter().map(|&count| ((share(count) / sum) as usize).min(count.saturating_sub(1))).collect();
    let mut by_remainder: Vec<usize> = (0..counts.len()).collect();
    by_remainder.sort_by_key(|&class| (std::cmp::Reverse(share(counts[class]) % sum), class));
    let mut left = total - quotas.iter().sum::<usize>();
    while left > 0 {
        for &class in &by_remainder {
            if left > 0 && quotas[class] + 1 < counts[class] {
                quotas[class] += 1;
                left -= 1;
            }
        }
    }
    Ok(quotas)
}

fn invalid(reason: String) -> DataError {
    DataError::InvalidOption { option: "size of val", reason }
}
