//! How long the embedded model takes to stop, whenever it is asked to; and that it is as good as new afterwards.
//!
//! The target is 200 ms on two quiet cores. What is asserted is far more, because a machine that runs tests is not quiet;
//! what was measured is printed: `cargo test --test capi latency -- --nocapture`.

use crate::host::*;
use sitter::capi::run::*;
use sitter::capi::setters::*;
use sitter::capi::status::*;
use std::ptr::null_mut;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_secs(2);

/// Cancels the call from another thread `delay` after its beginning or after the first event of `stage`; the time until it
/// returned. None if it was over by then.
fn latency(stage: Option<i32>, delay: Duration, call: impl FnOnce(*mut sitter_run) -> Result<()>) -> Option<Duration> {
    let (began, begins) = channel();
    if stage.is_none() {
        let _ = began.send(());
    }
    let run = Run::new(move |event| {
        if Some(event.stage) == stage {
            let _ = began.send(());
        }
        SITTER_CONTINUE
    });
    std::thread::scope(|scope| {
        let handle = &run.handle;
        let canceller = scope.spawn(move || {
            begins.recv().ok()?;
            std::thread::sleep(delay);
            let at = Instant::now();
            // SAFETY: a living handle.
            unsafe { sitter_run_cancel(handle.at) };
            Some(at)
        });
        let result = call(run.at());
        let returned = Instant::now();
        let cancelled = canceller.join().unwrap()?;
        match result {
            Ok(()) => None,
            Err(failed) => {
                assert_eq!(failed.status, SITTER_E_CANCELLED, "{failed:?}");
                Some(returned.saturating_duration_since(cancelled))
            }
        }
    })
}

/// Measures a call at several moments and prints what was found.
fn measure(what: &str, stage: Option<i32>, delays_ms: &[u64], call: impl Fn(*mut sitter_run) -> Result<()>) {
    let times: Vec<Duration> =
        delays_ms.iter().filter_map(|&ms| latency(stage, Duration::from_millis(ms), &call)).collect();
    let (Some(longest), count) = (times.iter().max(), times.len()) else {
        println!("{what}: was always over before it was cancelled");
        return;
    };
    let mean = times.iter().sum::<Duration>() / count as u32;
    println!("{what}: cancelled {count} times, returned after {mean:.1?} in the mean, {longest:.1?} at most");
    assert!(*longest < BOUND, "{what}: {times:?}");
}

fn train_only(studio: &Studio, embedding_steps: u32, layer_steps: u32) {
    let at = studio.train.at;
    // SAFETY: a living handle.
    unsafe {
        check(|err| sitter_train_options_set_embedding_steps(at, embedding_steps, err)).unwrap();
        check(|err| sitter_train_options_set_layer_steps(at, layer_steps, err)).unwrap();
    }
}

#[test]
fn the_embedded_model_stops_soon_whatever_it_does() {
    let _alone = alone();
    let mut studio = Studio::embedded();
    let plain = Studio::embedded();
    let (short, long): (Vec<u64>, Vec<u64>) = ((0..12).map(|i| i * 2).collect(), (0..8).map(|i| i * 61).collect());
    for verb in [Verb::Open, Verb::Encode, Verb::Score, Verb::Decode] {
        measure(&format!("{verb:?}"), None, &short, |run| plain.perform(verb, run));
    }
    for count in [1, 16] {
        studio.count = count;
        measure(&format!("Sample {count}"), None, &long, |run| studio.perform(Verb::Sample, run));
    }
    // The model's own settings: batches of four, all weights of all layers.
    train_only(&studio, 60, 0);
    measure("Train, before its first step", None, &long, |run| studio.perform(Verb::Train, run));
    // Fewer copies to encode, so that the steps come sooner.
    check(|err| unsafe { sitter_train_options_set_augment(studio.train.at, 1, err) }).unwrap();
    measure("Train, embedding stage", Some(SITTER_STAGE_EMBEDDING), &long, |run| studio.perform(Verb::Train, run));
    train_only(&studio, 0, 45);
    measure("Train, layers stage", Some(SITTER_STAGE_LAYERS), &long, |run| studio.perform(Verb::Train, run));

    train_only(&studio, 1, 1);
    let before = codes(&plain.sample(null_mut()).unwrap()[0]);
    studio.count = 1;
    assert_eq!(
        codes(&studio.sample(null_mut()).unwrap()[0]),
        before,
        "a model that was cancelled draws something else"
    );
    studio.train(null_mut()).unwrap();
}

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    // What the allocator keeps for later is not in use, and how much that is depends on which threads met.
    // SAFETY: has no preconditions.
    unsafe { libc::malloc_trim(0) };
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "run in a process of its own by the test below"]
fn child_cancels_many_jobs() {
    let studio = Studio::embedded();
    train_only(&studio, 60, 45);
    let job = |i: u64| {
        let verb = [Verb::Train, Verb::Sample, Verb::Open, Verb::Decode, Verb::Encode][i as usize % 5];
        latency(None, Duration::from_millis(i % 7 * 9), |run| studio.perform(verb, run));
    };
    (0..20).for_each(job);
    let before = resident();
    (0..200).for_each(job);
    let grown = resident().saturating_sub(before);
    println!("200 cancelled jobs: {} KiB more in use", grown / 1024);
    assert!(grown < 40 << 20, "{grown} bytes");
}

#[test]
fn cancelled_jobs_leave_no_memory_behind() {
    let _alone = alone();
    let (stdout, _) = in_own_process("latency::child_cancels_many_jobs");
    println!("{}", stdout.lines().find(|l| l.contains("cancelled jobs")).unwrap_or_default());
}
