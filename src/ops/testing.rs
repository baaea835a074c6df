use crate::kernels::{best_level, set_level, Level};
use crate::random::{Purpose, Stream};
use candle_core::{Device, Tensor};
use std::cell::Cell;

/// Normal numbers, other ones at each call of a test and the same ones in each run of it: a sum whose parts happen to
/// cancel would fail now and then.
pub fn random(dims: &[usize]) -> Tensor {
    thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
    let mut stream = Stream::new(CALLS.replace(CALLS.get() + 1), Purpose::Initial, 0);
    let numbers: Vec<f32> = (0..dims.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
}

/// Held while the level of vectors matters: it is one for the whole process.
pub static LEVEL: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Runs with each kind of vectors that this processor has, and with tiles that are emulated if it has none.
pub fn at_each_level(f: impl Fn()) {
    let _level = LEVEL.lock().unwrap_or_else(|e| e.into_inner());
    for level in [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Bf16, Level::Amx] {
        if set_level(level) {
            f();
        }
    }
    set_level(best_level());
}

pub fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let size = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let gap = (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(gap <= 2e-5 * size, "{what}: {gap} against {size}");
}
