//! Every way to stop a call, at every moment.

use crate::host::*;
use sitter::capi::run::*;
use sitter::capi::status::*;
use sitter::capi::subject::sitter_subject_losses;
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tells steps from the heartbeats between them, which come where the machine is slow.
#[derive(Default)]
struct Steps(Option<(i32, u64)>);

impl Steps {
    fn is_new(&mut self, event: &sitter_event) -> bool {
        let step = (event.stage, event.done);
        event.done > 0 && self.0.replace(step) != Some(step)
    }
}

#[test]
fn every_answer_but_continue_cancels() {
    let studio = Studio::fake("steps=3");
    // What foreign runtimes return when a callback throws, among others.
    for answer in [0, -1, 2, 3, 255, 256, 257, i32::MAX, i32::MIN, 2_003_165_136, 0x0100_0000] {
        for verb in Verb::ALL {
            let mut calls = 0;
            let run = Run::new(|_| {
                calls += 1;
                answer
            });
            fails(studio.perform(verb, run.at()), SITTER_E_CANCELLED);
            drop(run);
            assert_eq!(calls, 1, "{verb:?} called again after {answer}");
        }
    }
    studio.still_works();
}

#[test]
fn a_call_can_be_stopped_at_every_event_of_every_verb() {
    let studio = Studio::fake("steps=4");
    for verb in Verb::ALL {
        let events = if verb == Verb::Train { 8 } else { 4 };
        for stop_at in 1..=events {
            for by_answer in [true, false] {
                let seen = Cell::new(0);
                let handle = Cell::new(null_mut());
                let mut steps = Steps::default();
                let run = Run::new(|event| {
                    if !steps.is_new(event) {
                        return SITTER_CONTINUE;
                    }
                    seen.set(seen.get() + 1);
                    match seen.get() == stop_at {
                        true if by_answer => 0,
                        true => {
                            // SAFETY: the run lives through the call.
                            unsafe { sitter_run_cancel(handle.get()) };
                            SITTER_CONTINUE
                        }
                        false => SITTER_CONTINUE,
                    }
                });
                handle.set(run.at());
                fails(studio.perform(verb, run.at()), SITTER_E_CANCELLED);
                assert_eq!(seen.get(), stop_at, "{verb:?}");
            }
        }
        studio.perform(verb, null_mut()).unwrap();
    }
    studio.still_works();
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn a_run_cancelled_before_its_call_makes_it_return_at_once() {
    let studio = Studio::fake("steps=100,step_ms=100");
    for verb in Verb::ALL {
        let mut calls = 0;
        let run = Run::new(|_| {
            calls += 1;
            SITTER_CONTINUE
        });
        run.cancel();
        // Cancelling wins over finishing early, whatever their order.
        run.finish_early();
        let begun = Instant::now();
        fails(studio.perform(verb, run.at()), SITTER_E_CANCELLED);
        assert!(begun.elapsed() < Duration::from_millis(100), "{verb:?}: {:?}", begun.elapsed());
        drop(run);
        assert_eq!(calls, 0);
    }
    // SAFETY: NULL is allowed.
    unsafe {
        sitter_run_cancel(std::ptr::null());
        sitter_run_finish_early(std::ptr::null());
        sitter_run_free(null_mut());
    }
}

#[test]
fn a_second_thread_may_cancel_over_and_over() {
    let studio = Studio::fake("steps=6,step_ms=1");
    let mut outcomes = [0; 2];
    for round in 0..60u64 {
        let verb = Verb::ALL[round as usize % Verb::ALL.len()];
        let run = Run::new(|_| SITTER_CONTINUE);
        let over = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(round * 200));
                while !over.load(Ordering::Relaxed) {
                    run.cancel();
                    run.snapshot();
                }
            });
            let result = studio.perform(verb, run.at());
            over.store(true, Ordering::Relaxed);
            result
        });
        match result {
            Ok(()) => outcomes[0] += 1,
            Err(failed) => {
                assert_eq!(failed.status, SITTER_E_CANCELLED, "{failed:?}");
                outcomes[1] += 1;
            }
        }
    }
    assert!(outcomes[1] > 20, "{outcomes:?}");
    studio.still_works();
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn cancelling_takes_a_step_at_most() {
    let _alone = alone();
    let studio = Studio::fake("steps=50,step_ms=20");
    for verb in Verb::ALL {
        let run = Run::silent();
        let latency = std::thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(90));
                let at = Instant::now();
                run.cancel();
                at
            });
            fails(studio.perform(verb, run.at()), SITTER_E_CANCELLED);
            let returned = Instant::now();
            returned - canceller.join().unwrap()
        });
        assert!(latency < Duration::from_millis(100), "{verb:?}: {latency:?}");
    }
}

#[test]
fn finishing_early_at_any_step_of_a_training_keeps_a_subject() {
    let studio = Studio::fake("steps=4");
    for stop_at in 0..=8 {
        let seen = Cell::new(0);
        let handle = Cell::new(null_mut());
        let mut steps = Steps::default();
        let run = Run::new(|event| {
            if !steps.is_new(event) {
                return SITTER_CONTINUE;
            }
            seen.set(seen.get() + 1);
            if seen.get() == stop_at {
                // SAFETY: the run lives through the call.
                unsafe { sitter_run_finish_early(handle.get()) };
            }
            SITTER_CONTINUE
        });
        handle.set(run.at());
        if stop_at == 0 {
            run.finish_early();
        }
        let subject = studio.train(run.at()).unwrap();
        assert_eq!(subject_info(&subject)["identifier"], "[V]");
        // In the embedding stage, finishing leaves the other stage out.
        let expected = if stop_at <= 4 { stop_at.max(1) } else { stop_at };
        assert_eq!(seen.get(), expected, "stopped at {stop_at}");
        let mut entries = 0;
        check(|err| unsafe {
            sitter_subject_losses(subject.at, null_mut(), null_mut(), null_mut(), 0, &mut entries, err)
        })
        .unwrap();
        assert!(entries > 0);
    }
    // Where there is nothing to keep half done, it changes nothing.
    for verb in [Verb::Encode, Verb::Sample, Verb::Score, Verb::Decode] {
        let run = Run::silent();
        run.finish_early();
        studio.perform(verb, run.at()).unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn a_job_can_be_cancelled_while_it_waits_and_the_other_goes_on() {
    let engine = engine(1, 1);
    let studio = Studio::on(engine.at, "fake:steps=10,step_ms=40", 16, 2);
    let first = Run::silent();
    let third = Run::silent();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| studio.encode(first.at()).map(drop));
        while first.snapshot().done == 0 {
            std::thread::yield_now();
        }
        // By its callback, and by another thread without one.
        let mut waited = 0;
        let second = Run::new(|event| {
            assert_eq!(event.stage, SITTER_STAGE_WAITING);
            waited += 1;
            if waited < 2 {
                SITTER_CONTINUE
            } else {
                0
            }
        });
        fails(studio.score(second.at()), SITTER_E_CANCELLED);
        drop(second);
        assert_eq!(waited, 2);
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            third.cancel();
        });
        let begun = Instant::now();
        fails(studio.decode(third.at()), SITTER_E_CANCELLED);
        assert!(begun.elapsed() < Duration::from_millis(150), "{:?}", begun.elapsed());
        assert!(!job.is_finished());
        job.join().unwrap().unwrap();
    });
    studio.decode(null_mut()).unwrap();
}
