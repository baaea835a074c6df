//! What the estimate promises is what is allocated, counted by an allocator of our own.

use sitter::estimate::{Estimate, Request};
use sitter::model::family::{Keep, Mode};
use sitter::model::outline::Outline;
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{train, Dataset, Method, Options, Recompute, StateFormat, Trainable};
use sitter::picture::Picture;
use sitter::run::{Flow, Run, Stage};
use sitter::tokens::Tokens;
use sitter::{sample, Error};
use sizes::Size;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

#[allow(dead_code)]
#[path = "../examples/random_model/main.rs"]
mod random_model;
mod sizes;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        System.alloc(layout)
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        System.alloc_zeroed(layout)
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        System.dealloc(at, layout)
    }
}

fn count(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time: the counter is the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

const SMALL: Size =
    Size { preset: "small", hidden: 256, layers: 6, heads: 4, kv_heads: 4, intermediate: 704, dtype: "f32", side: 256 };

const SIZES: [Size; 4] = [
    SMALL,
    Size { hidden: 512, layers: 3, heads: 8, kv_heads: 2, intermediate: 1408, dtype: "bf16", ..SMALL },
    Size { hidden: 384, layers: 8, heads: 6, kv_heads: 6, intermediate: 1024, ..SMALL },
    Size { preset: "janus-small", side: 384, ..SMALL },
];

/// The model, and what opening it allocated.
fn open(size: &Size, folder: &std::path::Path) -> (Model, usize) {
    size.write(folder);
    let before = LIVE.load(Ordering::Relaxed);
    let options =
        OpenOptions { device: "cpu".into(), dtype: size.dtype.into(), keep_quantised: false, ..Default::default() };
    let model = Model::open(folder, &options, &mut Run::new()).unwrap();
    let taken = LIVE.load(Ordering::Relaxed) - before;
    (model, taken)
}

fn assert_near(measured: usize, promised: u64, what: &str) {
    let ratio = measured as f64 / promised as f64;
    println!("{what}: {:.1} MB of {:.1} MB, {ratio:.3}", measured as f64 / 1e6, promised as f64 / 1e6);
    assert!((0.9..=1.1).contains(&ratio), "{what}: {measured} bytes were allocated, {promised} were promised");
}

/// What an opened model takes besides its weights is mostly the text tokenizer.
fn beside(model: &Model, taken: usize) -> usize {
    let outline = Outline::of(model);
    let train = Options::new(Method::TwoStage);
    let weights = Estimate::of(&outline, &Request { sample: &Default::default(), prompts: 1, train: &train }).weights;
    taken - weights as usize
}

fn pictures() -> Dataset {
    let pixels = (0..256 * 256 * 3u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
    Dataset::new(vec![Picture::new(256, 256, pixels).unwrap()]).unwrap()
}

/// The peaks of both stages over what was live at `base`.
fn stages(model: &Model, options: &Options, base: usize) -> (usize, usize) {
    let (mut embedding, mut layers) = (0, 0);
    let reset = || PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
    let peak = || PEAK.load(Ordering::Relaxed) - base;
    let mut run = Run::with_events(|event| {
        match event.stage {
            Stage::Embedding => embedding = peak(),
            Stage::Layers => layers = peak(),
            _ => {}
        }
        if event.stage != Stage::Layers {
            reset();
        }
        Flow::Continue
    });
    train(model, &pictures(), options, &mut |_, _, _| unreachable!("no pictures are drawn"), &mut run).unwrap();
    drop(run);
    (embedding, layers)
}

#[test]
fn training_takes_what_the_estimate_says_for_every_trainable_set() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let base = Options {
        class_word: "dog".into(),
        embedding_steps: 1,
        layer_steps: 2,
        lora_rank: 16,
        ..Options::new(Method::TwoStage)
    };
    for size in &SIZES {
        let folder = tempfile::tempdir().unwrap();
        let before = LIVE.load(Ordering::Relaxed);
        let (model, taken) = open(size, folder.path());
        let start = before + beside(&model, taken);
        let around = ["head", "aligner"].map(|role| Trainable::parse(role).unwrap());
        let around = around.into_iter().filter(|_| size.preset.starts_with("janus"));
        for trainable in Trainable::SETS.into_iter().chain(around) {
            for (recompute, keep, state) in
                [(Recompute::Always, true, StateFormat::F32), (Recompute::Never, false, StateFormat::Int8)]
            {
                let options = Options {
                    trainable: trainable.clone(),
                    recompute,
                    keep_gradients: keep,
                    optimizer_state: state,
                    image_size: size.side,
                    ..base.clone()
                };
                let request = Request { sample: &Default::default(), prompts: 1, train: &options };
                let promised = Estimate::of(&Outline::of(&model), &request);
                let (mut embedding, mut layers) = stages(&model, &options, start);
                // What threads hold at once depends on when they meet: where one came late it is measured again.
                for _ in 0..3 {
                    if layers as f64 >= 0.9 * promised.layers as f64 {
                        break;
                    }
                    let again = stages(&model, &options, start);
                    (embedding, layers) = (embedding.max(again.0), layers.max(again.1));
                }
                let what = format!("{} {} {} {recompute:?} {state:?}", size.preset, size.hidden, trainable.name());
                assert_near(embedding, promised.embedding, &format!("{what}, embedding"));
                assert_near(layers, promised.layers, &format!("{what}, layers"));
            }
        }
    }
}

/// What a layer of Llama's kind keeps for its backward pass: its input, queries, keys, values, what attention mixed, middle, gate and
/// up, in the format of weights that are not quantised, and a normaliser of each head in f32.
#[test]
fn a_layer_keeps_what_its_backward_pass_needs_in_two_bytes_a_number_where_weights_are_not_f32() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    // A helper that comes late would be counted with the memory that it works in.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (dtype, bytes) in [("f32", 4), ("bf16", 2), ("q8_0", 2), ("q4_k", 2)] {
        for size in [&Size { dtype, ..SMALL }, &Size { dtype, ..SIZES[1] }, &Size { dtype, ..SIZES[3] }] {
            let folder = tempfile::tempdir().unwrap();
            let (model, _) = open(size, folder.path());
            let side = size.side / model.facts().patch;
            let tokens = Tokens::new(side, side, vec![7; (side * side) as usize]).unwrap();
            let example = Personalized::new(&model, &[]).unwrap().example("a dog", &tokens).unwrap();
            let layers = model.facts().layers;
            let (count, taken) = alone.install(|| {
                let mut pass = model.family().pass(&[(&example, 1.0)], None, &Mode::default()).unwrap();
                pass.forward(0, Keep::All).unwrap();
                let before = LIVE.load(Ordering::Relaxed);
                (1..layers).for_each(|layer| pass.forward(layer, Keep::All).unwrap());
                (pass.tokens(), (LIVE.load(Ordering::Relaxed) - before) / (layers - 1))
            });
            let (h, kv) = (size.hidden, size.hidden / size.heads * size.kv_heads);
            let stated = count * (bytes * (4 * h + 2 * kv + 2 * size.intermediate) + 4 * size.heads);
            let what = format!("{} {h} {dtype}", size.preset);
            let ratio = taken as f64 / stated as f64;
            assert!((ratio - 1.0).abs() < 0.01, "{what}: {taken} bytes a layer, stated are {stated}");
            let outline = Outline::of(&model);
            assert_eq!(outline.footprint.kept(count as u128, &outline.at), stated as u128, "{what}");
        }
    }
}

