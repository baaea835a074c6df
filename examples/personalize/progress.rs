//! A progress bar on standard error, or a line now and then where that is not a terminal.

use crate::interrupt;
use sitter::run::{Event, Flow, Run};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub struct Progress {
    terminal: bool,
    last: Option<(Instant, &'static str)>,
}

impl Progress {
    pub fn new() -> Self {
        Progress { terminal: std::io::stderr().is_terminal(), last: None }
    }

    /// A run whose events move this bar. Ctrl-C cancels it.
    pub fn run(&mut self) -> Run<'_> {
        self.stopped_by(Flow::Cancel)
    }

    /// As `run`, for a training: Ctrl-C ends it with what it has learned.
    pub fn finishing_run(&mut self) -> Run<'_> {
        self.stopped_by(Flow::Finish)
    }

    fn stopped_by(&mut self, stop: Flow) -> Run<'_> {
        Run::with_events(move |event| {
            self.show(event);
            interrupt::answer(stop)
        })
    }

    fn show(&mut self, event: &Event) {
        let stage = event.stage.name();
        let pause = Duration::from_millis(if self.terminal { 100 } else { 5000 });
        let finished = event.done == event.total;
        let due = self.last.is_none_or(|(at, of)| of != stage || at.elapsed() >= pause);
        if !(due || finished && self.terminal) {
            return;
        }
        if self.last.is_some_and(|(_, of)| of != stage) {
            self.end();
        }
        self.last = Some((Instant::now(), stage));
        let loss = event.loss.map_or(String::new(), |l| format!("  loss {l:.3}"));
        let seconds = event.elapsed.as_secs_f32();
        let mut err = std::io::stderr();
        // A bar that can't be written is no reason to stop.
        let _ = if self.terminal {
            let filled = (event.done * 30 / event.total.max(1)) as usize;
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30 - filled.min(30)));
            write!(err, "\r{stage:>9} [{bar}] {}/{}  {seconds:.0} s{loss}   ", event.done, event.total)
        } else {
            writeln!(err, "{stage:>9} {}/{}  {seconds:.0} s{loss}", event.done, event.total)
        };
        let _ = err.flush();
    }

    /// Ends the line.
    pub fn end(&mut self) {
        if self.terminal && self.last.take().is_some() {
            eprintln!();
        }
    }
}
