//! The C boundary: `include/sitter.h`, one file per noun, nothing but translation.
//!
//! | file | what it is for |
//! |---|---|
//! | `boundary` | what every exported function passes through: no panic, no fork, no callback into itself |
//! | `handle` | opaque objects: kind tag, reference count, owning process |
//! | `status`, `error` | what went wrong, as a number and as text |
//! | `text`, `buffer` | strings and arrays, in and out |
//! | `engine` | threads, admission, log |
//! | `threads` | threads of calls without an engine |
//! | `memory` | free memory goes back to the system |
//! | `run`, `job` | long calls: events on the calling thread, cancel from any |
//! | `model`, `image`, `tokens`, `dataset`, `subject` | the nouns of the four verbs |
//! | `evaluator`, `evaluation`, `scores` | the nouns of measuring |
//! | `options`, `setters` | option objects; the setters are generated from the Rust options |
//! | `version` | what this library is |
//! | `backend`, `fake` | the verbs as the boundary sees them; a model for tests that only counts steps (debug builds) |
//!
//! The header is made from these files and committed: `SITTER_UPDATE=1 cargo test --test abi`.
//!
//! # Where this departs from the usual
//!
//! - Training has two stages with different meanings, so events name them `EMBEDDING` and `LAYERS` instead of one TRAINING.
//! - No status POISONED: models, subjects, tokens and images never change, and setters change a copy first, so a panic
//!   leaves nothing half done.
//! - Options are read back as one JSON object per kind of options, not by a getter per field.
//! - Published tensors are memory-mapped, and only while a model is opened; there is no switch for it. What this library wrote
//!   itself is read.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![allow(non_camel_case_types)]
// The comments are a C header's, where brackets are brackets.
#![allow(rustdoc::broken_intra_doc_links)]
// Every exported function takes raw pointers from a stranger; what it asks of them stands in the header's first page.
#![allow(clippy::missing_safety_doc)]

mod backend;
mod boundary;
mod buffer;
pub mod dataset;
pub mod engine;
pub mod error;
pub mod evaluation;
pub mod evaluator;
mod failure;
#[cfg(debug_assertions)]
mod fake;
mod handle;
pub mod image;
mod job;
mod memory;
pub mod model;
pub mod nouns;
pub mod options;
pub mod run;
pub mod scores;
pub mod setters;
pub mod status;
pub mod subject;
mod text;
mod threads;
pub mod tokens;
pub mod version;
