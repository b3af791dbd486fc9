//! What a parameter's name says about it.

/// What a named tensor of a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A weight matrix or filter bank: trained, decayed.
    Weight,
    /// A bias or a normalisation's scale: trained, usually not decayed.
    BiasOrNorm,
    /// Running statistics: saved, never trained.
    Buffer,
}

/// The role of the tensor `name` with `rank` dimensions, by PyTorch's names.
pub fn role(name: &str, rank: usize) -> Role {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        "running_mean" | "running_var" | "num_batches_tracked" => Role::Buffer,
        _ if rank <= 1 => Role::BiasOrNorm,
        _ => Role::Weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_by_name_and_rank() {
        let cases = [
            ("stem.conv.weight", 4, Role::Weight),
            ("stem.bn.weight", 1, Role::BiasOrNorm),
            ("head.fc1.bias", 1, Role::BiasOrNorm),
            ("head.bn.running_var", 1, Role::Buffer),
            ("num_batches_tracked", 0, Role::Buffer),
        ];
        for (name, rank, expected) in cases {
            assert_eq!(role(name, rank), expected, "{name}");
        }
    }
}
