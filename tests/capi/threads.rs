//! Handles used, and given up, from several threads at once.

use crate::host::*;
use sitter::capi::dataset::sitter_dataset_free;
use sitter::capi::engine::*;
use sitter::capi::image::*;
use sitter::capi::model::*;
use sitter::capi::options::*;
use sitter::capi::run::*;
use sitter::capi::setters::sitter_train_options_set_seed;
use sitter::capi::status::*;
use sitter::capi::subject::*;
use sitter::capi::tokens::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn everything_may_be_freed_from_another_thread_while_a_job_runs() {
    for verb in [Verb::Encode, Verb::Train, Verb::Sample, Verb::Score, Verb::Decode] {
        let engine = engine(2, 1);
        let studio = Studio::on(engine.at, "fake:steps=6,step_ms=15", 16, 2);
        let subject = studio.train(null_mut()).unwrap();
        let began = AtomicBool::new(false);
        let run = Run::new(|_| {
            // What the call read of the handles comes before they are freed.
            began.store(true, Ordering::Release);
            SITTER_CONTINUE
        });
        std::thread::scope(|scope| {
            let job = scope.spawn(|| match verb {
                Verb::Sample => studio.sample_with("a [V] fox", &[&subject], run.at()).map(drop),
                Verb::Score => studio.score_all("a [V] fox", &[&subject], &[&studio.tokens], run.at()).map(drop),
                verb => studio.perform(verb, run.at()),
            });
            while !began.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            // SAFETY: living handles, each freed as often as it has references.
            unsafe {
                sitter_engine_free(engine.at);
                sitter_model_free(studio.model.at);
                sitter_subject_free(subject.at);
                sitter_tokens_free(studio.tokens.at);
                sitter_image_free(studio.image.at);
                sitter_dataset_free(studio.dataset.at);
                sitter_train_options_free(studio.train.at);
                sitter_sample_options_free(studio.sample.at);
                sitter_run_free(run.at());
            }
            assert!(!job.is_finished(), "{verb:?}: freed too late to test anything");
            job.join().unwrap().unwrap();
        });
        engine.leak();
        subject.leak();
        run.handle.leak();
        let Studio { model, tokens, image, dataset, train, sample, .. } = studio;
        model.leak();
        tokens.leak();
        image.leak();
        dataset.leak();
        train.leak();
        sample.leak();
    }
}

#[test]
fn options_and_datasets_may_change_while_a_job_runs_without_effect_on_it() {
    let studio = Studio::fake("steps=4,step_ms=10");
    let run = Run::new(|_| {
        // SAFETY: a living handle; no other thread uses it.
        check(|err| unsafe { sitter_train_options_set_seed(studio.train.at, 99, err) }).unwrap();
        SITTER_CONTINUE
    });
    studio.train(run.at()).unwrap();
}

/// Whether two jobs of an engine were under way at the same time.
fn overlap(max_jobs: u32) -> (bool, bool) {
    let engine = engine(1, max_jobs);
    let studio = Studio::on(engine.at, "fake:steps=4,step_ms=60", 16, 2);
    let job = |verb: Verb| {
        let (mut waited, mut began) = (false, None);
        let run = Run::new(|event| {
            waited |= event.stage == SITTER_STAGE_WAITING;
            if event.done > 0 {
                began.get_or_insert_with(Instant::now);
            }
            SITTER_CONTINUE
        });
        studio.perform(verb, run.at()).unwrap();
        drop(run);
        (began.unwrap(), Instant::now(), waited)
    };
    std::thread::scope(|scope| {
        let a = scope.spawn(|| job(Verb::Score));
        let b = scope.spawn(|| job(Verb::Encode));
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        (a.0 < b.1 && b.0 < a.1, a.2 || b.2)
    })
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn as_many_jobs_run_at_once_as_the_engine_allows() {
    assert_eq!(overlap(1), (false, true));
    assert_eq!(overlap(2), (true, false));
}

#[test]
fn models_and_subjects_serve_many_threads_at_once() {
    let engine = engine(1, 4);
    let studio = Studio::on(engine.at, "fake:steps=3,step_ms=1", 16, 2);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..5 {
                    studio.still_works();
                    model_info(&studio.model);
                    // SAFETY: a living handle.
                    unsafe { sitter_model_free(sitter_model_ref(studio.model.at)) };
                }
            });
        }
    });
}

