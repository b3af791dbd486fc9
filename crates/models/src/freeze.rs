//! Which layers of a network are trained.

use std::str::FromStr;

use crate::ModelError;

/// Which part of a network keeps the values it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Freeze {
    /// Every parameter is trained.
    #[default]
    None,
    /// The head alone is trained.
    Backbone,
    /// Every layer before this one is frozen: `layer4` of a ResNet, or one of its blocks, `layer4.1`.
    Until(String),
}

impl Freeze {
    /// How policies are written: `none`, `backbone`, `until:LAYER`.
    pub const FORMS: [&str; 3] = ["none", "backbone", "until:LAYER"];
}

impl FromStr for Freeze {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "backbone" => Ok(Self::Backbone),
            Some(("until", layer)) if !layer.is_empty() => Ok(Self::Until(layer.to_owned())),
            _ => Err(ModelError::UnknownFreeze { text: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for Freeze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Backbone => f.write_str("backbone"),
            Self::Until(layer) => write!(f, "until:{layer}"),
        }
    }
}

/// The layers of a network from the image to the logits.
///
/// A layer is known by the prefixes of its parameters' names. The first one is the stem and the last one the head;
/// those between are residual blocks.
///
/// ```
/// use taper_models::{Freeze, ModelConfig};
///
/// let layers = ModelConfig::by_name("resnet18").unwrap().layers();
/// assert_eq!(layers.as_slice().len(), 1 + 8 + 1);
/// assert_eq!(layers.frozen(&"until:layer1.1".parse()?)?, ["conv1", "bn1", "layer1.0"]);
/// # Ok::<(), taper_models::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerOrder {
    layers: Vec<Vec<String>>,
}

impl LayerOrder {
    pub(crate) fn new(stem: &[&str], blocks: impl IntoIterator<Item = String>, head: &str) -> Self {
        let mut layers = vec![stem.iter().map(|prefix| (*prefix).to_owned()).collect()];
        layers.extend(blocks.into_iter().map(|block| vec![block]));
        layers.push(vec![head.to_owned()]);
        Self { layers }
    }

    /// The prefixes of each layer.
    pub fn as_slice(&self) -> &[Vec<String>] {
        &self.layers
    }

    /// The prefix of the head's names.
    pub fn head(&self) -> &str {
        self.layers.last().and_then(|head| head.first()).map_or("", String::as_str)
    }

    /// The prefixes whose parameters `freeze` leaves as they are, in order.
    ///
    /// # Errors
    /// [`ModelError::UnknownLayer`] for a layer that the network does not have.
    pub fn frozen(&self, freeze: &Freeze) -> Result<Vec<String>, ModelError> {
        let first_trained = match freeze {
            Freeze::None => return Ok(Vec::new()),
            Freeze::Backbone => self.head(),
            Freeze::Until(layer) => layer,
        };
        let prefixes: Vec<&String> = self.layers.iter().flatten().collect();
        let is_meant = |prefix: &&String| {
            prefix.strip_prefix(first_trained).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match prefixes.iter().position(is_meant) {
            Some(at) => Ok(prefixes[..at].iter().map(|prefix| (*prefix).clone()).collect()),
            None => Err(ModelError::UnknownLayer { layer: first_trained.to_owned(), known: self.names() }),
        }
    }

    /// The names that `until:` is usually given: stem, stages and head.
    pub fn names(&self) -> Vec<String> {
        let stage = |prefix: &String| match prefix.rsplit_once('.') {
            Some((stage, _)) => stage.to_owned(),
            None => prefix.clone(),
        };
        let mut names: Vec<String> = self.layers.iter().flatten().map(stage).collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;

    #[test]
    fn policies_are_read_and_written() {
        for (text, expected) in
            [("none", Freeze::None), ("backbone", Freeze::Backbone), ("until:layer4", Freeze::Until("layer4".into()))]
        {
            assert_eq!(text.parse::<Freeze>().unwrap(), expected);
            assert_eq!(expected.to_string(), text);
        }
        for text in ["", "until", "until:", "head", "backbone:layer4", "None"] {
            assert!(text.parse::<Freeze>().is_err(), "{text}");
        }
    }

    #[test]
    fn frozen_layers_by_policy() {
        let cases: [(&str, &str, usize, Option<&str>); 8] = [
            ("resnet18", "none", 0, None),
            ("resnet18", "until:conv1", 0, None),
            ("resnet18", "until:layer4", 8, Some("layer3.1")),
            ("resnet18", "until:layer4.1", 9, Some("layer4.0")),
            ("resnet18", "backbone", 10, Some("layer4.1")),
            ("resnet50", "until:fc", 18, Some("layer4.2")),
            ("basenet", "until:stages.1", 4, Some("stages.0.2")),
            ("basenet", "backbone", 17, Some("stages.3.2")),
        ];
        for (model, freeze, count, last) in cases {
            let layers = ModelConfig::by_name(model).unwrap().layers();
            let frozen = layers.frozen(&freeze.parse().unwrap()).unwrap();
            assert_eq!((frozen.len(), frozen.last().map(String::as_str)), (count, last), "{model} {freeze}");
        }
    }

    #[test]
    fn unknown_layer_is_answered_with_the_known_ones() {
        let layers = ModelConfig::by_name("resnet18").unwrap().layers();
        for layer in ["layer5", "layer", "layer1.7", "head"] {
            let error = layers.frozen(&Freeze::Until(layer.to_owned())).unwrap_err().to_string();
            assert!(error.contains("conv1, bn1, layer1, layer2, layer3, layer4, fc"), "{error}");
        }
    }
}
