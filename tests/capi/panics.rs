//! A defect inside the library: the call says so, the process lives, and so do model and engine.

use crate::host::*;
use sitter::capi::run::SITTER_CONTINUE;
use sitter::capi::status::*;
use std::ptr::null_mut;

/// Does every verb with a fake model that breaks at step k, for all k; each time on an engine that goes on being used.
fn break_at_every_step(how: &str, expected: sitter_status, word: &str) {
    let engine = engine(2, 1);
    let healthy = Studio::on(engine.at, "fake:steps=2", 16, 2);
    for k in 1..=3 {
        let name = format!("fake:open=1,steps=3,{how}={k}");
        let broken = Studio::on(engine.at, &name, 16, 2);
        for verb in Verb::ALL {
            for watched in [false, true] {
                let mut events = 0;
                let run = match watched {
                    true => Run::new(|event| {
                        events = events.max(event.done);
                        SITTER_CONTINUE
                    }),
                    false => Run::silent(),
                };
                let result = match verb {
                    Verb::Open => open_on(engine.at, &name, run.at()).map(drop),
                    verb => broken.perform(verb, run.at()),
                };
                let message = fails(result, expected);
                assert!(message.contains(&format!("{word} at step {k}")), "{message}");
                drop(run);
                assert!(!watched || events == k - 1, "{verb:?} {k}: {events} steps were told");
                model_info(&broken.model);
                healthy.perform(Verb::Sample, null_mut()).unwrap();
            }
        }
        assert_eq!(broken.perform(Verb::Encode, null_mut()).unwrap_err().status, expected, "the same again");
    }
    healthy.still_works();
}

#[test]
fn a_panic_at_any_step_of_any_verb_is_a_status() {
    break_at_every_step("panic_at", SITTER_E_PANIC, "panics");
}

#[test]
fn a_failure_at_any_step_of_any_verb_is_a_status() {
    break_at_every_step("fail_at", SITTER_E_INTERNAL, "fails");
}

#[test]
#[ignore = "run in a process of its own by the test below"]
fn child_panics_at_every_step() {
    break_at_every_step("panic_at", SITTER_E_PANIC, "panics");
}

#[test]
#[cfg_attr(miri, ignore = "needs another process")]
fn a_caught_panic_prints_nothing() {
    let (stdout, stderr) = in_own_process("panics::child_panics_at_every_step");
    assert_eq!(stderr, "");
    assert!(!stdout.contains("panick") && stdout.lines().count() < 8, "{stdout}");
}

#[test]
fn a_panic_message_says_where_it_happened() {
    let studio = Studio::fake("steps=1,panic_at=1");
    let message = fails(studio.decode(null_mut()), SITTER_E_PANIC);
    assert!(message.contains("src/capi/fake.rs:"), "{message}");
}
