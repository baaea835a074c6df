use super::testing::{assert_close, at_each_level, random, LEVEL};
use super::*;
use crate::kernels::{self, level, Level, Matrix};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::DType;

/// Results of an operation by the kernels and by candle's operations.
fn both<R>(f: impl Fn() -> Result<R>) -> (R, R) {
    (f().unwrap(), plainly(|| f().unwrap()))
}

#[test]
fn kernels_give_what_plain_operations_give_at_every_level_of_vectors() {
    at_each_level(|| {
        for (rows, inner, out) in [(3, 40, 37), (300, 96, 70), (1, 512, 5)] {
            let (x, g) = (random(&[1, rows, inner]), random(&[1, rows, out]));
            let weight = Weight::Dense(random(&[out, inner]));
            let (own, plain) = both(|| linear(&x, &weight));
            assert_close(&own, &plain, "linear");
            let (own, plain) = both(|| input_gradient(&g, &weight, None));
            assert_close(&own, &plain, "input gradient");
            let (own, plain) = both(|| input_gradient(&g, &weight, Some(random(&[1, rows, inner]).zeros_like()?)));
            assert_close(&own, &plain, "added input gradient");
            let (own, plain) = both(|| weight_gradient(&g, &x));
            assert_close(&own, &plain, "weight gradient");
        }
        let (x, g, w) = (random(&[2, 5, 70]), random(&[2, 5, 70]), random(&[70]));
        let (own, plain) = both(|| rms_norm(&x, &w, 1e-5));
        assert_close(&own, &plain, "rms norm");
        let (own, plain) = both(|| add_and_norm(x.copy()?, &g, &w, 1e-5));
        assert_close(&own.0, &plain.0, "norm of a sum");
        assert_close(&own.1, &plain.1, "sum");
        let (own, plain) = both(|| rms_norm_backward(&g, &x, &w, 1e-5, true));
        assert_close(&own.0, &plain.0, "rms norm backward");
        assert_close(&own.1.unwrap(), &plain.1.unwrap(), "rms norm's weight");
        let (gate, up) = (random(&[2, 5, 70]), random(&[2, 5, 70]));
        let (own, plain) = both(|| gelu(&gate));
        assert_close(&own, &plain, "gelu");
        let (own, plain) = both(|| gelu_backward(&g, &gate));
        assert_close(&own, &plain, "gelu backward");
        let (own, plain) = both(|| silu_mul(&gate, &up));
        assert_close(&own, &plain, "silu");
        let (own, plain) = both(|| silu_mul_backward(&g, gate.copy()?, up.copy()?));
        assert_close(&own.0, &plain.0, "gate");
        assert_close(&own.1, &plain.1, "up");
        let logits = (random(&[6, 91]) * 4.0).unwrap();
        let (targets, weights) = ([3, 90, 0, 17, 16, 15], [0.5, 0.25, 1.0, 0.0, 2.0, 0.1]);
        let (own, plain) = both(|| cross_entropy(logits.copy()?, &targets, &weights, 1e-2));
        let vector = |v: Vec<f32>| Tensor::new(v, &Device::Cpu).unwrap();
        assert_close(&vector(own.0), &vector(plain.0), "nats");
        assert_close(&vector(own.1), &vector(plain.1), "normalisers");
        assert_close(&own.2, &plain.2, "gradient of logits");
    });
}

