//! What the fuzz targets do. The same functions run over the committed corpus in `cargo test --test capi`.

pub mod api;
pub mod parsers;
