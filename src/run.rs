//! A run is one long call in progress: it reports events and can be stopped.
//!
//! Each long call takes a `&mut Run`. Its [`Control`] can be cloned and moved to another thread before the call.

use crate::{Error, Result};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a run is doing right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Reading a model's files.
    Open,
    /// Turning reference pictures into tokens.
    Encode,
    /// Drawing pictures of the class for prior preservation.
    Prior,
    /// Training stage 1: the identifier's vectors.
    Embedding,
    /// Training stage 2: transformer weights.
    Layers,
    /// Drawing tokens.
    Sample,
    /// Scoring pictures under a prompt.
    Score,
    /// Turning tokens into a picture.
    Decode,
}

impl Stage {
    /// The stage's name as it stands in events, loss records and files.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Open => "open",
            Stage::Encode => "encode",
            Stage::Prior => "prior",
            Stage::Embedding => "embedding",
            Stage::Layers => "layers",
            Stage::Sample => "sample",
            Stage::Score => "score",
            Stage::Decode => "decode",
        }
    }
}

/// One report: `done` of `total` units of `stage` are finished.
#[derive(Clone, Debug)]
pub struct Event {
    pub stage: Stage,
    pub done: u64,
    pub total: u64,
    /// Since the run began.
    pub elapsed: Duration,
    /// The loss of the step just done, in nats per labelled token; training stages only.
    pub loss: Option<f32>,
}

/// What the event handler wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// Stop and lose the result: the call returns [`Error::Cancelled`].
    Cancel,
    /// Stop now and keep what there is so far.
    Finish,
}

/// Stops a run from any thread. Requests are sticky: a run that was cancelled stays cancelled.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<AtomicU8>);

const FINISH: u8 = 1;
const CANCEL: u8 = 2;

impl Control {
    /// Stops the run at the next step; the call returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.0.fetch_max(CANCEL, Ordering::Relaxed);
    }

    /// Errors if the run was cancelled.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == CANCEL
    }

    /// Ends the run at the next step with what it has so far.
    pub fn finish_early(&self) {
        self.0.fetch_max(FINISH, Ordering::Relaxed);
    }
}

type OnEvent<'a> = Box<dyn FnMut(&Event) -> Flow + 'a>;

/// One long call in progress.
pub struct Run<'a> {
    control: Control,
    started: Instant,
    on_event: Option<OnEvent<'a>>,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Run { control: Control::default(), started: Instant::now(), on_event: None }
    }
}

impl<'a> Run<'a> {
    /// A run that reports nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A run that calls `on_event` on the calling thread after each step.
    pub fn with_events(on_event: impl FnMut(&Event) -> Flow + 'a) -> Self {
        Run { on_event: Some(Box::new(on_event)), ..Self::default() }
    }

    /// The same run, stopped by a control that exists already.
    pub fn controlled_by(self, control: Control) -> Self {
        Run { control, ..self }
    }

    /// The handle that stops this run from elsewhere.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// To be called between two pieces of work that are too small to report: errors if the run was cancelled.
    pub fn check(&self) -> Result<()> {
        self.control.check()
    }

    /// Reports a finished step. `Ok(true)` means go on, `Ok(false)` finish early.
    pub fn report(&mut self, stage: Stage, done: u64, total: u64, loss: Option<f32>) -> Result<bool> {
        if let Some(on_event) = &mut self.on_event {
            let event = Event { stage, done, total, elapsed: self.started.elapsed(), loss };
            match on_event(&event) {
                Flow::Continue => {}
                Flow::Cancel => self.control.cancel(),
                Flow::Finish => self.control.finish_early(),
            }
        }
        self.check()?;
        Ok(self.control.0.load(Ordering::Relaxed) != FINISH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_wins_over_finish_early_and_stays() {
        let mut run = Run::new();
        assert!(run.report(Stage::Sample, 1, 2, None).unwrap());
        run.control().finish_early();
        assert!(!run.report(Stage::Sample, 1, 2, None).unwrap());
        run.control().cancel();
        run.control().finish_early();
        assert!(matches!(run.report(Stage::Sample, 1, 2, None), Err(Error::Cancelled)));
        assert!(matches!(run.check(), Err(Error::Cancelled)));
    }

    #[test]
    fn the_event_handler_can_stop_the_run() {
        let mut run = Run::with_events(|e| if e.done == 2 { Flow::Cancel } else { Flow::Continue });
        assert!(run.report(Stage::Layers, 1, 3, Some(1.0)).unwrap());
        assert!(matches!(run.report(Stage::Layers, 2, 3, Some(1.0)), Err(Error::Cancelled)));
    }
}
