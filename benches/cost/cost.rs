//! How cost grows: prints docs/cost.md, whose tables it measures.
//!
//! `cargo run --release --example cost -- MODEL [--tables grid,count,..]` prints them as Markdown. Each line is a process of its own,
//! so that its peak memory is its own; on systems without /proc that column is empty. MODEL is a folder as
//! `random_model small` writes it (any model with size tokens up to 64 codes will do): what is measured is growth, and
//! numbers do not depend on the weights' values.
//!
//! `-- MODEL --memory [--dtype NAME] [--pixels N] [--count N]` prints instead what the estimate promises beside what each work really
//! holds, for docs/memory.md: drawing four pictures of 256 x 256 pixels unless others are asked for, and training with such.

mod cases;
mod promise;

use cases::{Case, Cost};
use lexopt::prelude::*;
use promise::{Pictures, Promise, Work};
use serde::de::DeserializeOwned;
use sitter::{Error, Result};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    model: Option<String>,
    tables: Option<String>,
    memory: bool,
    dtype: Option<String>,
    pixels: Option<u32>,
    count: Option<u32>,
    /// Used by the program itself: measure a line.
    case: Option<(String, u32)>,
    work: Option<usize>,
}

impl Arguments {
    fn read() -> std::result::Result<Self, lexopt::Error> {
        let (mut found, mut parser) = (Arguments::default(), lexopt::Parser::from_env());
        while let Some(argument) = parser.next()? {
            match argument {
                Value(value) => found.model = Some(value.string()?),
                Long("tables") => found.tables = Some(parser.value()?.string()?),
                Long("memory") => found.memory = true,
                Long("dtype") => found.dtype = Some(parser.value()?.string()?),
                Long("pixels") => found.pixels = Some(parser.value()?.parse()?),
                Long("count") => found.count = Some(parser.value()?.parse()?),
                Long("work") => found.work = Some(parser.value()?.parse()?),
                Long("case") => found.case = Some((parser.value()?.string()?, parser.value()?.parse()?)),
                other => return Err(other.unexpected()),
            }
        }
        Ok(found)
    }
}

fn start() -> Result<()> {
    let arguments = Arguments::read().map_err(|e| Error::invalid("command line", e.to_string()))?;
    let Some(model) = arguments.model else {
        return Err(Error::invalid("command line", "expected a model folder"));
    };
    if let Some((name, n)) = arguments.case {
        let Some(case) = Case::ALL.iter().find(|c| c.name == name) else {
            return Err(Error::invalid("--case", format!("{name} is unknown")));
        };
        println!("{}", serde_json::json!(case.measure(&model, n)?));
        return Ok(());
    }
    let dtype = arguments.dtype.as_deref().unwrap_or("auto");
    let pictures = Pictures { side: arguments.pixels.unwrap_or(256), count: arguments.count.unwrap_or(4) };
    if let Some(number) = arguments.work {
        let all = Work::all(&model)?;
        let work = all.get(number).ok_or_else(|| Error::invalid("--work", format!("{number} of {}", all.len())))?;
        println!("{}", serde_json::json!(work.measure(&model, dtype, pictures)?));
        return Ok(());
    }
    if arguments.memory {
        return promises(&model, dtype, pictures);
    }
    print!("{}", include_str!("intro.md"));
    let is_wanted = |name: &str| arguments.tables.as_ref().is_none_or(|w| w.split(',').any(|w| w == name));
    for case in Case::ALL.iter().filter(|c| is_wanted(c.name)) {
        table(case, &model)?;
    }
    Ok(())
}

fn table(case: &Case, model: &str) -> Result<()> {
    println!(
        "\n## {}\n\n| {} | {} | opening the model before, s | peak memory, MiB |\n|---|---|---|---|",
        case.title, case.varied, case.measured
    );
    for &n in case.sizes {
        let Cost { opened, seconds, peak_mib } = line(&[model, "--case", case.name, &n.to_string()])?;
        let peak = peak_mib.map_or(String::new(), |p| format!("{p:.0}"));
        println!("| {n} | {seconds:.3} | {opened:.2} | {peak} |");
    }
    Ok(())
}

/// What is promised and what is taken, of every work.
fn promises(model: &str, dtype: &str, of: Pictures) -> Result<()> {
    println!("| work | estimate, MiB | peak resident, MiB | peak / estimate | s |\n|---|---|---|---|---|");
    for (number, work) in Work::all(model)?.iter().enumerate() {
        let (side, count, number) = (of.side.to_string(), of.count.to_string(), number.to_string());
        let arguments = [model, "--dtype", dtype, "--pixels", &side, "--count", &count, "--work", &number];
        let Promise { estimate, peak, seconds } = line(&arguments)?;
        let (peak, ratio) = peak.map_or_else(Default::default, |p| (format!("{p:.0}"), format!("{:.2}", p / estimate)));
        println!("| {} | {estimate:.0} | {peak} | {ratio} | {seconds:.1} |", work.title());
    }
    Ok(())
}

/// One line, measured by a process of its own.
fn line<T: DeserializeOwned>(arguments: &[&str]) -> Result<T> {
    let program = std::env::current_exe().map_err(|e| Error::io("this program", e))?;
    let found = Command::new(&program).args(arguments).output().map_err(|e| Error::io(&program, e))?;
    let text = String::from_utf8_lossy(&found.stdout);
    serde_json::from_str(&text).map_err(|_| Error::Internal {
        message: format!("{}: {}", arguments.join(" "), String::from_utf8_lossy(&found.stderr)),
    })
}
