//! The Lumina-mGPT family: a Chameleon transformer over text and image tokens in one vocabulary.

pub mod config;
pub mod layer;
pub mod layout;
pub mod loss;
pub mod places;
pub mod transformer;
