//! What each verb asks of a GPU, as docs/cuda.md has it: models of the published depth that are so narrow that they fit a test.

use crate::counts::{counts, launches, Counts};
use crate::verbs::{picture, teach};
use crate::{alone, random_model};
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Adaptation, Method, OptimizerDevice, Options, Trainable};
use sitter::run::{Flow, Run, Stage};
use sitter::sample::{self, Decoding};
use sitter::Error;
use std::fmt::Write;
use std::path::Path;

/// A model of the published number of layers: what it is called, its preset, layers, and pixels of pictures.
struct Deep {
    title: &'static str,
    preset: &'static str,
    layers: usize,
    side: u32,
}

const DEEP: [Deep; 3] = [
    Deep { title: "Lumina-mGPT 7B", preset: "small", layers: 32, side: 256 },
    Deep { title: "Janus-Pro 7B", preset: "janus-small", layers: 30, side: 384 },
    Deep { title: "Infinity 2B", preset: "infinity-small", layers: 32, side: 256 },
];

fn open(deep: &Deep, folder: &Path) -> Model {
    let mut shape = random_model::shape::Shape::preset(deep.preset).unwrap();
    (shape.layers, shape.hidden, shape.intermediate) = (deep.layers, 64, 128);
    random_model::write(&shape, folder).unwrap();
    let options =
        OpenOptions { device: "cuda".into(), dtype: "bf16".into(), keep_quantised: false, ..Default::default() };
    Model::open(folder, &options, &mut Run::new()).unwrap()
}

/// What comes between two events, the numbers of which are given, of a work that is ended then.
fn between(stage: Stage, [from, to]: [u64; 2], work: impl FnOnce(&mut Run) -> sitter::Result<()>) -> Counts {
    let mut seen = vec![];
    let mut run = Run::with_events(|event| {
        if event.stage == stage && [from, to].contains(&event.done) {
            let all = launches();
            if event.done == to && std::env::var_os("NULL_GPU_KERNELS").is_some() {
                println!("{all:?}");
            }
            seen.push(counts());
        }
        if event.stage == stage && event.done == to {
            Flow::Cancel
        } else {
            Flow::Continue
        }
    });
    let ended = work(&mut run);
    assert!(matches!(ended, Ok(()) | Err(Error::Cancelled)), "{ended:?}");
    drop(run);
    let [before, after] = seen[..] else { panic!("{} events of {}", seen.len(), stage.name()) };
    after - before
}

fn whole(work: impl FnOnce()) -> Counts {
    let before = counts();
    work();
    counts() - before
}

/// A line of the table: a part of `counts`, as much as `n` of it are.
fn line(table: &mut String, what: &str, counts: Counts, n: u64) {
    let each = |count: u64| (count as f64 / n as f64).round() as u64;
    let Counts { launches, products, copies, uploads, uploaded_bytes, downloads, allocations, .. } = counts;
    let numbers = [launches, products, copies, allocations, uploads, uploaded_bytes, downloads].map(each);
    let cells: Vec<String> = numbers.iter().map(u64::to_string).collect();
    writeln!(table, "| {what} | {} |", cells.join(" | ")).unwrap();
    println!("{what}: {}", cells.join(" "));
}

fn table() -> String {
    let mut table = String::from(
        "| | kernels | products | copies | allocations | uploads | their bytes | downloads |\n|---|---|---|---|---|---|---|---|\n",
    );
    for deep in &DEEP {
        let folder = tempfile::tempdir().unwrap();
        let model = open(deep, folder.path());
        let own = sample::Options::for_model(&model).unwrap();
        let drawing = sample::Options { width: deep.side, height: deep.side, ..own };
        let title = deep.title;
        let infinity = deep.preset.starts_with("infinity");
        let draw = |options: sample::Options| {
            let model = &model;
            move |run: &mut Run| sample::sample(model, "a photo of a dog", &[], &options, run).map(drop)
        };
        if infinity {
            let all = whole(|| draw(drawing)(&mut Run::new()).unwrap());
            line(&mut table, &format!("{title}: a picture of {0} x {0} pixels", deep.side), all, 1);
        } else {
            // The second row of codes, with the newline behind the first.
            let row = u64::from(deep.side / 16);
            let count = between(Stage::Sample, [row, 2 * row], draw(drawing.clone()));
            line(&mut table, &format!("{title}: a code"), count, row);
            // Nothing but zeros is drawn, so a pass of a window of one code settles two.
            for decoding in [Decoding::Speculative, Decoding::SpeculativeDistribution] {
                let mut seen = vec![];
                let mut run = Run::with_events(|_| {
                    seen.push(counts());
                    if seen.len() == 6 {
                        Flow::Cancel
                    } else {
                        Flow::Continue
                    }
                });
                draw(sample::Options { decoding, ..drawing.clone() })(&mut run).unwrap_err();
                drop(run);
                line(&mut table, &format!("{title}: a pass, {}", decoding.name()), seen[5] - seen[1], 4);
            }
        }
        let picture = picture(1, deep.side);
        let encode = whole(|| drop(model.encode(&picture, &Run::new()).unwrap()));
        let tokens = model.encode(&picture, &Run::new()).unwrap();
        let decode = whole(|| drop(model.decode(&tokens, &Run::new()).unwrap()));
        line(&mut table, &format!("{title}: encode {0} x {0} pixels", deep.side), encode, 1);
        line(&mut table, &format!("{title}: decode {0} x {0} pixels", deep.side), decode, 1);
        let low = Options {
            adaptation: Adaptation::LowRank,
            trainable: Trainable::ALL,
            ..Options::for_model(&model, Method::Dreambooth).unwrap()
        };
        let mut stages = vec![];
        if infinity {
            stages.push(("step of ARBooth", Stage::Layers, Options::for_model(&model, Method::Arbooth).unwrap()));
        } else {
            let two = Options::for_model(&model, Method::TwoStage).unwrap();
            stages.push(("step, embedding stage", Stage::Embedding, two.clone()));
            let layers = Options { embedding_steps: 0, ..two };
            stages.push(("step, layers stage", Stage::Layers, layers.clone()));
            let host = Options { optimizer_device: OptimizerDevice::Host, ..layers };
            stages.push(("step, layers stage, `optimizer_device` `host`", Stage::Layers, host));
        }
        stages.push(("step, low-rank, all", Stage::Layers, low));
        for (what, stage, options) in stages {
            let optimizer_device = match options.optimizer_device {
                OptimizerDevice::Auto => OptimizerDevice::Device,
                chosen => chosen,
            };
            let options = Options { class_word: "dog".into(), image_size: deep.side, optimizer_device, ..options };
            let count = between(stage, [2, 3], |run| teach(&model, &options, deep.side, run).map(drop));
            line(&mut table, &format!("{title}: {what}"), count, 1);
        }
    }
    table
}

/// Written down anew with SITTER_UPDATE=1.
#[test]
fn the_table_of_the_documentation_is_what_is_counted() {
    let _alone = alone();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cuda.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- counted by tools/cuda/null.sh -->\n", "<!-- end -->");
    let (before, rest) = text.split_once(begin).expect("the mark of the table");
    let (written, after) = rest.split_once(end).expect("the mark of the table's end");
    let found = table();
    println!("{found}");
    if std::env::var_os("SITTER_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{begin}{found}{end}{after}")).unwrap();
    } else {
        assert!(written == found, "docs/cuda.md has\n{written}");
    }
}
