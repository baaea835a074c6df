//! AdamW as `torch.optim.AdamW` does it, with lean states.
//!
//! The states, and the values that learn, live in the memory of the host, where they may be lean, or on the device of the model.
//! Each tensor is updated by itself, as soon as its gradient is there.

use super::eight_bit;
use crate::device::to_host;
use crate::error::by_name;
use crate::ops::{self, change, Factors, Numbers};
use crate::random::{philox, Purpose};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Numbers that are updated at a time, and that share a scale in 8-bit states (bitsandbytes: 256).
pub const BLOCK: usize = 256;

/// What the running means of a gradient and of its square are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateFormat {
    /// 8 bytes for each number that learns.
    #[default]
    F32,
    /// 4 bytes; rounded at random, so that small changes are not lost.
    Bf16,
    /// 2 bytes: blocks of 256 with a common scale and a code that is fine near zero (Dettmers et al., arXiv 2110.02861).
    Int8,
}

impl StateFormat {
    pub const ALL: [StateFormat; 3] = [StateFormat::F32, StateFormat::Bf16, StateFormat::Int8];

    /// As it is written in options and files.
    pub fn name(self) -> &'static str {
        match self {
            StateFormat::F32 => "f32",
            StateFormat::Bf16 => "bf16",
            StateFormat::Int8 => "int8",
        }
    }

    /// By the name that [`StateFormat::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("optimizer_state", name, Self::ALL, Self::name)
    }

    /// Bytes of both states of `n` numbers.
    pub fn bytes(self, n: u128) -> u128 {
        match self {
            StateFormat::F32 => 8 * n,
            StateFormat::Bf16 => 4 * n,
            StateFormat::Int8 => 2 * (n + 4 * n.div_ceil(BLOCK as u128)),
        }
    }
}

/// Where the optimizer's states and the values that learn are, and updates are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerDevice {
    /// On the device of the model if it is a GPU on which they fit, else in the memory of the host.
    #[default]
    Auto,
    /// On the device of the model: no gradient leaves it.
    Device,
    /// In the memory of the host.
    Host,
}

impl OptimizerDevice {
    pub const ALL: [OptimizerDevice; 3] = [OptimizerDevice::Auto, OptimizerDevice::Device, OptimizerDevice::Host];

    /// As it is written in options and files.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerDevice::Auto => "auto",
            OptimizerDevice::Device => "device",
            OptimizerDevice::Host => "host",
        }
    }

    /// By the name that [`OptimizerDevice::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("optimizer_device", name, Self::ALL, Self::name)
    }
}

/// What is remembered of a tensor: running means of its gradient and of the gradient's square.
enum Memory {
    Host(State, State),
    /// f32, as the tensor.
    Device(Tensor, Tensor),
}

impl Memory {
    fn new(value: &Tensor, format: StateFormat, on_device: bool) -> Result<Self> {
        let n = value.elem_count();
        Ok(match on_device {
            true => {
                let zeros = || Tensor::zeros(value.shape(), DType::F32, value.device());
                Memory::Device(zeros()?, zeros()?)
            }
            false => Memory::Host(State::new(format, n, true), State::new(format, n, false)),
        })
    }
}

/// A running mean.
enum State {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    Int8 { codes: Vec<u8>, scales: Vec<f32>, signed: bool },
}

impl State {
    fn new(format: StateFormat, n: usize, signed: bool) -> Self {
        match format {
            StateFormat::F32 => State::F32(vec![0.0; n]),
            StateFormat::Bf16 => State::Bf16(vec![bf16::ZERO; n]),
            StateFormat::Int8 => {
                let zero = eight_bit::encode(0.0, signed);
                State::Int8 { codes: vec![zero; n], scales: vec![0.0; n.div_ceil(BLOCK)], signed }
            }
        }
    }

    fn of(format: StateFormat, values: &[f32], signed: bool) -> Self {
        let mut state = State::new(format, values.len(), signed);
        for (mut block, values) in state.blocks().into_iter().zip(values.chunks(BLOCK)) {
            block.write(values, [0; 4]);
        }
        state
    }

