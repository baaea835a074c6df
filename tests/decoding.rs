//! The ways of decoding against each other, and what a step of them may cost.

use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions, EMBEDDED};
use sitter::run::{Control, Run};
use sitter::sample::drawing::Drawing;
use sitter::sample::link::Traffic;
use sitter::sample::{draw_pictures, sample, Decoding, Options, Sample};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

/// What a thread has allocated: how often, and how many bytes at most at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allocated {
    times: u64,
    largest: usize,
}

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { times: 0, largest: 0 }) };
}

struct Counting;

// SAFETY: hands everything on to the system's allocator; the counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|a| {
            let Allocated { times, largest } = a.get();
            a.set(Allocated { times: times + 1, largest: largest.max(layout.size()) });
        });
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn open(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let path = if name == EMBEDDED { Path::new(EMBEDDED) } else { &folder };
    Model::open(
        path,
        &OpenOptions { device: "cpu".into(), dtype: "f32".into(), keep_quantised: false, ..Default::default() },
        &mut Run::new(),
    )
    .unwrap()
}

fn options() -> Options {
    Options { width: 8, height: 8, guidance: 4.0, top_k: 0, seed: 5, ..Options::default() }
}

#[test]
fn speculative_decoding_draws_the_pictures_of_sequential_decoding() {
    for name in ["plain", "grouped"] {
        let model = open(name);
        let view = Personalized::new(&model, &[]).unwrap();
        for guidance in [1.0, 4.0] {
            let sequential = Options { count: 4, guidance, ..options() };
            let draw = |options: &Options| {
                draw_pictures(&view, &["a fox", "a cat and a fox and a cat"], options, &mut Run::new()).unwrap()
            };
            let expected = draw(&sequential);
            for window in [2, 3, 8, 256] {
                let options = Options { decoding: Decoding::Speculative, window, ..sequential.clone() };
                assert_eq!(draw(&options), expected, "{name}, guidance {guidance}, window {window}");
            }
        }
    }
}

#[test]
fn speculative_decoding_draws_the_pictures_of_sequential_decoding_of_the_embedded_model() {
    let model = open(EMBEDDED);
    let draw = |decoding, count| -> Vec<Sample> {
        let options = Options { decoding, count, ..Options::for_model(&model).unwrap() };
        sample(&model, "a photo of a fox in the snow", &[], &options, &mut Run::new()).unwrap()
    };
    assert_eq!(draw(Decoding::Speculative, 20), draw(Decoding::Sequential, 20));
}

#[test]
fn a_picture_drawn_with_coupled_drafts_does_not_depend_on_the_others_of_its_batch() {
    let model = open("plain");
    let options = Options { decoding: Decoding::SpeculativeDistribution, window: 4, ..options() };
    let draw = |options: &Options| sample(&model, "a fox", &[], options, &mut Run::new()).unwrap();
    let batch = draw(&Options { count: 5, ..options.clone() });
    for picture in &batch {
        assert_eq!(&draw(&Options { seed: picture.seed, ..options.clone() })[0], picture);
    }
    assert_ne!(batch[0].tokens, batch[1].tokens);
}

#[test]
fn every_way_says_how_far_every_picture_is() {
    let model = open("plain");
    for decoding in Decoding::ALL {
        let mut done = vec![];
        let mut run = Run::with_events(|event| {
            assert_eq!(event.total, 16);
            done.push(event.done);
            sitter::run::Flow::Continue
        });
        sample(&model, "a fox", &[], &Options { decoding, count: 3, ..options() }, &mut run).unwrap();
        drop(run);
        assert!(done.is_sorted() && done.last() == Some(&16), "{decoding:?}: {done:?}");
    }
}

/// What each pass of a drawing cost, the first pass being that after the prompts'.
fn costs(model: &Model, options: &Options) -> Vec<Traffic> {
    let view = Personalized::new(model, &[]).unwrap();
    let mut drawing = Drawing::new(&view, &["a fox", "a cat and a fox"], options, Control::default()).unwrap();
    let mut costs = vec![];
    while costs.is_empty() || drawing.codes().iter().any(|codes| codes.len() < drawing.total()) {
        let before = drawing.traffic();
        drawing.pass().unwrap();
        let after = drawing.traffic();
        costs.push(Traffic {
            passes: after.passes - before.passes,
            uploads: after.uploads - before.uploads,
            uploaded: after.uploaded - before.uploaded,
            downloads: after.downloads - before.downloads,
            downloaded: after.downloaded - before.downloaded,
            buffers: after.buffers - before.buffers,
        });
    }
    costs
}

