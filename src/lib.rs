//! Sitter teaches a pretrained autoregressive text-to-image model one subject from a few pictures, and draws that
//! subject in new scenes.
//!
//! Four verbs: open a model, train a subject, sample tokens, decode the image.
//!
//! | room | what it is for |
//! |---|---|
//! | [`error`] | one typed error |
//! | [`device`] | which device and number format |
//! | [`run`] | events, cancel, finish early |
//! | [`random`] | randomness without state |
//! | [`picture`] | pixels in and out |
//! | [`model`] | what a pretrained model is: checkpoint, text, image tokenizer, transformer, layout |
//! | [`personalize`] | how a subject is taught |
//! | [`sample`] | how tokens are drawn |

pub mod device;
pub mod error;
pub mod model;
pub mod personalize;
pub mod picture;
pub mod random;
pub mod run;
pub mod sample;

pub use error::{Error, Result};
