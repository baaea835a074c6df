//! Log lines: silent unless asked for, to a function or kept, and the user data given back exactly once.

use crate::host::*;
use sitter::capi::engine::*;
use sitter::capi::nouns::sitter_train_options;
use sitter::capi::run::*;
use sitter::capi::setters::*;
use sitter::capi::status::*;
use std::ffi::{c_char, c_void, CStr};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

#[derive(Default)]
struct Listener {
    lines: Mutex<Vec<(i32, String)>>,
    dropped: AtomicUsize,
}

unsafe extern "C" fn on_line(user_data: *mut c_void, level: i32, line: *const c_char) {
    // SAFETY: the listener outlives the engine, and lines are terminated.
    unsafe {
        let line = CStr::from_ptr(line).to_str().expect("lines are UTF-8").to_owned();
        (*user_data.cast::<Listener>()).lines.lock().unwrap().push((level, line));
    }
}

unsafe extern "C" fn on_drop(user_data: *mut c_void) {
    // SAFETY: as above.
    unsafe { (*user_data.cast::<Listener>()).dropped.fetch_add(1, Ordering::SeqCst) };
}

impl Listener {
    fn data(&self) -> *mut c_void {
        (self as *const Listener).cast_mut().cast()
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

fn options() -> Handle<sitter_engine_options> {
    made(sitter_engine_options_free, |out, err| unsafe { sitter_engine_options_new(out, err) }).unwrap()
}

fn set_log(options: *mut sitter_engine_options, log: sitter_log_fn, listener: &Listener) -> Result<()> {
    check(|err| unsafe { sitter_engine_options_set_log(options, log, listener.data(), Some(on_drop), err) })
}

fn engine_of(options: &Handle<sitter_engine_options>) -> Handle<sitter_engine> {
    made(sitter_engine_free, |out, err| unsafe { sitter_engine_new(options.at, out, err) }).unwrap()
}

fn level(options: &Handle<sitter_engine_options>, level: i32) {
    check(|err| unsafe { sitter_engine_options_set_log_level(options.at, level, err) }).unwrap();
}

fn drain(engine: &Handle<sitter_engine>) -> String {
    let bytes: Vec<c_char> =
        two_calls(|b, n, needed, err| unsafe { sitter_engine_drain_log(engine.at, b, n, needed, err) });
    String::from_utf8(bytes.into_iter().map(|b| b as u8).filter(|&b| b != 0).collect()).unwrap()
}

/// A training that is interrupted and taken up again, which the library notes in the log.
fn go_on(engine: &Handle<sitter_engine>) {
    let studio = Studio::on(engine.at, golden("plain").to_str().unwrap(), 8, 2);
    let folder = tempfile::tempdir().unwrap();
    let path = c(folder.path().join("training").to_str().unwrap());
    let at: *mut sitter_train_options = studio.train.at;
    // SAFETY: living handles.
    unsafe {
        check(|err| sitter_train_options_set_image_size(at, 8, err)).unwrap();
        check(|err| sitter_train_options_set_embedding_steps(at, 2, err)).unwrap();
        check(|err| sitter_train_options_set_layer_steps(at, 0, err)).unwrap();
        check(|err| sitter_train_options_set_checkpoint_every(at, 1, err)).unwrap();
        check(|err| sitter_train_options_set_checkpoint_path(at, path.as_ptr(), err)).unwrap();
    }
    let run = Run::new(|event| if event.stage == SITTER_STAGE_EMBEDDING { 0 } else { SITTER_CONTINUE });
    fails(studio.train(run.at()), SITTER_E_CANCELLED);
    drop(run);
    studio.train(null_mut()).unwrap();
}

#[test]
fn lines_are_kept_until_they_are_drained() {
    let _busy = busy();
    let options = options();
    level(&options, SITTER_LOG_INFO);
    let engine = engine_of(&options);
    assert_eq!(drain(&engine), "");
    go_on(&engine);
    let lines = drain(&engine);
    assert!(lines.contains("going on from") && lines.ends_with('\n'), "{lines:?}");
    assert_eq!(drain(&engine), "", "drained lines came again");
}

#[test]
fn the_log_function_gets_whole_lines_of_the_wanted_level() {
    let _busy = busy();
    for (wanted, expected) in [(SITTER_LOG_INFO, true), (SITTER_LOG_WARN, false), (SITTER_LOG_OFF, false)] {
        let listener = Listener::default();
        let options = options();
        level(&options, wanted);
        set_log(options.at, Some(on_line), &listener).unwrap();
        let engine = engine_of(&options);
        drop(options);
        go_on(&engine);
        assert_eq!(drain(&engine), "", "what goes to the function is not kept");
        assert_eq!(listener.dropped(), 0);
        drop(engine);
        let lines = listener.lines.lock().unwrap();
        let found = lines.iter().any(|(level, line)| *level == SITTER_LOG_INFO && line.contains("going on from"));
        assert_eq!(found, expected, "level {wanted}: {lines:?}");
        assert!(lines.iter().all(|(level, line)| *level <= wanted && !line.ends_with('\n')), "{lines:?}");
    }
}

#[test]
fn the_drop_function_is_called_exactly_once_whatever_happens() {
    // Replaced.
    let [first, second, third] = [(); 3].map(|()| Listener::default());
    let options = options();
    set_log(options.at, Some(on_line), &first).unwrap();
    set_log(options.at, Some(on_line), &second).unwrap();
    assert_eq!((first.dropped(), second.dropped()), (1, 0));
    // Taken away; what came with no function is of no use at all.
    set_log(options.at, None, &third).unwrap();
    assert_eq!((first.dropped(), second.dropped(), third.dropped()), (1, 1, 1));

    // Refused.
    let refused = Listener::default();
    fails(set_log(null_mut(), Some(on_line), &refused), SITTER_E_NULL_POINTER);
    assert_eq!(refused.dropped(), 1);
    let other = pattern(1, 1);
    fails(set_log(other.at.cast(), Some(on_line), &refused), SITTER_E_WRONG_HANDLE);
    fails(set_log(other.at.cast(), None, &refused), SITTER_E_WRONG_HANDLE);
    assert_eq!(refused.dropped(), 3);

    // Options that no engine was made of.
    let alone = Listener::default();
    set_log(options.at, Some(on_line), &alone).unwrap();
    drop(options);
    assert_eq!(alone.dropped(), 1);
}

#[test]
fn the_drop_function_waits_for_the_last_user() {
    let listener = Listener::default();
    let options = options();
    set_log(options.at, Some(on_line), &listener).unwrap();
    let (a, b) = (engine_of(&options), engine_of(&options));
    drop(options);
    drop(a);
    assert_eq!(listener.dropped(), 0);
    let studio = Studio::on(b.at, "fake:steps=4,step_ms=10", 16, 2);
    // SAFETY: a living handle.
    unsafe { sitter_engine_free(sitter_engine_ref(b.at)) };
    drop(b);
    assert_eq!(listener.dropped(), 0);
    studio.encode(null_mut()).unwrap();
    assert_eq!(listener.dropped(), 0);
    drop(studio);
    // The last of the engine may go on one of its own threads.
    for _ in 0..500 {
        if listener.dropped() > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(listener.dropped(), 1);
}
