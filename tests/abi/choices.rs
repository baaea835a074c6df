//! The names that options have a choice of, for the languages whose types can tell.

use crate::setters::Field;
use sitter::model::family::Teacher;
use sitter::model::TextEncoder;
use sitter::personalize::{Adaptation, Method, OptimizerDevice, Recompute, StateFormat};
use sitter::sample::Decoding;
use sitter::weight::Format;

/// Which names an option can have; None where it is not a matter of a few names.
pub fn choices(field: &Field) -> Option<Vec<&'static str>> {
    Some(match (field.noun, field.name.as_str(), field.ty.as_str()) {
        ("model", "dtype", _) => dtypes(),
        (_, _, "Teacher") => Teacher::ALL.map(Teacher::name).into(),
        (_, _, "Adaptation") => Adaptation::ALL.map(Adaptation::name).into(),
        (_, _, "StateFormat") => StateFormat::ALL.map(StateFormat::name).into(),
        (_, _, "OptimizerDevice") => OptimizerDevice::ALL.map(OptimizerDevice::name).into(),
        (_, _, "Recompute") => Recompute::ALL.map(Recompute::name).into(),
        (_, _, "TextEncoder") => TextEncoder::ALL.map(TextEncoder::name).into(),
        (_, _, "Decoding") => Decoding::ALL.map(Decoding::name).into(),
        _ => return None,
    })
}

fn dtypes() -> Vec<&'static str> {
    let formats = Format::ALL.into_iter().map(Format::name);
    std::iter::once("auto").chain(formats).collect()
}

pub fn methods() -> Vec<&'static str> {
    Method::ALL.map(Method::name).into()
}
