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

mod buffers;
mod cancel;
mod events;
mod handles;
mod host;
mod hostile;
mod latency;
mod log;
mod options;
mod panics;
mod parsers;
mod threads;
mod verbs;
