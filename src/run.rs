//! A run is one long call in progress: it reports events and can be stopped.
//!
//! Each long call takes a `&mut Run`. Its [`Control`] can be cloned and moved to another thread before the call.

use crate::canvas::Canvas;
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
    /// Which of `item_count` things the stage is at, from 0; 0 of 1 where there is one.
    pub item: u32,
    pub item_count: u32,
    /// What went wrong so far without ending the call, see [`Run::warn`].
    pub warnings: u64,
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
#[derive(Clone, Debug)]
pub struct Control {
    asked: Arc<AtomicU8>,
    /// The least that counts as cancelled.
    enough: u8,
}

impl Default for Control {
    fn default() -> Self {
        Control { asked: Arc::default(), enough: CANCEL }
    }
}

const FINISH: u8 = 1;
const CANCEL: u8 = 2;

impl Control {
    /// Stops the run at the next step; the call returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.asked.fetch_max(CANCEL, Ordering::Relaxed);
    }

    /// Errors if the run was cancelled.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed) >= self.enough
    }

    /// Ends the run at the next step with what it has so far.
    pub fn finish_early(&self) {
        self.asked.fetch_max(FINISH, Ordering::Relaxed);
    }
}

type OnEvent<'a> = Box<dyn FnMut(&Event) -> Flow + 'a>;

/// One long call in progress.
pub struct Run<'a> {
    control: Control,
    canvas: Canvas,
    started: Instant,
    item: (u32, u32),
    warnings: u64,
    on_event: Option<OnEvent<'a>>,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Run {
            control: Control::default(),
            canvas: Canvas::default(),
            started: Instant::now(),
            item: (0, 1),
            warnings: 0,
            on_event: None,
        }
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

    /// The same run, drawing on a canvas that exists already.
    pub fn drawing_on(self, canvas: Canvas) -> Self {
        Run { canvas, ..self }
    }

    /// What this run has drawn so far, to be looked at from elsewhere.
    pub fn canvas(&self) -> &Canvas {
        &self.canvas
    }

    /// The handle that stops this run from elsewhere.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// To be called between two pieces of work that are too small to report: errors if the run was cancelled.
    pub fn check(&self) -> Result<()> {
        self.control.check()
    }

    /// From now on, what is reported is about thing `item` of `count`.
    pub fn at_item(&mut self, item: u32, count: u32) {
        self.item = (item.min(count.saturating_sub(1)), count.max(1));
    }

    /// Does a part of the work that is worth nothing half done: if the run is asked to finish early, the part is given up, and
    /// the result is None.
    pub fn unless_finished<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        self.control.enough = FINISH;
        let result = part(self);
        self.control.enough = CANCEL;
        match result {
            Err(Error::Cancelled) if !self.control.is_cancelled() => Ok(None),
            result => result.map(Some),
        }
    }

    /// Tells of something that went wrong, but does not end the call: the words go to the log, the next event counts it.
    pub fn warn(&mut self, message: &str) {
        log::warn!("{message}");
        self.warnings += 1;
    }

    /// Reports a finished step. `Ok(true)` means go on, `Ok(false)` finish early.
    pub fn report(&mut self, stage: Stage, done: u64, total: u64, loss: Option<f32>) -> Result<bool> {
        if let Some(on_event) = &mut self.on_event {
            let (item, item_count) = self.item;
            let (elapsed, warnings) = (self.started.elapsed(), self.warnings);
            let event = Event { stage, done, total, elapsed, loss, item, item_count, warnings };
            match on_event(&event) {
                Flow::Continue => {}
                Flow::Cancel => self.control.cancel(),
                Flow::Finish => self.control.finish_early(),
            }
        }
        self.check()?;
        Ok(self.control.asked.load(Ordering::Relaxed) != FINISH)
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
    fn a_part_that_is_worth_nothing_half_done_is_given_up_when_the_run_is_to_finish() {
        let mut run = Run::new();
        assert_eq!(run.unless_finished(|_| Ok(7)).unwrap(), Some(7));
        let (other, control) = (run.control(), run.control());
        let given_up = run.unless_finished(|run| {
            other.finish_early();
            run.control().check()?;
            Ok(7)
        });
        assert_eq!(given_up.unwrap(), None);
        assert!(control.check().is_ok() && !run.report(Stage::Layers, 1, 2, None).unwrap());
        let cancelled = run.unless_finished(|run| {
            control.cancel();
            run.check()
        });
        assert!(matches!(cancelled, Err(Error::Cancelled)));
    }

    #[test]
    fn events_tell_which_of_several_things_they_are_about() {
        let items = std::cell::RefCell::new(vec![]);
        let mut run = Run::with_events(|e| {
            items.borrow_mut().push((e.item, e.item_count));
            Flow::Continue
        });
        run.report(Stage::Sample, 1, 2, None).unwrap();
        run.at_item(1, 3);
        run.report(Stage::Sample, 1, 2, None).unwrap();
        drop(run);
        assert_eq!(items.into_inner(), [(0, 1), (1, 3)]);
    }

    #[test]
    fn the_event_handler_can_stop_the_run() {
        let mut run = Run::with_events(|e| if e.done == 2 { Flow::Cancel } else { Flow::Continue });
        assert!(run.report(Stage::Layers, 1, 3, Some(1.0)).unwrap());
        assert!(matches!(run.report(Stage::Layers, 2, 3, Some(1.0)), Err(Error::Cancelled)));
    }
}
