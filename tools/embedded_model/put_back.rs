//! `put_back RUN OUT`: begins a run of `sitter.dreambench` whose subjects are those of another with their layers put back as they were,
//! so that the same command with `--out OUT` draws and scores what the learned words say alone.

use sitter::model::subject::Subject;
use sitter::{Error, Result};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, out] = &arguments[..] else {
        return Err(Error::invalid("command line", "expected: put_back RUN OUT"));
    };
    let (from, to) = (Path::new(run).join("subjects"), Path::new(out).join("subjects"));
    std::fs::create_dir_all(&to).map_err(|e| Error::io(&to, e))?;
    for entry in std::fs::read_dir(&from).map_err(|e| Error::io(&from, e))? {
        let path = entry.map_err(|e| Error::io(&from, e))?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let name = path.file_name().unwrap_or_default();
            Subject::load(&path)?.without_layers().save(to.join(name))?;
        }
    }
    let plan = Path::new(run).join("plan.json");
    std::fs::copy(&plan, Path::new(out).join("plan.json")).map_err(|e| Error::io(&plan, e))?;
    Ok(())
}
