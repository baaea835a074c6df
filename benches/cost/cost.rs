//! How cost grows: prints docs/cost.md, whose tables it measures.
//!
//! `cargo run --release --example cost -- MODEL [--tables grid,count,..]` prints them as Markdown. Each line is a process of its own,
//! so that its peak memory is its own; on systems without /proc that column is empty. MODEL is a folder as
//! `random_model small` writes it (any model with size tokens up to 64 codes will do): what is measured is growth, and
//! numbers do not depend on the weights' values.

mod cases;

use cases::{Case, Cost};
use lexopt::prelude::*;
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
    /// Used by the program itself: measure a line.
    case: Option<(String, u32)>,
}

impl Arguments {
    fn read() -> std::result::Result<Self, lexopt::Error> {
        let (mut found, mut parser) = (Arguments::default(), lexopt::Parser::from_env());
        while let Some(argument) = parser.next()? {
            match argument {
                Value(value) => found.model = Some(value.string()?),
                Long("tables") => found.tables = Some(parser.value()?.string()?),
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
        let Cost { opened, seconds, peak_mib } = line(case, model, n)?;
        let peak = peak_mib.map_or(String::new(), |p| format!("{p:.0}"));
        println!("| {n} | {seconds:.3} | {opened:.2} | {peak} |");
    }
    Ok(())
}

/// One line, measured by a process of its own.
fn line(case: &Case, model: &str, n: u32) -> Result<Cost> {
    let program = std::env::current_exe().map_err(|e| Error::io("this program", e))?;
    let found = Command::new(&program)
        .args([model, "--case", case.name, &n.to_string()])
        .output()
        .map_err(|e| Error::io(&program, e))?;
    let text = String::from_utf8_lossy(&found.stdout);
    serde_json::from_str(&text).map_err(|_| Error::Internal {
        message: format!("{} {n}: {}", case.name, String::from_utf8_lossy(&found.stderr)),
    })
}
