//! Two linear maps with biases and a GELU between them: the shape of the head and of the aligner.

use crate::model::llama::Head;
use crate::ops;
use crate::weights::{Gradients, Wanted, WeightId, Weights};
use crate::Result;
use candle_core::{DType, Tensor};

/// Weight and bias of the first map are numbers `first` and `first + 1` of the weights, those of the second follow.
#[derive(Clone, Copy)]
pub struct Perceptron<'a> {
    weights: &'a Weights,
    first: WeightId,
}

impl<'a> Perceptron<'a> {
    pub fn new(weights: &'a Weights, first: WeightId) -> Self {
        Perceptron { weights, first }
    }

    /// Whether anything of it is wanted.
    pub fn is_wanted(&self, wanted: &Wanted) -> bool {
        wanted.any(self.first..self.first + 4)
    }

    /// Of x [.., in]: [.., out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.map(2, &ops::gelu(&self.map(0, x)?)?)
    }

    fn map(&self, number: usize, x: &Tensor) -> Result<Tensor> {
        self.biased(number, self.weights[self.first + number].forward(x)?)
    }

    /// A product with its bias, which is the weight behind it.
    fn biased(&self, number: usize, y: Tensor) -> Result<Tensor> {
        ops::add_bias(y, self.weights[self.first + number + 1].tensor()?)
    }

    /// The gradient of x for that of the result; those that are wanted of the weights go to `found`.
    pub fn gradients(&self, g: &Tensor, x: &Tensor, wanted: &Wanted, found: &mut Gradients) -> Result<Tensor> {
        let middle = self.map(0, x)?;
        let g = self.map_back(2, g, &ops::gelu(&middle)?, wanted, found)?;
        self.map_back(0, &ops::gelu_backward(&g, &middle)?, x, wanted, found)
    }

    fn map_back(
        &self,
        number: usize,
        g: &Tensor,
        x: &Tensor,
        wanted: &Wanted,
        found: &mut Gradients,
    ) -> Result<Tensor> {
        let (weight, bias) = (self.first + number, self.first + number + 1);
        wanted.collect(bias, found, || Ok(g.to_dtype(DType::F32)?.sum(0)?))?;
        self.weights[weight].backward(weight, g, Some(x), None, wanted, found)
    }
}

impl Head for Perceptron<'_> {
    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let middle = ops::gelu(&self.map(0, hidden)?)?;
        self.biased(2, self.weights[self.first + 2].forward_f32(&middle)?)
    }

    fn backward(&self, hidden: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        self.gradients(&gradient.to_dtype(hidden.dtype())?, hidden, &Wanted::default(), &mut vec![])
    }
}