#[test]
fn attention_and_its_gradients_are_those_of_plain_operations() {
    at_each_level(|| {
        for (b, t, heads, kv, d) in [(2, 9, 4, 4, 8), (1, 150, 4, 2, 24), (2, 130, 6, 2, 16)] {
            let (cos, sin) = (random(&[1, t, 1, d / 2]), random(&[1, t, 1, d / 2]));
            let (weight, bias) = (random(&[2, d]), random(&[2, d]));
            let of = Heads { weight: &weight, bias: &bias, eps: 1e-5, cos: &cos, sin: &sin };
            let (x, g) = (random(&[b, t, heads, d]), random(&[b, t, heads, d]));
            let (own, plain) = both(|| norm_and_rotate(&x, &of));
            assert_close(&own, &plain, "norm and rotation");
            let (own, plain) = both(|| norm_and_rotate_backward(&g, &x, &of, true));
            assert_close(&own.0, &plain.0, "norm and rotation backward");
            let ((own_w, own_b), (plain_w, plain_b)) = (own.1.unwrap(), plain.1.unwrap());
            assert_close(&own_w, &plain_w, "norm's weight");
            assert_close(&own_b, &plain_b, "norm's bias");
            let (own, plain) = both(|| rotate(&x, &cos, &sin));
            assert_close(&own, &plain, "rotation");
            let (own, plain) = both(|| rotate_backward(&g, &cos, &sin));
            assert_close(&own, &plain, "rotation backward");

            // Row 0 begins at slot 0, row 1 later; earlier slots see themselves.
            let span = |row: u32, i: u32| if i < row { (i, i + 1) } else { (row, i + 1) };
            let spans: Vec<_> = (0..b as u32).flat_map(|r| (0..t as u32).map(move |i| span(3 * r, i))).collect();
            let limits = Seen::new(&spans, b, t, &Device::Cpu).unwrap();
            let seen = Rows { spans: &spans, seen: limits.as_ref(), one_by_one: false };
            let (q, g) = (random(&[b, t, heads, d]), random(&[b, t, heads * d]));
            let view = |x: &Tensor| x.transpose(1, 2).unwrap();
            let (k, v) = (random(&[b, t, kv, d]), random(&[b, t, kv, d]));
            let (k, v) = (view(&k), view(&v));
            let (own, plain) = both(|| attention(&q, &k, &v, &seen, true));
            assert_close(&own.0, &plain.0, "attention");
            let alone = Rows { one_by_one: true, ..seen };
            assert_close(&attention(&q, &k, &v, &alone, false).unwrap().0, &plain.0, "attention, one by one");
            let seen = Rows { one_by_one: false, ..alone };
            let kept = own.1.unwrap();
            let (own, plain) = both(|| attention_backward(&g, (&q, &k, &v), &own.0, &kept, &seen));
            assert_close(&own.0, &plain.0, "queries");
            assert_close(&own.1, &plain.1, "keys");
            assert_close(&own.2, &plain.2, "values");
        }
    });
}

#[test]
fn numbers_become_the_nearest_bf16_and_come_back_with_any_vectors() {
    let ordinary = random(&[1003]).to_vec1::<f32>().unwrap();
    // Halfway, where the even one counts; just above; what is larger than any bf16; what is smaller than any normal one.
    let odd = [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x7f7f_ffff, 0xff7f_8000, 0x0000_8001, 0x8000_0000, 0x7f80_0000];
    let expected = [0x3f80, 0x3f82, 0x3f81, 0x7f80, 0xff80, 0x0001, 0x8000, 0x7f80];
    let of_odd: Vec<f32> = odd.map(f32::from_bits).to_vec();
    at_each_level(|| {
        let rounded = |values: &[f32]| {
            let x = Tensor::new(values, &Device::Cpu).unwrap();
            // The second of two things.
            let mut room = Room::new(2 * values.len(), DType::BF16, &x).unwrap();
            room.keep(x.zeros_like().unwrap()).unwrap();
            let narrow = room.keep(x.clone()).unwrap();
            assert!(room.keep(x).is_err(), "more than there is room for");
            let same: Vec<f32> = widened(narrow.clone(), DType::F32).unwrap().to_vec1().unwrap();
            let bits: Vec<u16> = narrow.to_vec1::<half::bf16>().unwrap().iter().map(|b| b.to_bits()).collect();
            assert!(same.iter().zip(&bits).all(|(x, bits)| x.to_bits() == u32::from(*bits) << 16));
            (bits, same)
        };
        assert_eq!(rounded(&of_odd).0, expected);
        let (bits, same) = rounded(&[f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)]);
        assert!(same.iter().all(|x| x.is_nan()), "{bits:x?}");
        for (x, rounded) in ordinary.iter().zip(rounded(&ordinary).1) {
            assert!((x - rounded).abs() <= x.abs() * 2f32.powi(-8), "{x} became {rounded}");
        }
    });
}

