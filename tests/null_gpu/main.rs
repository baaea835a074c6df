//! The library on a pretended GPU, which counts and checks what is asked of it and computes nothing: run by tools/cuda/null.sh. Every
//! number that is read back is zero, so what is learned or drawn means nothing; what is launched, sent and allocated is what a GPU
//! would be asked for.

mod counts;
mod landing;
mod peaks;
#[path = "../sizes/mod.rs"]
mod sizes;
mod table;
#[path = "../verbs/mod.rs"]
mod verbs;

#[allow(dead_code)]
#[path = "../../examples/random_model/main.rs"]
mod random_model;

use sitter::run::Run;
use sitter::sample;
use std::sync::{Mutex, MutexGuard, PoisonError};
use verbs::{decodings, draw, drawing, open, own_side, picture, score, teach, trainings, LEARNING};

/// One test at a time: the counts are the whole process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const FORMATS: [&str; 4] = ["f32", "bf16", "q8_0", "q4_k"];

#[test]
fn every_verb_of_every_family_is_carried_out_in_every_format() {
    let _alone = alone();
    let device = sitter::device::devices();
    assert!(device.iter().any(|d| d.name == "cuda:0"), "{device:?}");
    for (name, side) in LEARNING.into_iter().chain([("grouped", 8)]) {
        for dtype in FORMATS {
            let what = format!("{name} in {dtype}");
            println!("{what}");
            let model = open(name, "cuda", dtype);
            assert!(model.device().is_cuda());
            let side = own_side(&model, side);
            for &decoding in decodings(&model) {
                for top_k in if name == "infinity" { vec![0] } else { vec![0, 7] } {
                    let drawn = draw(&model, &[], &sample::Options { decoding, top_k, ..drawing(&model, side) });
                    assert_eq!(drawn.len(), 4, "{what}");
                }
            }
            if name == "grouped" {
                continue;
            }
            let tokens = model.encode(&picture(1, side), &Run::new()).unwrap();
            model.decode(&tokens, &Run::new()).unwrap();
            assert!(score(&model, &[], &tokens).is_finite(), "{what}");
            for options in trainings(&model, side) {
                let subject = teach(&model, &options, side, &mut Run::new()).unwrap();
                draw(&model, &[&subject], &drawing(&model, side));
            }
        }
    }
}

#[test]
fn what_is_opened_gives_back_all_memory_when_it_is_closed() {
    let _alone = alone();
    for dtype in FORMATS {
        let before = counts::counts().live_bytes;
        let model = open("plain", "cuda", dtype);
        draw(&model, &[], &drawing(&model, 8));
        drop(model);
        let left = counts::counts().live_bytes - before;
        // candle's kernels for quantised weights keep what they write between in a static of theirs.
        let allowed = if dtype.starts_with('q') { 64 << 20 } else { 0 };
        assert!(left <= allowed, "{dtype}: {left} bytes");
    }
}
