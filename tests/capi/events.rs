//! What a call tells while it works.

use crate::host::*;
use sitter::capi::engine::sitter_engine_free;
use sitter::capi::run::*;
use sitter::capi::setters::sitter_sample_options_set_seed;
use sitter::capi::status::*;
use sitter::capi::tokens::sitter_tokens_free;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// The stages that a verb goes through.
fn stages(verb: Verb) -> &'static [i32] {
    match verb {
        Verb::Open => &[SITTER_STAGE_OPEN],
        Verb::Encode => &[SITTER_STAGE_ENCODE],
        // The fake model does not encode before it trains.
        Verb::Train => &[SITTER_STAGE_EMBEDDING, SITTER_STAGE_LAYERS],
        Verb::Sample => &[SITTER_STAGE_SAMPLE],
        Verb::Score | Verb::Look | Verb::Measure => &[SITTER_STAGE_SCORE],
        Verb::Decode => &[SITTER_STAGE_DECODE],
    }
}

/// Fails if the events contradict each other.
pub fn check_events(events: &[sitter_event]) {
    for (i, e) in events.iter().enumerate() {
        assert_eq!(e.struct_size as usize, size_of::<sitter_event>());
        assert!(e.total == 0 || e.done <= e.total, "{e:?}");
        assert!(e.item < e.item_count, "{e:?}");
        let training = [SITTER_STAGE_EMBEDDING, SITTER_STAGE_LAYERS].contains(&e.stage) && e.done > 0;
        assert_eq!(training, !e.value.is_nan(), "{e:?}");
        if let Some(before) = i.checked_sub(1).map(|i| &events[i]) {
            assert!(e.elapsed_ms >= before.elapsed_ms, "{before:?} {e:?}");
            assert!(e.stage != before.stage || e.done >= before.done, "{before:?} {e:?}");
        }
    }
    // The last event of each stage but that of waiting and those in which nothing was finished. Class pictures are drawn a few at a
    // time, and drawing them is a stage of its own.
    for (i, e) in events.iter().enumerate().filter(|(_, e)| e.stage != SITTER_STAGE_WAITING && e.done > 0) {
        if e.item + 1 == e.item_count && events.get(i + 1).is_none_or(|next| next.stage != e.stage) {
            assert_eq!(e.done, e.total, "{e:?}");
        }
    }
}