/// Queries at the end of a cache that has room behind, in rows that begin in different slots.
#[test]
fn a_few_queries_get_of_a_cache_what_those_of_the_cpu_get() {
    for (b, t, heads, kv, d, slots) in
        [(2, 1, 4, 4, 24, 75), (2, 7, 4, 2, 128, 130), (1, 3, 2, 1, 4, 3), (3, 1, 2, 1, 64, 1)]
    {
        let cache = random(&[2, b, kv, slots + 9, d]);
        let [k, v] = [0, 1].map(|i| cache.get(i).unwrap().narrow(2, 0, slots).unwrap());
        let q = random(&[b, t, heads, d]);
        let first = |row: usize| (3 * row as u32).min((slots - t) as u32);
        let span = |row: usize, i: usize| (first(row), (slots - t + i + 1) as u32);
        let spans: Vec<_> = (0..b).flat_map(|row| (0..t).map(move |i| span(row, i))).collect();
        let seen = Seen::new(&spans, b, slots, &Device::Cpu).unwrap();
        let rows = Rows { spans: &spans, seen: seen.as_ref(), one_by_one: true };
        let expected = attention(&q, &k, &v, &rows, false).unwrap().0;
        crate::device::twin::with_each(|| {
            let found = plainly(|| {
                assert!(fused::attends(&q, &k, &v));
                attention(&q, &k, &v, &rows, false).unwrap().0
            });
            assert_close(&found, &expected, &format!("{b} {t} {heads} {kv} {d} {slots}"));
            // Alone as among others, to the bit.
            let last = q.narrow(1, t - 1, 1).unwrap();
            let spans: Vec<_> = (0..b).map(|row| span(row, t - 1)).collect();
            let seen = Seen::new(&spans, b, slots, &Device::Cpu).unwrap();
            let rows = Rows { spans: &spans, seen: seen.as_ref(), one_by_one: true };
            let alone = plainly(|| attention(&last, &k, &v, &rows, false).unwrap().0);
            let [a, b] =
                [found.narrow(1, t - 1, 1).unwrap(), alone].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            assert_eq!(a, b);
        });
    }
}

#[test]
fn gate_and_up_may_lie_side_by_side() {
    let both = random(&[2, 5, 140]);
    let [gate, up] = [0, 70].map(|at| both.narrow(2, at, 70).unwrap());
    let g = random(&[2, 5, 70]);
    let whole = |t: &Tensor| t.contiguous().unwrap();
    let expected = silu_mul(&whole(&gate), &whole(&up)).unwrap();
    let (g_gate, g_up) = silu_mul_backward(&g, whole(&gate).copy().unwrap(), whole(&up).copy().unwrap()).unwrap();
    crate::device::twin::with_kernels(|| {
        plainly(|| {
            assert_close(&silu_mul(&gate, &up).unwrap(), &expected, "silu");
            let (a, b) = silu_mul_backward(&g, gate.clone(), up.clone()).unwrap();
            assert_close(&a, &g_gate, "gate");
            assert_close(&b, &g_up, "up");
        })
    });
}