    fn blocks(&mut self) -> Vec<Block<'_>> {
        match self {
            State::F32(all) => all.chunks_mut(BLOCK).map(Block::F32).collect(),
            State::Bf16(all) => all.chunks_mut(BLOCK).map(Block::Bf16).collect(),
            State::Int8 { codes, scales, signed } => {
                let signed = *signed;
                let blocks = codes.chunks_mut(BLOCK).zip(scales);
                blocks.map(|(codes, scale)| Block::Int8 { codes, scale, signed }).collect()
            }
        }
    }

    fn to_vec(&self) -> Vec<f32> {
        match self {
            State::F32(all) => all.clone(),
            State::Bf16(all) => all.iter().map(|v| v.to_f32()).collect(),
            State::Int8 { codes, scales, signed } => {
                let of = |(codes, scale): (&[u8], &f32)| {
                    codes.iter().map(|&c| eight_bit::decode(c, *signed) * scale).collect::<Vec<_>>()
                };
                codes.chunks(BLOCK).zip(scales).flat_map(of).collect()
            }
        }
    }
}

/// Up to 256 numbers of a state.
enum Block<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    Int8 { codes: &'a mut [u8], scale: &'a mut f32, signed: bool },
}

impl Block<'_> {
    fn read(&self, to: &mut [f32]) {
        match self {
            Block::F32(all) => to.copy_from_slice(all),
            Block::Bf16(all) => to.iter_mut().zip(all.iter()).for_each(|(to, v)| *to = v.to_f32()),
            Block::Int8 { codes, scale, signed } => {
                to.iter_mut().zip(codes.iter()).for_each(|(to, &c)| *to = eight_bit::decode(c, *signed) * **scale)
            }
        }
    }

    /// `random` decides on the rounding of bf16; zeros cut.
    fn write(&mut self, from: &[f32], random: [u32; 4]) {
        match self {
            Block::F32(all) => all.copy_from_slice(from),
            Block::Bf16(all) => round_at_random(all, from, random),
            Block::Int8 { codes, scale, signed } => {
                // With its sign, so that the farthest number is the code of 1, whichever side it lies on: what is read and
                // written again stays the same.
                let farthest = from.iter().fold(0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
                **scale = farthest;
                let factor = if farthest != 0.0 { 1.0 / farthest } else { 0.0 };
                codes.iter_mut().zip(from).for_each(|(c, v)| *c = eight_bit::encode(v * factor, *signed));
            }
        }
    }
}

/// Rounds up with the probability that the mean is right.
fn round_at_random(to: &mut [bf16], from: &[f32], random: [u32; 4]) {
    for (i, (to, from)) in to.iter_mut().zip(from).enumerate() {
        // 16 bits for each number from a generator as good as this needs.
        let mut x = random[i % 4].wrapping_add((i as u32).wrapping_mul(0x9e37_79b9));
        x = (x ^ x >> 16).wrapping_mul(0x21f0_aaad);
        x = (x ^ x >> 15).wrapping_mul(0x735a_2d97);
        let bits = from.to_bits();
        let rounded = bits.wrapping_add((x ^ x >> 15) >> 16);
        *to = match from.is_finite() && f32::from_bits(rounded & 0xffff_0000).is_finite() {
            true => bf16::from_bits((rounded >> 16) as u16),
            false => bf16::from_f32(*from),
        };
    }
}

/// The optimizer's memory of a list of tensors.
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    format: StateFormat,
    seed: u64,
    /// Updates of each so far.
    steps: Vec<u64>,
    memories: Vec<Memory>,
}

/// A gradient, where the value is that it is for.
#[derive(Clone, Copy)]
pub enum Gradient<'a> {
    /// f32.
    Tensor(&'a Tensor),
    /// In the memory of the host.
    Numbers(&'a [f32]),
}

/// What the optimizer is to do with one tensor.
pub struct Update<'a> {
    /// Contiguous; changed where it lies. On the CPU f32 or bf16 (rounded at random), on the device f32.
    pub value: &'a Tensor,
    /// What passes read of it. Where the value is on the device, it is written there too.
    pub seen: &'a Tensor,
    pub gradient: Gradient<'a>,
    /// The gradient is multiplied by it first.
    pub scale: f64,
    pub learning_rate: f64,
    /// Decoupled: the value shrinks by learning rate x decay.
    pub weight_decay: f64,
}

