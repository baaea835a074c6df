//! The C boundary, called from Rust as a host would call it: every exported function through its C signature.
//!
//! | module | what it asks |
//! |---|---|
//! | `host` | helpers: statuses as `Result`, handles that free themselves, one call per verb |
//! | `events`, `cancel`, `threads`, `panics` | what long calls promise, on the fake model |
//! | `handles`, `buffers`, `options`, `log` | objects, memory, settings, log lines |
//! | `verbs`, `latency` | the same promises of the embedded model |
//! | `hostile` | damaged files, through the C functions |
//! | `parsers` | the fuzz targets over their committed corpus |
//!
//! Under Miri, `MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-ignore-leaks" cargo +nightly miri test --test capi`,
//! what needs files, real models, other processes or a clock is left out. Leaks are ignored because the threads of a freed
//! engine end in their own time; the C tests look for them.

// Forks, limits, pipes and /proc.
#![cfg(target_os = "linux")]

mod buffers;
mod cancel;
mod events;
mod handles;
mod host;
#[cfg(not(miri))]
mod hostile;
#[cfg(not(miri))]
mod latency;
#[cfg(not(miri))]
mod log;
mod options;
mod panics;
#[cfg(not(miri))]
mod parsers;
mod threads;
#[cfg(not(miri))]
mod verbs;