#[test]
fn each_verb_tells_its_steps_in_order_on_the_calling_thread() {
    let studio = Studio::fake("steps=5,step_ms=2");
    for verb in Verb::ALL {
        let events = RefCell::new(Vec::new());
        let here = std::thread::current().id();
        let run = Run::new(|event| {
            assert_eq!(std::thread::current().id(), here);
            events.borrow_mut().push(*event);
            SITTER_CONTINUE
        });
        studio.perform(verb, run.at()).unwrap();
        drop(run);
        let events = events.into_inner();
        check_events(&events);
        let mut seen: Vec<i32> = events.iter().map(|e| e.stage).collect();
        seen.dedup();
        assert_eq!(seen, stages(verb), "{verb:?}");
        for stage in stages(verb) {
            let mut done: Vec<u64> =
                events.iter().filter(|e| e.stage == *stage && e.done > 0).map(|e| e.done).collect();
            done.dedup();
            assert_eq!(done, [1, 2, 3, 4, 5], "{verb:?} {stage}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn time_passes_in_events_and_silence_never_lasts_longer_than_100_ms() {
    let _alone = alone();
    let studio = Studio::fake("steps=2,step_ms=400");
    for verb in [Verb::Open, Verb::Sample] {
        let begun = Instant::now();
        let mut last = begun;
        let mut longest = Duration::ZERO;
        let mut count = 0;
        let mut elapsed = Vec::new();
        let run = Run::new(|event| {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            count += 1;
            assert!(event.elapsed_ms <= begun.elapsed().as_millis() as u64);
            assert_eq!(event.stage, stages(verb)[0], "a heartbeat has the stage of the work");
            elapsed.push(event.elapsed_ms);
            SITTER_CONTINUE
        });
        studio.perform(verb, run.at()).unwrap();
        drop(run);
        assert!(longest <= Duration::from_millis(100), "{longest:?}");
        assert!(count >= 8, "{count} events in 800 ms");
        assert!(elapsed.last().unwrap() >= &780 && elapsed.windows(2).all(|w| w[0] <= w[1]), "{elapsed:?}");
    }
}

#[test]
fn what_is_drawn_so_far_can_be_taken_inside_the_event_function_and_from_other_threads() {
    let mut studio = Studio::fake("steps=8");
    studio.count = 2;
    check(|err| unsafe { sitter_sample_options_set_seed(studio.sample.at, 7, err) }).unwrap();
    let take = |run: *mut sitter_run, picture| {
        made(sitter_tokens_free, |out, err| unsafe { sitter_run_tokens(run, picture, out, err) })
    };
    let (seen, at) = (RefCell::new(Vec::new()), Cell::new(null_mut()));
    let run = Run::new(|event| {
        seen.borrow_mut().push((event.done, take(at.get(), 1).map_or(vec![], |t| codes(&t))));
        SITTER_CONTINUE
    });
    at.set(run.at());
    fails(take(run.at(), 0), SITTER_E_INVALID_STATE);
    studio.sample(run.at()).unwrap();
    let other = &run.handle;
    let whole = std::thread::scope(|s| s.spawn(move || codes(&take(other.at, 0).unwrap())).join().unwrap());
    assert_eq!(whole, [7; 4]);
    assert!(fails(take(run.at(), 2), SITTER_E_INVALID_STATE).contains("picture 2"));
    drop(run);
    // A row of two codes is complete every fourth step.
    assert!(seen.borrow().iter().all(|(done, codes)| *codes == vec![8; *done as usize / 4 * 2]), "{seen:?}");
}

#[test]
fn a_snapshot_shows_the_newest_event_and_never_writes_past_its_size() {
    let studio = Studio::fake("steps=3");
    let run = Run::silent();
    let before = run.snapshot();
    assert!(before.stage == 0 && before.done == 0 && before.value.is_nan());
    studio.train(run.at()).unwrap();
    let after = run.snapshot();
    assert_eq!((after.stage, after.done, after.total, after.value), (SITTER_STAGE_LAYERS, 3, 3, 3.0));

    // A host that was compiled with a smaller, or a larger struct.
    let mut bytes = [0xaau8; 80];
    for size in [0usize, 4, 24, size_of::<sitter_event>(), 72] {
        bytes.fill(0xaa);
        check(|err| unsafe { sitter_run_snapshot(run.at(), bytes.as_mut_ptr().cast(), size, err) }).unwrap();
        assert!(bytes[size..].iter().all(|&b| b == 0xaa), "{size}");
        assert!(bytes[size_of::<sitter_event>().min(size)..size].iter().all(|&b| b == 0), "{size}");
    }
    let null = check(|err| unsafe { sitter_run_snapshot(run.at(), null_mut(), 56, err) });
    fails(null, SITTER_E_NULL_POINTER);
}

#[test]
fn a_run_serves_one_call() {
    let studio = Studio::fake("steps=1");
    for verb in Verb::ALL {
        let run = Run::silent();
        studio.perform(verb, run.at()).unwrap();
        for again in Verb::ALL {
            fails(studio.perform(again, run.at()), SITTER_E_INVALID_STATE);
        }
        let callback = check(|err| unsafe { sitter_run_set_callback(run.at(), None, null_mut(), err) });
        fails(callback, SITTER_E_INVALID_STATE);
    }
    // A call that is refused for its arguments leaves the run as it was.
    let run = Run::silent();
    let refused = made(sitter::capi::subject::sitter_subject_free, |out, err| unsafe {
        sitter::capi::subject::sitter_subject_train(
            studio.model.at,
            std::ptr::null(),
            studio.train.at,
            run.at(),
            out,
            err,
        )
    });
    fails(refused, SITTER_E_NULL_POINTER);
    studio.train(run.at()).unwrap();
}

#[test]
fn without_a_callback_the_work_is_the_same() {
    let studio = Studio::fake("steps=2");
    studio.still_works();
    assert_eq!(codes(&studio.encode(null_mut()).unwrap()), codes(&studio.encode(Run::silent().at()).unwrap()));
}

#[test]
fn a_job_that_waits_for_another_says_so() {
    let engine = engine(1, 1);
    let studio = Studio::on(engine.at, "fake:steps=4,step_ms=60", 16, 2);
    unsafe { sitter_engine_free(engine.leak()) };
    let first = Run::silent();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| studio.encode(first.at()).map(drop));
        while first.snapshot().done == 0 {
            std::thread::yield_now();
        }
        let events = RefCell::new(Vec::new());
        let second = Run::new(|event| {
            events.borrow_mut().push(*event);
            SITTER_CONTINUE
        });
        studio.decode(second.at()).unwrap();
        drop(second);
        let events = events.into_inner();
        check_events(&events);
        let mut stages: Vec<i32> = events.iter().map(|e| e.stage).collect();
        stages.dedup();
        assert_eq!(stages, [SITTER_STAGE_WAITING, SITTER_STAGE_DECODE]);
        let waiting = events.iter().filter(|e| e.stage == SITTER_STAGE_WAITING);
        assert!(waiting.clone().count() >= 2 && waiting.clone().all(|e| (e.done, e.total) == (0, 0)), "{events:?}");
        job.join().unwrap().unwrap();
    });
}