#[test]
fn a_sequential_step_is_one_pass_that_reads_the_drawn_codes_and_sends_nothing() {
    for name in ["plain", "grouped"] {
        let costs = costs(&open(name), &Options { count: 3, ..options() });
        let (pictures, codes, row) = (6, 16, 4);
        assert_eq!(costs.len(), 16);
        for (step, cost) in costs.into_iter().enumerate() {
            // A row of noise goes down at the beginning of each row of codes, in one piece.
            let begins = step % row == 0;
            let expected = Traffic {
                passes: u64::from(step > 0),
                uploads: u64::from(begins),
                uploaded: if begins { (pictures * row * codes) as u64 } else { 0 },
                downloads: 1,
                downloaded: pictures as u64,
                buffers: 0,
            };
            assert_eq!(cost, expected, "{name}, step {step}");
        }
    }
}

#[test]
fn a_speculative_pass_sends_what_to_look_at_and_new_noise_and_reads_the_draws() {
    let model = open("plain");
    for decoding in [Decoding::Speculative, Decoding::SpeculativeDistribution] {
        for cost in costs(&model, &Options { decoding, window: 4, count: 3, ..options() }).into_iter().skip(1) {
            assert_eq!((cost.passes, cost.downloads, cost.buffers), (1, 1, 0), "{decoding:?}: {cost:?}");
            assert!(cost.uploads <= 2 && cost.downloaded <= 6 * 8, "{decoding:?}: {cost:?}");
        }
    }
}

#[test]
fn a_late_step_allocates_as_often_as_an_early_one_and_nothing_of_the_cache_s_size() {
    let model = open(EMBEDDED);
    let view = Personalized::new(&model, &[]).unwrap();
    // Narrow, so that the noise of a row of codes, which is made at once, is small beside the cache.
    let options = Options { count: 2, width: 64, height: 256, ..Options::for_model(&model).unwrap() };
    let mut drawing = Drawing::new(&view, &["a photo of a fox"], &options, Control::default()).unwrap();
    let mut steps = vec![];
    while drawing.codes()[0].len() < drawing.total() {
        ALLOCATED.set(Allocated { times: 0, largest: 0 });
        drawing.pass().unwrap();
        steps.push(ALLOCATED.get());
    }
    // Steps 1, 9, 17, ... do the same thing in another row.
    let (row, rows) = (options.width as usize / 8, options.height as usize / 8);
    let times: Vec<u64> = steps.iter().skip(1).step_by(row).map(|s| s.times).collect();
    // Which thread does a piece of the work, and allocates for it, is not always the same.
    assert!(times.len() == rows && times.iter().all(|&t| t <= times[0] + times[0] / 10), "{times:?}");
    let noise = 2 * row * model.info().codebook * 4;
    // The keys of one layer: four rows of at least 256 slots of 256 numbers.
    let cache = 4 * 256 * 256 * 4;
    let largest = steps.iter().map(|s| s.largest).max().unwrap();
    assert!(largest <= noise && noise <= cache / 2, "{largest} bytes at once, {noise} of noise");
}

#[test]
fn nothing_but_the_link_moves_numbers_between_host_and_device() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sample");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("link.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let moving =
            ["Tensor::new", "Tensor::from_vec", "Tensor::from_slice", "Tensor::arange", "to_device", "to_scalar"];
        for call in moving.into_iter().chain(["to_vec0", "to_vec1", "to_vec2", "to_vec3"]) {
            assert!(!code.contains(&format!("{call}(")), "{} calls {call}", path.display());
        }
    }
}

#[test]
fn decoding_options_are_checked_by_name() {
    assert!(Decoding::parse("fast").unwrap_err().to_string().contains("decoding: \"fast\" is not one of sequential,"));
    for window in [1, 257] {
        let error = Options { window, ..options() }.check_ranges().unwrap_err().to_string();
        assert!(error.contains("window"), "{error}");
    }
}
