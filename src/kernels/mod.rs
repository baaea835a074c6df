//! The arithmetic of the CPU: what the layers of a model spend their time on.
//!
//! Everything here works on plain slices. Work is split over the threads of rayon's global pool in pieces whose borders do
//! not change a result: any number of threads gives the same bits.
//!
//! | file | what it is for |
//! |---|---|
//! | `team` | the threads that share a piece of work |
//! | `buffer` | memory for results |
//! | `rounding` | numbers to bf16 and back |
//! | `lanes` | vectors of sixteen numbers on AVX-512, AVX2 or neither |
//! | `matrix` | weights as they lie in memory: f32, bf16, q8_0, q4_k |
//! | `gemm` | products of large matrices |
//! | `amx` | those on processors that multiply tiles |
//! | `halves` | the same with factors of bf16, on processors that multiply them |
//! | `norm`, `activation`, `attention`, `loss` | what stands between the products, forward and backward |
//! | `bias` | rows of biases and the activations of a plain transformer |
//! | `modulate`, `gelu`, `cosine` | the same of layers whose norms are steered from outside |
//! | `quantiser` | numbers to blocks of q8_0 and q4_k |
//! | `conv` | 3x3 convolutions and group norm of the image tokenizer |
//! | `winograd` | what turns a 3x3 convolution into fewer products |
//! | `softmax` | softmax of rows; what attention and the loss share |
//! | `rows` | products of a few rows with a large matrix, whose bits do not depend on how many rows there are |

// Indices name registers here; iterators would hide which.
#![allow(clippy::needless_range_loop)]

mod activation;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod attention;
mod bias;
mod buffer;
mod conv;
mod cosine;
mod gelu;
mod gemm;
#[cfg(target_arch = "x86_64")]
mod halves;
mod lanes;
mod loss;
mod matrix;
mod modulate;
mod norm;
mod quantiser;
mod rounding;
mod rows;
mod softmax;
mod team;
mod winograd;

pub use activation::{add, fill, silu_mul, silu_mul_backward};
pub use attention::Attention;
pub use bias::{add_to_rows, fill_rows, gelu, quick_gelu};
pub use buffer::{zero_bits, zeros};
pub use conv::{conv3x3, group_norm, Planes};
pub use cosine::Cosine;
pub use gelu::{gelu_tanh, gelu_tanh_backward};
pub use gemm::{gemm, Left};
pub use loss::cross_entropy;
pub use matrix::Matrix;
pub use modulate::{add_gated, gate_backward, layer_norm, layer_norm_backward, row_sums};
pub use norm::{rms_norm, rms_norm_backward, rotate, Rotary};
pub use quantiser::{q4_k, q8_0};
pub use rounding::{from_bf16, to_bf16};
pub use rows::rows;
pub use softmax::softmax;
pub use team::{parallel, together};

use std::sync::atomic::{AtomicU8, Ordering};

/// The vector instructions that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Portable = 1,
    Avx2,
    Avx512,
    /// AVX-512 that multiplies bf16.
    Avx512Bf16,
    /// The same with tiles of bf16.
    Amx,
}

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// The best that this processor has.
pub fn best_level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        if avx2 && avx512 {
            if !is_x86_feature_detected!("avx512bf16") {
                return Level::Avx512;
            }
            #[cfg(target_os = "linux")]
            if amx::usable() {
                return Level::Amx;
            }
            return Level::Avx512Bf16;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// What kernels use now.
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        1 => Level::Portable,
        2 => Level::Avx2,
        3 => Level::Avx512,
        4 => Level::Avx512Bf16,
        5 => Level::Amx,
        _ => {
            let best = best_level();
            LEVEL.store(best as u8, Ordering::Relaxed);
            best
        }
    }
}

/// Makes all kernels use a level, if it can be had here. Tiles that the processor lacks are emulated.
#[cfg(test)]
pub fn set_level(level: Level) -> bool {
    let here = level <= best_level() || level == Level::Amx && tiles_here();
    if here {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
    here
}

/// Whether what multiplies tiles can run here, on the processor or emulated.
#[cfg(test)]
fn tiles_here() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return best_level() >= Level::Avx512Bf16 && amx::emulated::here();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Defines a function that runs `$inner::<L>`, or `$inner::<L, $source>`, with the vectors that its first argument, a
/// [`Level`], names; the processor must have them. `$inner` must be `#[inline(always)]`.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $result:ty)? = $inner:ident $(<$source:ty>)?) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(level: $crate::kernels::Level, $($arg: $ty),*) $(-> $result)? {
            let _ = level;
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx512($($arg: $ty),*) $(-> $result)? {
                    $inner::<$crate::kernels::lanes::Avx512 $(, $source)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx2($($arg: $ty),*) $(-> $result)? {
                    $inner::<$crate::kernels::lanes::Avx2 $(, $source)?>($($arg),*)
                }
                match level {
                    $crate::kernels::Level::Portable => {}
                    $crate::kernels::Level::Avx2 => return avx2($($arg),*),
                    _ => return avx512($($arg),*),
                }
            }
            $inner::<$crate::kernels::lanes::Portable $(, $source)?>($($arg),*)
        }
    };
}
pub(crate) use vectorised;

/// A pointer that may go to other threads; who uses it sees to it that they write to different places.
#[derive(Clone, Copy)]
pub(crate) struct Out<T = f32>(*mut T);

// SAFETY: a plain address. Each use says which part of the memory a task writes, and tasks do not share parts.
unsafe impl<T: Send> Send for Out<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Out<T> {}

impl<T> Out<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Out(slice.as_mut_ptr())
    }

    /// The same memory, later.
    ///
    /// # Safety
    /// As [`Out::at`].
    pub unsafe fn from(self, at: usize) -> Self {
        Out(self.0.add(at))
    }

    /// # Safety
    /// `at` must lie within the memory that this was made of.
    pub unsafe fn at(self, at: usize) -> *mut T {
        self.0.add(at)
    }
}