#[test]
fn a_callback_that_starts_work_is_refused_and_its_job_goes_on() {
    let studio = Studio::fake("steps=3");
    for verb in Verb::ALL {
        let calls = Cell::new(0);
        let run = Run::new(|_| {
            calls.set(calls.get() + 1);
            for inner in Verb::ALL {
                let message = fails(studio.perform(inner, null_mut()), SITTER_E_REENTRANT);
                assert!(message.contains("callback"), "{message}");
            }
            // What is allowed inside.
            model_info(&studio.model);
            codes(&studio.tokens);
            drop(pattern(4, 4));
            // SAFETY: a living handle.
            unsafe { sitter_model_free(sitter_model_ref(studio.model.at)) };
            SITTER_CONTINUE
        });
        studio.perform(verb, run.at()).unwrap();
        drop(run);
        assert!(calls.get() >= 3);
    }
    // Another thread is not inside the callback.
    let other = Studio::fake("steps=1");
    let run = Run::new(|_| {
        std::thread::scope(|scope| scope.spawn(|| other.still_works()).join().unwrap());
        SITTER_CONTINUE
    });
    studio.perform(Verb::Encode, run.at()).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs another process")]
fn in_a_forked_child_every_object_of_the_parent_says_so() {
    let studio = Studio::fake("steps=1");
    let run = Run::silent();
    // SAFETY: the child only calls this library and leaves without running anything of the parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = |result: Result<()>| result.err().is_some_and(|f| f.status == SITTER_E_FORKED);
        let mut size = 0;
        // SAFETY: living handles.
        let right = unsafe {
            refused(check(|err| sitter_model_info_json(studio.model.at, null_mut(), 0, &mut size, err)))
                && refused(check(|err| sitter_tokens_copy(studio.tokens.at, null_mut(), 0, &mut size, err)))
                && refused(studio.perform(Verb::Encode, null_mut()))
                && refused(studio.perform(Verb::Open, run.at()))
                && sitter_model_ref(studio.model.at).is_null()
                && {
                    sitter_run_cancel(run.at());
                    sitter_model_free(studio.model.at);
                    sitter_run_free(run.at());
                    true
                }
        };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if right { 0 } else { 1 }) };
    }
    let mut code = 0;
    // SAFETY: a child of ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut code, 0) }, child);
    assert_eq!(code, 0, "the child was not told that it was forked");
    studio.still_works();
}

/// CPU time so far of each thread of this process, by its name, in clock ticks.
fn thread_times() -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default().trim().to_owned();
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        // Behind the name, which may contain anything, user and system time are the fields 11 and 12.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
        *times.entry(name).or_default() += fields.iter().sum::<u64>();
    }
    times
}

#[test]
#[ignore = "run in a process of its own by the test below"]
fn child_computes_on_engines_of_one_and_of_three_threads() {
    for threads in [1usize, 3] {
        let engine = engine(threads as u32, 1);
        let studio = Studio::on(engine.at, "embedded:", 128, 16);
        let before = thread_times();
        let begun = Instant::now();
        // As long as it takes to count something, however busy the machine is.
        let counted = || thread_times().values().sum::<u64>().saturating_sub(before.values().sum());
        while begun.elapsed() < Duration::from_millis(1200) || counted() < 60 {
            studio.perform(Verb::Score, null_mut()).unwrap();
            studio.perform(Verb::Encode, null_mut()).unwrap();
        }
        let now = thread_times();
        let spent: BTreeMap<&str, u64> =
            now.iter().map(|(n, t)| (n.as_str(), t - before.get(n).unwrap_or(&0))).collect();
        let ours: Vec<u64> = (0..threads).map(|i| spent[format!("sitter-{i}").as_str()]).collect();
        assert_eq!(now.keys().filter(|n| n.starts_with("sitter-")).count(), threads, "{now:?}");
        let own = ours.iter().sum::<u64>();
        let all = spent.values().sum::<u64>();
        assert!(own > 20, "little work on the engine's threads: {spent:?}");
        assert!((all - own) * 50 <= all, "work elsewhere: {spent:?}");
        assert!(!now.keys().any(|n| n.starts_with("candle")), "candle has threads: {now:?}");
        let working = ours.iter().filter(|&&t| t * 10 > own).count();
        // candle splits its products among as many threads as the machine has cores.
        let expected = threads.min(std::thread::available_parallelism().unwrap().get());
        assert!(working >= expected, "{spent:?}");
        drop((studio, engine));
        // A pool ends in its own time.
        let begun = Instant::now();
        while thread_times().keys().any(|n| n.starts_with("sitter-")) {
            assert!(begun.elapsed() < Duration::from_secs(5), "the threads of a freed engine stay");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs another process")]
fn the_work_runs_on_the_engines_threads_and_no_others_and_they_end_with_it() {
    let _alone = alone();
    in_own_process("threads::child_computes_on_engines_of_one_and_of_three_threads");
}

#[test]
fn an_engine_outlives_its_last_handle_while_a_model_needs_it() {
    let engine = engine(1, 1);
    let studio = Studio::on(engine.at, "fake:steps=1", 16, 2);
    drop(engine);
    studio.still_works();
    // SAFETY: NULL is allowed.
    unsafe {
        assert!(sitter_engine_ref(null()).is_null());
        sitter_engine_free(null_mut());
    }
}
