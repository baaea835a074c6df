//! Infinity (arXiv 2412.04431): pictures as bits on grids from one cell to many, all bits of a grid predicted at once from the
//! grids before it and a text that a T5 has read.
//!
//! | file | what it is for |
//! |---|---|
//! | `schedule` | the grids of each size of picture, and where their cells are |
//! | `bsq` | latents to bits over the grids, and back |
//! | `vae` | pictures to latents, and back |
//! | `text`, `t5` | prompts to tokens, tokens to features |
//! | `config`, `condition`, `layer`, `linear`, `transformer` | features and grids to logits of bits; forward and backward |
//! | `loss`, `pass` | what logits are worth; the way there and back, block by block |
//! | `drawing`, `teacher` | logits to pictures, and to what a student learns from |
//! | `files` | where the parts of a model are |
//! | `ops` | building blocks of these layers |

pub mod bsq;
pub mod condition;
pub mod config;
pub mod drawing;
pub mod files;
pub mod layer;
pub mod linear;
pub mod loss;
pub mod ops;
pub mod pass;
pub mod schedule;
pub mod t5;
pub mod teacher;
pub mod text;
pub mod transformer;
pub mod vae;