impl AdamW {
    /// For these values; with `on_device` what is remembered of them is f32 and where they are, else in a format and in the
    /// memory of the host.
    pub fn new<'a>(
        values: impl Iterator<Item = &'a Tensor>,
        (beta1, beta2): (f64, f64),
        format: StateFormat,
        on_device: bool,
        seed: u64,
    ) -> Result<Self> {
        let memories: Vec<Memory> = values.map(|value| Memory::new(value, format, on_device)).collect::<Result<_>>()?;
        Ok(AdamW { beta1, beta2, format, seed, steps: vec![0; memories.len()], memories })
    }

    /// Goes on from an earlier state: of each tensor the updates, and what is remembered.
    pub fn restore(&mut self, steps: Vec<u64>, states: Vec<(Vec<f32>, Vec<f32>)>) -> Result<()> {
        self.steps = steps;
        for (memory, (mean, square)) in self.memories.iter_mut().zip(states) {
            match memory {
                Memory::Host(m, s) => {
                    (*m, *s) = (State::of(self.format, &mean, true), State::of(self.format, &square, false));
                }
                Memory::Device(m, s) => {
                    for (to, from) in [(m, mean), (s, square)] {
                        to.slice_set(&Tensor::from_vec(from, to.shape(), to.device())?, 0, 0)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The running means of tensor `index`.
    pub fn state(&self, index: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        match &self.memories[index] {
            Memory::Host(mean, square) => Ok((mean.to_vec(), square.to_vec())),
            Memory::Device(mean, square) => {
                let numbers = |t: &Tensor| -> Result<Vec<f32>> { Ok(to_host(&t.flatten_all()?)?.to_vec1()?) };
                Ok((numbers(mean)?, numbers(square)?))
            }
        }
    }

    /// Updates tensor `index`.
    pub fn update(&mut self, index: usize, update: &Update) -> Result<()> {
        self.steps[index] += 1;
        let n = self.steps[index] as f64;
        let factors = Factors {
            scale: update.scale as f32,
            keep: [self.beta1 as f32, self.beta2 as f32],
            take: [(1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32],
            root: (1.0 - self.beta2.powf(n)).sqrt() as f32,
            rate: (update.learning_rate / (1.0 - self.beta1.powf(n))) as f32,
            kept: (1.0 - update.learning_rate * update.weight_decay) as f32,
        };
        let purpose = Purpose::Rounding as u32 | (index as u32) << 8;
        let (seed, step) = (self.seed, self.steps[index] as u32);
        let (mean, square) = match (&mut self.memories[index], update.gradient) {
            (Memory::Host(mean, square), _) => (mean, square),
            (Memory::Device(mean, square), Gradient::Tensor(gradient)) => {
                return ops::adamw([update.value, mean, square], gradient, update.seen, &factors);
            }
            (Memory::Device(..), Gradient::Numbers(_)) => {
                return Err(Error::internal("a gradient on the host for a value on the device"));
            }
        };
        let random =
            |block: usize, what: u32| philox([block as u32, step, purpose, what], [seed as u32, (seed >> 32) as u32]);
        let (host, floats);
        let gradients = match update.gradient {
            Gradient::Numbers(numbers) => numbers,
            Gradient::Tensor(gradient) => {
                host = to_host(&gradient.flatten_all()?)?.contiguous()?;
                floats = ops::floats(&host)?;
                &floats[..]
            }
        };
        change(update.value, |values| {
            let values: Vec<Block> = match values {
                Numbers::F32(all) => all.chunks_mut(BLOCK).map(Block::F32).collect(),
                Numbers::Bf16(all) => all.chunks_mut(BLOCK).map(Block::Bf16).collect(),
            };
            if values.len() != gradients.len().div_ceil(BLOCK) {
                return Err(Error::internal("a gradient of another size than its value"));
            }
            let blocks = values.into_par_iter().zip(mean.blocks()).zip(square.blocks()).enumerate();
            let blocks = blocks.zip(gradients.par_chunks(BLOCK));
            blocks.for_each(|((block, ((mut value, mut mean), mut square)), gradient)| {
                let (mut v, mut m, mut s) = ([0f32; BLOCK], [0f32; BLOCK], [0f32; BLOCK]);
                let n = gradient.len();
                value.read(&mut v[..n]);
                mean.read(&mut m[..n]);
                square.read(&mut s[..n]);
                for i in 0..n {
                    (v[i], m[i], s[i]) = factors.step(v[i], m[i], s[i], gradient[i]);
                }
                value.write(&v[..n], random(block, 0));
                mean.write(&m[..n], random(block, 1));
                square.write(&s[..n], random(block, 2));
            });
            Ok(())
        })
    }
}
