use candle_core::{Device, Result, Tensor};

/// Repeatable random numbers (SplitMix64, Steele et al. 2014).
pub(super) struct Noise {
    state: u64,
}

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// A CPU tensor of numbers in -1..1.
    pub(super) fn tensor(&mut self, shape: &[usize]) -> Result<Tensor> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.unit()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    /// As [`Noise::tensor`], in 0.5..1.5.
    pub(super) fn positive(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.tensor(shape)?.affine(0.5, 1.0)
    }

    /// Labels below `classes`.
    pub(super) fn labels(&mut self, count: usize, classes: u64) -> Result<Tensor> {
        let labels: Vec<u32> = (0..count).map(|_| (self.next() % classes) as u32).collect();
        Tensor::from_vec(labels, count, &Device::Cpu)
    }
}