#[test]
fn drawing_takes_what_the_estimate_says() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    for size in &SIZES {
        let folder = tempfile::tempdir().unwrap();
        let before = LIVE.load(Ordering::Relaxed);
        let (model, taken) = open(size, folder.path());
        let start = before + beside(&model, taken);
        let options = sample::Options { width: size.side, height: size.side, count: 8, ..Default::default() };
        let request = Request { sample: &options, prompts: 1, train: &Options::new(Method::TwoStage) };
        let promised = Estimate::of(&Outline::of(&model), &request);
        PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
        // The cache is as large from the first code on.
        let mut run = Run::with_events(|event| if event.done == 3 { Flow::Cancel } else { Flow::Continue });
        let stopped = sample::sample(&model, "a dog", &[], &options, &mut run);
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert_near(
            PEAK.load(Ordering::Relaxed) - start,
            promised.sample,
            &format!("{} {} drawing", size.preset, size.hidden),
        );
    }
}

#[test]
fn infinity_takes_what_the_estimate_says() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    for dtype in ["f32", "bf16"] {
        let size = Size { preset: "infinity-small", hidden: 256, layers: 6, intermediate: 1024, dtype, ..SMALL };
        let folder = tempfile::tempdir().unwrap();
        let before = LIVE.load(Ordering::Relaxed);
        let (model, taken) = open(&size, folder.path());
        let start = before + beside(&model, taken);
        let drawing =
            sample::Options { width: 256, height: 256, count: 2, ..sample::Options::for_model(&model).unwrap() };
        let base = Options {
            class_word: "dog".into(),
            layer_steps: 2,
            batch_size: 1,
            image_size: 256,
            ..Options::for_model(&model, Method::Arbooth).unwrap()
        };
        let promised =
            |train: &Options| Estimate::of(&Outline::of(&model), &Request { sample: &drawing, prompts: 1, train });
        PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
        sample::sample(&model, "a dog", &[], &drawing, &mut Run::new()).unwrap();
        assert_near(PEAK.load(Ordering::Relaxed) - start, promised(&base).sample, &format!("{dtype} drawing"));
        for (recompute, optimizer_state) in
            [(Recompute::Never, StateFormat::F32), (Recompute::Always, StateFormat::Int8)]
        {
            let options = Options { recompute, optimizer_state, ..base.clone() };
            let (_, layers) = stages(&model, &options, start);
            assert_near(layers, promised(&options).layers, &format!("{dtype} arbooth {recompute:?}"));
        }
    }
}
