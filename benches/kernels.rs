//! The CPU's kernels one by one: `cargo bench --bench kernels`. Sizes are those of a layer of the 7B model, cut in half.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use sitter::ops::{self, Rows};
use sitter::weight::Format;
use std::hint::black_box;

const HIDDEN: usize = 2048;
const MIDDLE: usize = 5504;
/// Tokens of a picture of 512 x 512 with its prompt.
const TOKENS: usize = 1060;

fn random(shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::randn(0f32, 1.0, shape.into(), &Device::Cpu).unwrap()
}

fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    for format in Format::ALL {
        let weight = format.weight(random((MIDDLE, HIDDEN))).unwrap();
        for rows in [1, 2, 8, 64, TOKENS] {
            let x = random((1, rows, HIDDEN));
            group.throughput(Throughput::Elements((rows * MIDDLE * HIDDEN) as u64));
            let name = BenchmarkId::new(format.name(), rows);
            group.bench_function(name, |b| b.iter(|| black_box(ops::linear(&x, &weight).unwrap())));
        }
    }
}

/// Beside candle's own quantiser, which gives the same bits.
fn quantise(c: &mut Criterion) {
    let numbers = random((MIDDLE, HIDDEN)).to_dtype(DType::BF16).unwrap();
    let mut group = c.benchmark_group("quantise");
    group.throughput(Throughput::Elements((MIDDLE * HIDDEN) as u64)).sample_size(10);
    for (format, dtype) in [(Format::Q8_0, GgmlDType::Q8_0), (Format::Q4K, GgmlDType::Q4K)] {
        let name = BenchmarkId::new(format.name(), "ours");
        group.bench_function(name, |b| b.iter(|| black_box(format.weight(numbers.clone()).unwrap())));
        let name = BenchmarkId::new(format.name(), "candle's");
        group.bench_function(name, |b| b.iter(|| black_box(QTensor::quantize(&numbers, dtype).unwrap())));
    }
}

fn backward(c: &mut Criterion) {
    let weight = Format::F32.weight(random((MIDDLE, HIDDEN))).unwrap();
    let (g, x) = (random((1, TOKENS, MIDDLE)), random((1, TOKENS, HIDDEN)));
    let mut group = c.benchmark_group("backward");
    group.throughput(Throughput::Elements((TOKENS * MIDDLE * HIDDEN) as u64));
    group.bench_function("input", |b| b.iter(|| black_box(ops::input_gradient(&g, &weight, None).unwrap())));
    group.bench_function("weight", |b| b.iter(|| black_box(ops::weight_gradient(&g, &x).unwrap())));
}

fn attention(c: &mut Criterion) {
    let (heads, d) = (HIDDEN / 128, 128);
    let keys = || random((1, heads, TOKENS, d));
    let (k, v) = (keys(), keys());
    let mut group = c.benchmark_group("attention");
    for (name, first) in [("a whole sequence", 0), ("its last token", TOKENS - 1)] {
        let q = random((1, TOKENS - first, heads, d));
        let spans: Vec<(u32, u32)> = (first as u32..TOKENS as u32).map(|i| (0, i + 1)).collect();
        let rows = Rows { spans: &spans, seen: None, one_by_one: first > 0 };
        group.bench_function(name, |b| b.iter(|| black_box(ops::attention(&q, &k, &v, &rows, false).unwrap())));
    }
}

fn between(c: &mut Criterion) {
    let (x, weight) = (random((1, TOKENS, HIDDEN)), random(HIDDEN));
    let (gate, up) = (random((1, TOKENS, MIDDLE)), random((1, TOKENS, MIDDLE)));
    c.bench_function("rms_norm", |b| b.iter(|| black_box(ops::rms_norm(&x, &weight, 1e-5).unwrap())));
    c.bench_function("silu_mul", |b| b.iter(|| black_box(ops::silu_mul(&gate, &up).unwrap())));
}

criterion_group!(benches, linear, quantise, backward, attention, between);
criterion_main!(benches);
