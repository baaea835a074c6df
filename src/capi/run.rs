//! One long call in progress, as the host sees it.

use super::boundary::guard;
use super::buffer::Out;
use super::engine::lock;
use super::error::sitter_error;
use super::failure::Failure;
use super::handle::{self, Noun};
use super::nouns::{sitter_tokens, Grid};
use super::status::*;
use crate::canvas::Canvas;
use crate::run::{Control, Event, Stage};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Waiting for another job of the engine to end; done and total are 0.
pub const SITTER_STAGE_WAITING: i32 = 1;
/// Reading a model's files: layers of the transformer.
pub const SITTER_STAGE_OPEN: i32 = 2;
/// Turning reference pictures into tokens: pictures with their varied copies.
pub const SITTER_STAGE_ENCODE: i32 = 3;
/// Drawing pictures of the class for prior preservation: pictures.
pub const SITTER_STAGE_PRIOR: i32 = 4;
/// Training stage 1, the identifier's vectors: steps. The value is the loss.
pub const SITTER_STAGE_EMBEDDING: i32 = 5;
/// Training stage 2, transformer weights: steps. The value is the loss.
pub const SITTER_STAGE_LAYERS: i32 = 6;
/// Drawing tokens: tokens of each picture.
pub const SITTER_STAGE_SAMPLE: i32 = 7;
/// Scoring pictures: pictures.
pub const SITTER_STAGE_SCORE: i32 = 8;
/// Turning tokens into a picture: pictures.
pub const SITTER_STAGE_DECODE: i32 = 9;

/// The one value of an event function that lets the call go on.
pub const SITTER_CONTINUE: i32 = 1;

/// One report of a run: `done` of `total` units of `stage` are finished. The only struct of this header with a visible
/// layout; later versions may append fields, so do not read past `struct_size`. Valid during the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sitter_event {
    /// Bytes of this struct in the library that fills it in.
    pub struct_size: u32,
    /// SITTER_STAGE_...; says what `done` and `total` count. Treat unknown values as a stage without a name.
    pub stage: i32,
    /// Never falls within a stage; equals `total` in a stage's last event.
    pub done: u64,
    /// 0 if it is not known.
    pub total: u64,
    /// Milliseconds since the call began.
    pub elapsed_ms: u64,
    /// Loss in nats per token in the training stages, else NaN.
    pub value: f64,
    /// Which of `item_count` things the stage is at, from 0; 0 of 1 where there is one.
    pub item: u32,
    pub item_count: u32,
    /// What went wrong so far without ending the call, such as a checkpoint that could not be written; the words are in
    /// the log. Since 1.1.
    pub warnings: u64,
}

/// Gets events on the thread that made the call: after each step, and at least every 100 milliseconds. Return
/// SITTER_CONTINUE to go on; any other value cancels the call, and no more events come. It must return: no exception, no
/// longjmp. Inside it only `sitter_run_*`, getters, `*_ref` and `*_free` may be called; what would start work gives
/// SITTER_E_REENTRANT.
pub type sitter_event_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const sitter_event) -> i32>;

/// Callback and controls of one long call. Single use. Builder handle, but cancel, finish early, snapshot and free may come
/// from any thread.
pub struct sitter_run {
    _opaque: [u8; 0],
}

impl Noun for sitter_run {
    const NAME: &'static str = "sitter_run";
    type Value = Arc<RunState>;
}

#[derive(Clone, Copy)]
pub struct Callback {
    pub call: unsafe extern "C" fn(*mut c_void, *const sitter_event) -> i32,
    pub user_data: *mut c_void,
}

// SAFETY: only carried between threads; it is called on the thread that made the blocking call alone.
unsafe impl Send for Callback {}

pub struct RunState {
    pub control: Control,
    pub canvas: Canvas,
    used: AtomicBool,
    pub callback: Mutex<Option<Callback>>,
    latest: Mutex<sitter_event>,
}

impl Default for RunState {
    fn default() -> Self {
        RunState {
            control: Control::default(),
            canvas: Canvas::default(),
            used: AtomicBool::new(false),
            callback: Mutex::new(None),
            latest: Mutex::new(sitter_event {
                struct_size: size_of::<sitter_event>() as u32,
                stage: 0,
                done: 0,
                total: 0,
                elapsed_ms: 0,
                value: f64::NAN,
                item: 0,
                item_count: 1,
                warnings: 0,
            }),
        }
    }
}

impl RunState {
    /// Claims the run for a call.
    pub fn begin(&self) -> Result<(), Failure> {
        if self.used.swap(true, Ordering::Relaxed) {
            let message = "the run has served a call already; make a new one for each call";
            return Err(Failure::new(SITTER_E_INVALID_STATE, message));
        }
        Ok(())
    }

