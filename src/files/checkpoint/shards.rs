//! Shards that come without an index: their names say whether all are there.

use crate::files::Files;
use crate::{Error, Result};
use std::collections::HashSet;

/// The complete set of shards by their numbered names.
pub fn shards_without_index(files: &Files, stem: &str) -> Result<Vec<String>> {
    let names = match files.list() {
        // There is no folder: say below what it would need.
        Err(Error::NotFound { path, .. }) => {
            return Err(Error::NotFound { path, message: "there is no such folder; give the model's folder".into() })
        }
        names => names?,
    };
    let of = |name: &str| -> Option<(u32, u32)> {
        let numbers = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(".safetensors")?;
        let (number, total) = numbers.split_once("-of-")?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        (is_number(number) && is_number(total)).then(|| Some((number.parse().ok()?, total.parse().ok()?)))?
    };
    let shards: Vec<(&String, (u32, u32))> = names.iter().filter_map(|name| Some((name, of(name)?))).collect();
    let folder = files.path("");
    let Some(&(first, (_, total))) = shards.first() else {
        let mut message = format!(
            "the model's weights are missing: {stem}.safetensors, or {stem}.safetensors.index.json with its shards, is needed"
        );
        if let Some(other) = names.iter().find(|n| n.ends_with(".bin") || n.ends_with(".pth") || n.ends_with(".gguf")) {
            message += &format!("; {other} is another format, get the model as safetensors");
        }
        return Err(Error::NotFound { path: files.path(&format!("{stem}.safetensors")), message });
    };
    if let Some((other, _)) = shards.iter().find(|(_, (_, t))| *t != total) {
        let message = format!("holds shards of two models, such as {first} and {other}; remove those of one");
        return Err(Error::bad_format(folder, message));
    }
    let present: HashSet<u32> = shards.iter().map(|(_, (number, _))| *number).collect();
    let absent: Vec<u32> = (1..=total).filter(|number| !present.contains(number)).collect();
    if let Some(number) = absent.first() {
        let message = format!("{} of the {total} shards of {stem} are not there; copy this file, too", absent.len());
        return Err(Error::NotFound {
            path: files.path(&format!("{stem}-{number:05}-of-{total:05}.safetensors")),
            message,
        });
    }
    if shards.len() != total as usize {
        return Err(Error::bad_format(files.path(first), format!("is not one of the shards 1 to {total}; remove it")));
    }
    Ok(shards.into_iter().map(|(name, _)| name.clone()).collect())
}
