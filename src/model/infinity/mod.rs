//! Infinity (arXiv 2412.04431): pictures as bits on grids from one cell to many, all bits of a grid predicted at once from the
//! grids before it and a text that a T5 has read.
//!
//! | file | what it is for |
//! |---|---|
//! | `open`, `files`, `settings` | a folder as it is published, and what its tensors cannot tell |
//! | `family`, `lesson`, `footprint` | this family's answers to the library: pictures and prompts, passes, memory |
//! | `schedule` | the grids of each size of picture, and where their cells are |
//! | `bsq` | latents to bits over the grids, and back |
//! | `vae` | pictures to latents, and back |
//! | `text`, `t5`, `encoder` | prompts to tokens, tokens to features |
//! | `config`, `names`, `condition`, `layer`, `linear`, `transformer` | features and grids to logits of bits; forward and backward |
//! | `loss`, `pass` | what logits are worth; the way there and back, block by block |
//! | `drawing`, `teacher` | logits to pictures, and to what a student learns from |
//! | `ops` | building blocks of these layers |

pub mod bsq;
pub mod condition;
pub mod config;
pub mod drawing;
pub mod encoder;
mod family;
pub mod files;
mod footprint;
pub mod layer;
mod lesson;
pub mod linear;
pub mod loss;
pub mod names;
mod open;
pub mod ops;
pub mod pass;
pub mod schedule;
pub mod settings;
pub mod t5;
pub mod teacher;
pub mod text;
pub mod transformer;
pub mod vae;

pub use open::ENTRY;