    pub fn latest(&self) -> sitter_event {
        *lock(&self.latest)
    }

    /// Notes a step of the work.
    pub fn note(&self, event: &Event) {
        let mut latest = lock(&self.latest);
        latest.stage = stage_number(event.stage);
        (latest.done, latest.total) = (event.done, event.total);
        (latest.item, latest.item_count) = (event.item, event.item_count);
        latest.warnings = event.warnings;
        latest.value = event.loss.map_or(f64::NAN, f64::from);
    }

    pub fn note_stage(&self, stage: i32) {
        lock(&self.latest).stage = stage;
    }

    pub fn note_time(&self, started: Instant) {
        lock(&self.latest).elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    }
}

pub fn stage_number(stage: Stage) -> i32 {
    match stage {
        Stage::Open => SITTER_STAGE_OPEN,
        Stage::Encode => SITTER_STAGE_ENCODE,
        Stage::Prior => SITTER_STAGE_PRIOR,
        Stage::Embedding => SITTER_STAGE_EMBEDDING,
        Stage::Layers => SITTER_STAGE_LAYERS,
        Stage::Sample => SITTER_STAGE_SAMPLE,
        Stage::Score => SITTER_STAGE_SCORE,
        Stage::Decode => SITTER_STAGE_DECODE,
    }
}

/// A run for one long call. The caller owns it; free it with `sitter_run_free`. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_run_new(out: *mut *mut sitter_run, err: *mut *mut sitter_error) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        out.set(handle::new(Arc::<RunState>::default()));
        Ok(())
    })
}

/// Sets the event function, NULL for none. `user_data` is handed to it as it is, and not used after the call that the run
/// serves. Before that call only: SITTER_E_INVALID_STATE. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_run_set_callback(
    run: *mut sitter_run,
    callback: sitter_event_fn,
    user_data: *mut c_void,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let run = handle::get(run)?;
        if run.used.load(Ordering::Relaxed) {
            return Err(Failure::new(SITTER_E_INVALID_STATE, "the run has begun; set its callback before the call"));
        }
        *lock(&run.callback) = callback.map(|call| Callback { call, user_data });
        Ok(())
    })
}

/// Stops the call: it returns SITTER_E_CANCELLED soon, and its outputs stay NULL. Never taken back: before the call begins,
/// it makes it return at once. NULL does nothing. Any thread, signal handlers too. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_run_cancel(run: *const sitter_run) {
    if let Some(run) = handle::peek(run) {
        run.control.cancel();
    }
}

/// Ends a training at its next step with what was learned so far, status SITTER_OK; calls that have nothing to keep half
/// done ignore it. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_run_finish_early(run: *const sitter_run) {
    if let Some(run) = handle::peek(run) {
        run.control.finish_early();
    }
}

/// Copies the newest event, for hosts that poll; stage 0 before the first. `event` has `event_size` bytes, of which as many
/// are written as this library knows; the rest is set to 0. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_run_snapshot(
    run: *const sitter_run,
    event: *mut sitter_event,
    event_size: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let run = handle::get(run)?;
        if event.is_null() {
            return Err(Failure::null("event"));
        }
        let latest = run.latest();
        let ours = size_of::<sitter_event>();
        // SAFETY: the host promises `event_size` writable bytes; the event is plain bytes without padding.
        unsafe {
            event.cast::<u8>().write_bytes(0, event_size);
            let from = (&raw const latest).cast::<u8>();
            std::ptr::copy_nonoverlapping(from, event.cast::<u8>(), ours.min(event_size));
        }
        Ok(())
    })
}

/// The tokens drawn so far of picture `picture`, from 0, of those that the call is drawing or drew last: its complete rows,
/// or the scales so far of models that draw scale after scale, which can be decoded as they are, the latter to a smaller picture.
/// Training draws too, if its options ask for it. SITTER_E_INVALID_STATE while neither row nor scale is complete, or if there is no
/// such picture. The caller owns the result; free it with `sitter_tokens_free`. Any thread, also inside the event function, which cannot decode: another thread can, with an engine that takes two jobs. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_run_tokens(
    run: *const sitter_run,
    picture: u32,
    out: *mut *mut sitter_tokens,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let Some(tokens) = handle::get(run)?.canvas.rows(picture as usize) else {
            let message = format!("no row of picture {picture} has been drawn");
            return Err(Failure::new(SITTER_E_INVALID_STATE, message));
        };
        out.set(handle::new(Arc::new(Grid { tokens, provenance: None })));
        Ok(())
    })
}

/// Frees a run. During the call that it serves this is harmless: the call goes on. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_run_free(run: *mut sitter_run) {
    handle::free(run);
}
