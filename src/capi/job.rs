//! A long call: the work on the engine's threads, events on the thread that called.

use super::boundary::{calling_out, catch, refuse_reentry};
use super::engine::Engine;
use super::failure::Failure;
use super::run::{stage_number, Callback, RunState, SITTER_CONTINUE, SITTER_STAGE_WAITING};
use super::status::SITTER_E_INTERNAL;
use crate::run::{Flow, Run, Stage};
use crate::{Error, Result};
use std::cell::Cell;
use std::sync::mpsc::{channel, sync_channel, RecvTimeoutError, SyncSender};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest silence between two calls of the event function.
const TICK: Duration = Duration::from_millis(50);

enum Message<T> {
    /// A step is done; the work waits for the host's answer.
    Step(SyncSender<Flow>),
    Done(std::result::Result<T, Failure>),
}

/// Does `work`, which begins with stage `first`, as a job of the engine and waits for it.
pub fn perform<T: Send + 'static>(
    engine: &Arc<Engine>,
    run: Option<Arc<RunState>>,
    first: Stage,
    work: impl FnOnce(&mut Run) -> Result<T> + Send + 'static,
) -> std::result::Result<T, Failure> {
    refuse_reentry()?;
    let state = match run {
        Some(run) => {
            run.begin()?;
            run
        }
        None => Arc::default(),
    };
    let callback = *super::engine::lock(&state.callback);
    let host = Host { state: state.clone(), callback, started: Instant::now(), refused: Cell::new(false) };
    state.control.check()?;
    state.note_stage(SITTER_STAGE_WAITING);
    let slot = engine.admit(TICK, || host.call())?;
    state.note_stage(stage_number(first));

    let (send, receive) = channel::<Message<T>>();
    let engine = engine.clone();
    let steps = callback.is_some().then(|| send.clone());
    slot.spawn(move || {
        let log = engine.log_here();
        let result = catch(|| {
            let (control, canvas) = (state.control.clone(), state.canvas.clone());
            let mut run = Run::with_events(|event| {
                state.note(event);
                let Some(steps) = &steps else { return Flow::Continue };
                let (answer, answered) = sync_channel(1);
                match steps.send(Message::Step(answer)) {
                    Ok(()) => answered.recv().unwrap_or(Flow::Cancel),
                    Err(_) => Flow::Cancel,
                }
            })
            .controlled_by(control)
            .drawing_on(canvas);
            Ok(work(&mut run)?)
        });
        drop(log);
        // Whoever waits may free the engine next, and then it is to be gone.
        drop(engine);
        // The receiver is gone only if the waiting thread is, and then there is nobody to tell.
        let _ = send.send(Message::Done(result));
    });
    loop {
        match receive.recv_timeout(TICK) {
            Ok(Message::Step(answer)) => {
                let flow = if host.call().is_ok() { Flow::Continue } else { Flow::Cancel };
                let _ = answer.send(flow);
            }
            Ok(Message::Done(result)) => {
                host.state.note_time(host.started);
                // A host that said stop gets no result, even if the work was done by the time it heard of it.
                let value = result?;
                host.state.control.check()?;
                return Ok(value);
            }
            // The work looks at the control by itself; what the host answered is in it.
            Err(RecvTimeoutError::Timeout) => drop(host.call()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(SITTER_E_INTERNAL, "the work ended without a result"))
            }
        }
    }
}

/// The host's side of a job, on the thread that called.
struct Host {
    state: Arc<RunState>,
    callback: Option<Callback>,
    started: Instant,
    /// It said stop, and is not asked again: what it threw to say so must not be lost to a second call.
    refused: Cell<bool>,
}

impl Host {
    /// Tells the newest event. Errors if the run is cancelled, or the host wants it to be.
    fn call(&self) -> std::result::Result<(), Failure> {
        self.state.note_time(self.started);
        if let Some(Callback { call, user_data }) = self.callback.filter(|_| !self.refused.get()) {
            let event = self.state.latest();
            // SAFETY: the host's function and user data; the event lives through the call; no lock is held.
            let answer = calling_out(|| unsafe { call(user_data, &event) });
            if answer != SITTER_CONTINUE {
                self.refused.set(true);
                self.state.control.cancel();
            }
        }
        match self.state.control.is_cancelled() {
            true => Err(Error::Cancelled.into()),
            false => Ok(()),
        }
    }
}
