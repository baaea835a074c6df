//! Rust programs: the example. The lines of the README are compiled as documentation of the crate.

use super::c::assert_told;
use crate::{at, scratch};

#[allow(dead_code)]
#[path = "../../examples/rust/story.rs"]
mod story;

#[test]
fn the_whole_story_is_told_in_rust() {
    let folder = scratch("rust_story");
    assert!(std::fs::read_to_string(at("examples/rust/story.rs")).unwrap().lines().count() < 150);
    story::tell("embedded:", 2, &folder).unwrap();
    assert_told(&folder, 128);
}

#[test]
fn the_story_in_rust_says_what_is_wrong() {
    let error = story::tell("/no/such/model", 2, &scratch("rust_story_wrong")).unwrap_err().to_string();
    assert!(error.contains("/no/such/model") && error.contains("is not a model folder"), "{error}");
}