#[test]
fn rows_of_a_table_come_as_often_as_asked() {
    let table = random(&[9, 5]);
    let ids = |v: [u32; 4]| Tensor::new(&v, &Device::Cpu).unwrap().reshape((2, 2)).unwrap();
    let of = Tensor::new(&[8u32, 0, 4], &Device::Cpu).unwrap();
    let rows = || {
        let plain = rows(&table, &ids([3, 0, 8, 3]), None, 2).unwrap();
        let mapped = rows(&table, &ids([2, 0, 1, 2]), Some(&of), 1).unwrap();
        assert_eq!((plain.dims(), mapped.dims()), (&[4, 2, 5][..], &[2, 2, 5][..]));
        [plain, mapped].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let expected = rows();
    assert_eq!(expected[1][..5], table.get(4).unwrap().to_vec1::<f32>().unwrap());
    crate::device::twin::with_kernels(|| assert_eq!(plainly(rows), expected));
}

/// As compiled for the CPU; `plainly` calls them then.
#[test]
fn the_kernels_for_gpus_give_what_those_of_the_cpu_give() {
    crate::device::twin::with_each(|| {
        kernels_give_what_plain_operations_give_at_every_level_of_vectors();
        attention_and_its_gradients_are_those_of_plain_operations();
        attention_to_another_sequence_has_gradients_of_its_length();
    });
}

#[test]
fn in_bf16_the_kernels_for_gpus_are_as_near_to_what_is_right_as_candles_operations() {
    let (b, t, heads, d) = (2, 5, 4, 24);
    let bf16 = |dims: &[usize]| random(dims).to_dtype(DType::BF16).unwrap();
    let inputs: Vec<Tensor> =
        [&[b, t, 96][..], &[b, t, 96], &[96], &[b, t, heads, d], &[b, t, heads, d], &[2, d], &[2, d]]
            .into_iter()
            .chain([&[b, t, 1, d / 2][..], &[b, t, 1, d / 2], &[b, t, heads * d]])
            .map(bf16)
            .collect();
    let spans: Vec<_> = (0..t as u32).map(|i| (0, i + 1)).collect();
    let seen = Seen::new(&spans, 1, t, &Device::Cpu).unwrap();
    let rows = Rows { spans: &spans, seen: seen.as_ref(), one_by_one: false };
    let all = |dtype: DType| -> Result<Vec<Tensor>> {
        let inputs = inputs.iter().map(|t| Ok(t.to_dtype(dtype)?)).collect::<Result<Vec<_>>>()?;
        let [x, g, w, q, gq, weight, bias, cos, sin, gm] = &inputs[..] else { panic!("other inputs") };
        let of = Heads { weight, bias, eps: 1e-5, cos, sin };
        let (k, v) = (q.transpose(1, 2)?, gq.transpose(1, 2)?);
        let (gate, up) = silu_mul_backward(g, x.copy()?, g.copy()?)?;
        let (mixed, _) = attention(q, &k, &v, &rows, false)?;
        let (dq, dk, dv) = attention_backward(gm, (q, &k, &v), &mixed, &mixed, &rows)?;
        let norms = [rms_norm(x, w, 1e-5)?, rms_norm_backward(g, x, w, 1e-5, false)?.0];
        let turns = [norm_and_rotate(q, &of)?, norm_and_rotate_backward(gq, q, &of, false)?.0];
        let rotations = [rotate(q, cos, sin)?, rotate_backward(q, cos, sin)?];
        let rest = [silu_mul(x, g)?, gate, up, mixed, dq, dk, dv];
        let results = norms.into_iter().chain(turns).chain(rotations).chain(rest);
        results.map(|t| Ok(t.to_dtype(DType::F32)?.flatten_all()?)).collect()
    };
    let exact = plainly(|| all(DType::F32).unwrap());
    let plain = plainly(|| all(DType::BF16).unwrap());
    crate::device::twin::with_kernels(|| {
        let fused = plainly(|| all(DType::BF16).unwrap());
        for (i, ((fused, plain), exact)) in fused.iter().zip(&plain).zip(&exact).enumerate() {
            let square = |t: &Tensor| t.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
            let off = |t: &Tensor| (square(&(t - exact).unwrap()) / square(exact)).sqrt();
            assert!(off(fused) < 1.1 * off(plain) && off(fused) < 0.02, "{i}: {} {}", off(fused), off(plain));
        }
    });
}

#[test]
fn attention_to_another_sequence_has_gradients_of_its_length() {
    at_each_level(|| {
        // Of the second row's keys only the first three are seen, as of a shorter text.
        for (t, slots, heads, kv) in [(150, 7, 4, 4), (3, 130, 4, 2)] {
            let (b, d) = (2, 8);
            let spans: Vec<_> = (0..b * t).map(|i| (0, if i < t { slots as u32 } else { 3 })).collect();
            let limits = Seen::new(&spans, b, slots, &Device::Cpu).unwrap();
            let seen = Rows { spans: &spans, seen: limits.as_ref(), one_by_one: false };
            let (q, g) = (random(&[b, t, heads, d]), random(&[b, t, heads * d]));
            let (k, v) = (random(&[b, slots, kv, d]), random(&[b, slots, kv, d]));
            let (k, v) = (k.transpose(1, 2).unwrap(), v.transpose(1, 2).unwrap());
            let (own, plain) = both(|| attention(&q, &k, &v, &seen, true));
            assert_close(&own.0, &plain.0, "attention");
            let kept = own.1.unwrap();
            let (own, plain) = both(|| attention_backward(&g, (&q, &k, &v), &own.0, &kept, &seen));
            assert_eq!(own.1.dims(), [b, slots, kv, d]);
            assert_close(&own.0, &plain.0, "queries");
            assert_close(&own.1, &plain.1, "keys");
            assert_close(&own.2, &plain.2, "values");
        }
    });
}

#[test]
fn bf16_factors_are_rounded_and_their_products_summed_in_f32() {
    at_each_level(|| {
        if level() < Level::Avx512Bf16 {
            return;
        }
        // Odd widths and more steps than a panel holds.
        for (rows, inner, out) in [(1, 7, 3), (5, 33, 6), (300, 1061, 45), (270, 130, 33)] {
            let (x, weight) = (random(&[1, rows, inner]), Format::Bf16.weight(random(&[out, inner])).unwrap());
            let g = random(&[1, rows, out]);
            let whole = Weight::Dense(weight.to_f32().unwrap());
            let rounded = |t: &Tensor| t.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
            let expected = plainly(|| linear(&rounded(&x), &whole).unwrap());
            assert_close(&linear(&x, &weight).unwrap(), &expected, "linear");
            let expected = plainly(|| input_gradient(&rounded(&g), &whole, None).unwrap());
            assert_close(&input_gradient(&g, &weight, None).unwrap(), &expected, "input gradient");
        }
    });
}

#[test]
fn attention_to_keys_and_values_of_bf16_is_that_to_the_numbers_they_stand_for() {
    at_each_level(|| {
        for (t, slots, heads, kv, d) in [(3, 45, 4, 2, 24), (150, 150, 4, 4, 64)] {
            let half = |t: Tensor| t.to_dtype(DType::BF16).unwrap();
            let (k, v) = (half(random(&[2, kv, slots, d])), half(random(&[2, kv, slots, d])));
            let q = half(random(&[2, t, heads, d])).to_dtype(DType::F32).unwrap();
            let whole = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
            let spans: Vec<_> = (0..t as u32).map(|i| (0, slots as u32 - t as u32 + i + 1)).collect();
            for one_by_one in [true, false] {
                let seen = Rows { spans: &spans, seen: None, one_by_one };
                let (found, _) = attention(&q, &k, &v, &seen, false).unwrap();
                let (expected, _) = attention(&q, &whole(&k), &whole(&v), &seen, false).unwrap();
                // Where many queries are multiplied with bf16, probabilities are rounded to 8 bits.
                let rounded = level() >= Level::Avx512Bf16 && !one_by_one;
                let size = whole(&v).abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let gap = (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(gap <= size * if rounded { 4e-3 } else { 2e-6 }, "{gap} of {size}, {one_by_one}");
            }
        }
    });
}

#[test]
fn products_of_every_format_pass_when_they_are_tried_out() {
    for format in Format::ALL {
        try_out(format, &Device::Cpu).unwrap();
        plainly(|| try_out(format, &Device::Cpu)).unwrap();
    }
}

#[test]
fn quantised_and_bf16_weights_count_as_the_numbers_they_stand_for() {
    at_each_level(|| {
        let whole = random(&[48, 512]);
        for format in [Format::Bf16, Format::Q8_0, Format::Q4K] {
            let weight = format.weight(whole.clone()).unwrap();
            let dense = Weight::Dense(weight.to_f32().unwrap());
            let narrow = |rows: usize| (random(&[rows, 512]), random(&[rows, 48]));
            for (x, g) in [narrow(3), narrow(11), narrow(300)] {
                let name = format.name();
                // What the other factors are rounded to before they are multiplied with bf16.
                let halves = format == Format::Bf16 && level() >= Level::Avx512Bf16;
                let dtype = if halves { DType::BF16 } else { DType::F32 };
                let rounded = |t: Tensor| t.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
                let (x, g) = (rounded(x), rounded(g));
                let (own, plain) = (linear(&x, &weight).unwrap(), linear(&x, &dense).unwrap());
                assert_close(&own, &plain, name);
                let own = input_gradient(&g, &weight, None).unwrap();
                assert_close(&own, &input_gradient(&g, &dense, None).unwrap(), name);
            }
            let rows = weight.rows(&[5, 6, 40]).unwrap().to_f32().unwrap();
            let ids = Tensor::new(&[5u32, 6, 40], &Device::Cpu).unwrap();
            assert_close(&rows, &dense.to_f32().unwrap().index_select(&ids, 0).unwrap(), "rows");
            // Half a byte costs some tenth, a byte some hundredth of a number's size.
            let error = (weight.to_f32().unwrap() - &whole).unwrap().sqr().unwrap().mean_all().unwrap();
            let limit = if format == Format::Q4K { 0.1 } else { 0.01 };
            assert!(error.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap().sqrt() < limit);
        }
    });
}

/// Rows of 512 numbers that are hard to quantise, and rows as models have them.
fn rows_to_quantise() -> Tensor {
    let mut stream = crate::random::Stream::new(7, crate::random::Purpose::Initial, 0);
    let mut rows: Vec<Vec<f32>> = vec![];
    let mut row = |f: &mut dyn FnMut(usize, f32) -> f32| {
        rows.push((0..512).map(|i| f(i, stream.normal())).collect());
    };
    for _ in 0..200 {
        row(&mut |_, x| 0.02 * x);
        row(&mut |_, x| half::bf16::from_f32(x).to_f32());
        // Heavy tails, few values, many ties of levels.
        row(&mut |_, x| x * x * x * x.exp());
        row(&mut |_, x| (2.0 * x).round());
        row(&mut |_, x| (2.0 * x).round() + 0.5);
        row(&mut |i, x| if i % 37 == 0 { 100.0 * x } else { 1e-3 * x });
        // Parts that are above 0, below it or level, beside others.
        row(&mut |i, x| if i / 32 % 2 == 0 { x.abs() } else { x });
        row(&mut |i, x| if i / 32 % 3 == 0 { -x.abs() - 0.1 } else { x });
        row(&mut |i, x| [x, 0.25, -0.25, 0.0, -0.0][i / 32 % 5]);
        row(&mut |_, x| x.max(0.0));
        row(&mut |i, x| [x, 0.0, -0.0][i % 3]);
    }
    let sizes = [1e-45, 1e-42, 3e-39, 1e-38, 1e-30, 1e-10, 1e10, 1e30, 6e36, 7e37];
    sizes.iter().for_each(|size| (0..20).for_each(|_| row(&mut |_, x| size * x)));
    (-40..40).for_each(|power| row(&mut |i, x| x * 2f32.powi(power + (i / 32) as i32)));
    row(&mut |_, x| x.abs());
    row(&mut |_, x| -x.abs());
    row(&mut |_, _| 0.0);
    row(&mut |_, _| -0.0);
    row(&mut |_, _| -3.5);
    row(&mut |i, _| if i == 300 { f32::MAX } else { -f32::MAX });
    row(&mut |i, _| i as f32 - 256.0);
    row(&mut |i, x| if i == 5 { f32::NAN } else { x });
    row(&mut |i, x| if i == 261 { f32::INFINITY } else { x });
    row(&mut |i, x| if i == 261 { f32::NEG_INFINITY } else { x });
    Tensor::new(rows, &Device::Cpu).unwrap()
}

#[test]
fn blocks_are_those_of_candle_to_the_bit_at_every_level_of_vectors() {
    let all = rows_to_quantise();
    // An odd number of blocks too, and numbers that do not begin where their memory does.
    for rows in
        [all.clone(), all.to_dtype(DType::BF16).unwrap(), all.narrow(0, 2, 1).unwrap().narrow(1, 256, 256).unwrap()]
    {
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q4K] {
            let exact = rows.to_dtype(DType::F32).unwrap().force_contiguous().unwrap();
            let expected = QTensor::quantize(&exact, dtype).unwrap();
            let expected = expected.data().unwrap();
            at_each_level(|| {
                let found = quantise(&rows, dtype).unwrap();
                assert_eq!(found.len(), expected.len());
                let (bytes, size) = (dtype.type_size(), dtype.block_size());
                for (i, (found, expected)) in found.chunks(bytes).zip(expected.chunks(bytes)).enumerate() {
                    assert_eq!(found, expected, "{dtype:?}, row {}, number {}", i * size / 512, i * size % 512);
                }
            });
        }
    }
}

#[test]
fn the_kernels_make_all_blocks_of_ordinary_numbers_themselves() {
    let numbers = random(&[64, 512]).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    at_each_level(|| {
        let mut room = vec![0u8; 128 * GgmlDType::Q4K.type_size()];
        assert!(kernels::q4_k(Matrix::F32(&numbers), 0, &mut room).is_empty());
        let mut room = vec![0u8; 1024 * GgmlDType::Q8_0.type_size()];
        assert!(kernels::q8_0(Matrix::F32(&numbers), 0, &mut room).is_empty());
    });
}

#[test]
fn a_few_rows_give_the_same_bits_whatever_rows_are_beside_them() {
    let _level = LEVEL.lock().unwrap_or_else(|e| e.into_inner());
    let bits = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (format, inner) in Format::ALL.into_iter().flat_map(|f| [(f, 300), (f, 512)]) {
        let weight = format.weight(random(&[131, inner])).unwrap();
        for x in [random(&[150, 2, inner]), random(&[9, inner])] {
            let rows = x.dims()[0];
            let together = bits(linear(&x, &weight).unwrap());
            for (i, together) in together.chunks(together.len() / rows).enumerate() {
                let alone = bits(linear(&x.narrow(0, i, 1).unwrap(), &weight).unwrap());
                assert_eq!(together, alone, "{} of width {inner}, row {i} of {rows}", format.name());
            }
        }
    }
}
