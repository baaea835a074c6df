//! The evaluator against PyTorch, transformers and Pillow: tools/golden/evaluate.py made tests/golden/evaluate/.

use formula::formula;
use serde_json::Value;
use sitter::evaluate::{Evaluator, Item, OpenOptions, Protocol, Request, Scores};
use sitter::picture::Picture;
use sitter::run::{Flow, Run, Stage};
use sitter::Error;
use std::path::{Path, PathBuf};

#[path = "golden/formula.rs"]
mod formula;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/evaluate").join(name)
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap()
}

fn sizes(v: &Value) -> Vec<(u32, u32)> {
    let pair = |v: &Value| (v[0].as_u64().unwrap() as u32, v[1].as_u64().unwrap() as u32);
    v.as_array().unwrap().iter().map(pair).collect()
}

fn open(dino: Option<&str>, clip: Option<&str>) -> Evaluator {
    let options = OpenOptions { dino: dino.map(golden), clip: clip.map(golden), lpips: None };
    Evaluator::open(&options, &mut Run::new()).unwrap()
}

/// The largest difference between two vectors, of numbers above 1 relative to them.
fn gap(found: &[f32], expected: &Value) -> f64 {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs() / e.abs().max(1.0)).fold(0.0, f64::max)
}

#[test]
fn vectors_agree_with_pytorch_in_every_form_that_weights_are_published_in() {
    let expected = expected();
    let cases = expected["pictures"].as_array().unwrap();
    let pictures: Vec<Picture> = cases.iter().map(|c| formula(sizes(&serde_json::json!([c["size"]]))[0])).collect();
    let all: Vec<&Picture> = pictures.iter().collect();
    let (new, old) = (open(Some("dino"), Some("clip")), open(Some("dino.pth"), Some("clip_old")));
    for (evaluator, dino, clip) in [(&new, "dino", "clip"), (&old, "dino_original", "clip_old")] {
        let dinos = evaluator.dino(&all, &mut Run::new()).unwrap();
        let clips = evaluator.clip_image(&all, &mut Run::new()).unwrap();
        for ((case, d), c) in cases.iter().zip(&dinos).zip(&clips) {
            let (d, c) = (gap(d, &case[dino]), gap(c, &case[clip]));
            println!("{}: {dino} {d:.1e}, {clip} {c:.1e}", case["size"]);
            assert!(d < 1e-5 && c < 1e-5, "{}: {dino} {d:.1e}, {clip} {c:.1e}", case["size"]);
        }
        let cases = expected["texts"].as_array().unwrap();
        let texts: Vec<&str> = cases.iter().map(|c| c["text"].as_str().unwrap()).collect();
        for (case, vector) in cases.iter().zip(evaluator.clip_text(&texts, &mut Run::new()).unwrap()) {
            let gap = gap(&vector, &case[clip]);
            assert!(gap < 1e-5, "{}: {clip} {gap:.1e}", case["text"]);
        }
    }
}

/// The golden request under a protocol, with all of `references`.
fn measure(evaluator: &Evaluator, protocol: Protocol, references: &[Picture], drawn: &[Picture]) -> Scores {
    let expected = expected();
    let templates: Vec<&str> = expected["templates"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let request = Request {
        protocol,
        identifier: Some("sks"),
        pictures: drawn.iter().zip(templates).map(|(p, text)| Item::picture(p, text)).collect(),
        references: references.iter().map(|p| Item::picture(p, "")).collect(),
        ..Request::default()
    };
    evaluator.score(&request, &mut Run::new()).unwrap()
}

#[test]
fn scores_agree_with_pytorch_under_every_protocol() {
    let (expected, evaluator) = (expected(), open(Some("dino"), Some("clip")));
    let pictures = |name: &str| sizes(&expected[name]).into_iter().map(formula).collect::<Vec<_>>();
    let (references, drawn) = (pictures("references"), pictures("drawn"));
    for (protocol, name) in [(Protocol::A, "B"), (Protocol::B, "B"), (Protocol::C, "C"), (Protocol::D, "D")] {
        let references = if protocol == Protocol::C { &references[..1] } else { &references };
        let found = serde_json::to_value(measure(&evaluator, protocol, references, &drawn)).unwrap();
        let expected = &expected[name];
        let close = |found: &Value, expected: &Value, what: &str| {
            for (field, value) in expected.as_object().unwrap().iter().filter(|(f, _)| found.get(*f).is_some()) {
                let (f, e) = (found[field].as_f64().unwrap(), value.as_f64().unwrap());
                assert!((f - e).abs() < 1e-4, "{protocol:?} {what} {field}: {f} instead of {e}");
            }
        };
        close(&found, &expected["means"], "mean");
        let each = found["each"].as_array().unwrap();
        assert_eq!(each.len(), drawn.len());
        each.iter()
            .zip(expected["each"].as_array().unwrap())
            .for_each(|(f, e)| close(f, e, f["name"].as_str().unwrap()));
        match &expected["real"] {
            Value::Null => assert!(found["real"].is_null() && found["copy_threshold"].is_null()),
            real => {
                close(&found["real"], real, "real");
                let threshold = found["copy_threshold"].as_f64().unwrap();
                assert!((threshold - real["dino_max"].as_f64().unwrap()).abs() < 1e-4);
            }
        }
        assert_eq!((&found["protocol"], &found["pictures"]), (&protocol.name().into(), &drawn.len().into()));
    }
}

#[test]
fn a_reference_drawn_again_is_a_copy_and_says_of_which() {
    let expected = expected();
    let references: Vec<Picture> = sizes(&expected["references"]).into_iter().map(formula).collect();
    let evaluator = open(Some("dino"), None);
    let scores = measure(&evaluator, Protocol::B, &references, &references[1..]);
    let copies: Vec<_> = scores.each.iter().map(|s| (s.copy, s.nearest)).collect();
    assert_eq!(copies, [(Some(true), Some(1)), (Some(true), Some(2))]);
    assert_eq!((scores.copies, scores.means.clip_t, scores.means.clip_i), (Some(2), None, None));
    assert!((scores.means.dino_max.unwrap() - 1.0).abs() < 1e-6);
}

#[test]
fn a_result_says_which_files_it_was_made_with() {
    let info = open(Some("dino"), Some("clip_old")).info().clone();
    let sum = |name: &str| {
        use sha2::Digest;
        let bytes = std::fs::read(golden(name)).unwrap();
        sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let files = |n: &Option<sitter::evaluate::NetworkInfo>| {
        let files = &n.as_ref().unwrap().files;
        files.iter().map(|f| (f.file.clone(), f.sha256.clone())).collect::<Vec<_>>()
    };
    assert_eq!(files(&info.dino), [("model.safetensors".into(), sum("dino/model.safetensors"))]);
    let old = ["pytorch_model.bin", "vocab.json", "merges.txt"].map(|n| (n.to_string(), sum(&format!("clip_old/{n}"))));
    assert_eq!(files(&info.clip), old);
}

#[test]
fn a_picture_that_cannot_be_read_is_listed_and_the_others_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    formula((90, 70)).save_png(at("good.png"), &[]).unwrap();
    std::fs::write(at("bad.png"), "not a picture").unwrap();
    let (good, bad, missing) = (at("good.png"), at("bad.png"), at("missing.png"));
    let evaluator = open(Some("dino"), None);
    let score = |pictures: &[&Path], references: &[&Path]| {
        let items = |paths: &[&Path]| -> Vec<(PathBuf, &str)> { paths.iter().map(|p| (p.to_path_buf(), "")).collect() };
        let (pictures, references) = (items(pictures), items(references));
        let of = |items: &[(PathBuf, &str)]| -> Vec<Item<'static>> {
            items.iter().map(|(p, _)| Item::file(Box::leak(p.clone().into_boxed_path()), "a {} dog")).collect()
        };
        let request = Request { pictures: of(&pictures), references: of(&references), ..Request::default() };
        evaluator.score(&request, &mut Run::new())
    };
    let scores = score(&[&bad, &good, &missing], &[&good, &bad]).unwrap();
    assert_eq!((scores.pictures, scores.references, scores.each.len()), (1, 1, 1));
    assert!(scores.each[0].name.ends_with("good.png"));
    let failed: Vec<_> = scores.failed.iter().map(|f| (f.role, f.name.rsplit('/').next().unwrap())).collect();
    assert_eq!(failed, [("picture", "bad.png"), ("picture", "missing.png"), ("reference", "bad.png")]);
    assert!(scores.failed.iter().all(|f| f.message.contains(&f.name)), "{:?}", scores.failed);
    let error = score(&[&good], &[&missing]).unwrap_err();
    assert!(matches!(&error, Error::NotFound { path, .. } if path == &missing), "{error}");
    assert!(score(&[&bad], &[&good]).unwrap_err().to_string().contains("bad.png"));
    assert!(score(&[], &[&good]).unwrap_err().to_string().starts_with("pictures: "));
    assert!(score(&[&good], &[]).unwrap_err().to_string().starts_with("references: "));
}

#[test]
fn protocol_c_wants_the_one_reference_that_pictures_were_made_of() {
    let picture = formula((40, 40));
    let item = Item::picture(&picture, "");
    let request =
        Request { protocol: Protocol::C, pictures: vec![item], references: vec![item, item], ..Request::default() };
    let error = open(Some("dino"), None).score(&request, &mut Run::new()).unwrap_err().to_string();
    assert!(error.starts_with("references: ") && error.contains("one"), "{error}");
}

#[test]
fn the_share_that_leaked_into_the_class_is_between_the_untouched_model_and_the_subject() {
    let evaluator = open(Some("dino"), None);
    let [reference, subject, class, untouched] = [(300, 200), (299, 201), (200, 450), (31, 400)].map(formula);
    let request = |class| Request {
        pictures: vec![Item::picture(&subject, "")],
        references: vec![Item::picture(&reference, "")],
        class_pictures: vec![Item::picture(class, "")],
        untouched: vec![Item::picture(&untouched, "")],
        ..Request::default()
    };
    let share = |class| evaluator.score(&request(class), &mut Run::new()).unwrap().leakage.unwrap().share.unwrap();
    assert!(share(&untouched).abs() < 1e-9 && (share(&subject) - 1.0).abs() < 1e-9);
    assert!(share(&class).is_finite());
}

#[test]
fn a_vector_does_not_depend_on_what_is_beside_it() {
    let evaluator = open(Some("dino"), Some("clip"));
    let pictures: Vec<Picture> = (0..20).map(|i| formula((60 + i, 80))).collect();
    let all: Vec<&Picture> = pictures.iter().collect();
    let (dino, clip) =
        (evaluator.dino(&all, &mut Run::new()).unwrap(), evaluator.clip_image(&all, &mut Run::new()).unwrap());
    for i in [0, 7, 19] {
        assert_eq!(evaluator.dino(&all[i..=i], &mut Run::new()).unwrap()[0], dino[i]);
        assert_eq!(evaluator.clip_image(&all[i..=i], &mut Run::new()).unwrap()[0], clip[i]);
    }
    let texts = ["a dog", "the dog and the cat in the snow"];
    let together = evaluator.clip_text(&texts, &mut Run::new()).unwrap();
    assert_eq!(evaluator.clip_text(&texts[..1], &mut Run::new()).unwrap()[0], together[0]);
    assert!(evaluator.clip_text(&[], &mut Run::new()).unwrap().is_empty());
    assert!(evaluator.dino(&[], &mut Run::new()).unwrap().is_empty());
}

#[test]
fn progress_counts_pictures_and_a_cancelled_run_gives_nothing() {
    let evaluator = open(Some("dino"), None);
    let pictures: Vec<Picture> = (0..40).map(|i| formula((50 + i, 50))).collect();
    let request = Request {
        pictures: pictures.iter().map(|p| Item::picture(p, "")).collect(),
        references: vec![Item::picture(&pictures[0], "")],
        ..Request::default()
    };
    let mut seen = vec![];
    let mut run = Run::with_events(|e| {
        seen.push((e.stage, e.done, e.total));
        Flow::Continue
    });
    evaluator.score(&request, &mut run).unwrap();
    drop(run);
    assert!(
        seen.iter().all(|e| e.0 == Stage::Score && e.2 == 41) && seen.windows(2).all(|w| w[0].1 <= w[1].1),
        "{seen:?}"
    );
    assert_eq!(seen.last().unwrap().1, 41);
    let mut run = Run::with_events(|e| if e.done >= 16 { Flow::Cancel } else { Flow::Continue });
    assert!(matches!(evaluator.score(&request, &mut run), Err(Error::Cancelled)));
    let mut run = Run::new();
    run.control().cancel();
    assert!(matches!(evaluator.dino(&[&pictures[0]], &mut run), Err(Error::Cancelled)));
}

/// A copy of a golden folder whose config or files can be spoilt.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    }
    folder
}

#[test]
fn wrong_weights_are_an_error_that_names_the_file() {
    let fails = |dino: Option<&Path>, clip: Option<&Path>| {
        let options = OpenOptions { dino: dino.map(Into::into), clip: clip.map(Into::into), lpips: None };
        Evaluator::open(&options, &mut Run::new()).err().expect("it opens").to_string()
    };
    assert!(fails(None, None).starts_with("dino, clip: "));
    let missing = fails(Some(Path::new("/no/such/folder")), None);
    assert!(missing.contains("/no/such/folder") && missing.contains("DINO"), "{missing}");
    let swapped = fails(Some(&golden("clip")), None);
    assert!(swapped.contains("model.safetensors") && swapped.contains("no DINO"), "{swapped}");
    let swapped = fails(None, Some(&golden("dino")));
    assert!(swapped.contains("model.safetensors") && swapped.contains("no CLIP"), "{swapped}");
    let empty = tempfile::tempdir().unwrap();
    assert!(fails(Some(empty.path()), None).contains("has no weights of DINO"));

    let spoilt = copy_of("clip");
    let config = std::fs::read_to_string(spoilt.path().join("config.json")).unwrap();
    for (from, to, told) in [
        ("\"hidden_size\": 24", "\"hidden_size\": 25", "text_model"),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 7", "7 heads"),
        ("\"quick_gelu\"", "\"relu\"", "relu"),
        ("\"patch_size\": 32", "\"patch_size\": 0", "vision_config.patch_size"),
        ("\"vocab_size\": 550", "\"vocab_size\": 3", "<|startoftext|>"),
        ("{", "", "config.json"),
    ] {
        assert!(config.contains(from), "{from}");
        std::fs::write(spoilt.path().join("config.json"), config.replacen(from, to, 1)).unwrap();
        let error = fails(None, Some(spoilt.path()));
        assert!(error.contains(told), "{to}: {error}");
    }
    std::fs::write(spoilt.path().join("config.json"), config).unwrap();
    std::fs::remove_file(spoilt.path().join("tokenizer.json")).unwrap();
    assert!(fails(None, Some(spoilt.path())).contains("tokenizer.json"));
    let spoilt = copy_of("dino");
    let weights = std::fs::read(spoilt.path().join("model.safetensors")).unwrap();
    std::fs::write(spoilt.path().join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    assert!(fails(Some(spoilt.path()), None).contains("model.safetensors"));
}

#[test]
fn a_network_that_is_not_there_is_asked_for_by_name() {
    let evaluator = open(Some("dino"), None);
    let error = evaluator.clip_text(&["a dog"], &mut Run::new()).unwrap_err().to_string();
    assert!(error.starts_with("clip: ") && error.contains("CLIP"), "{error}");
}

/// Random-looking numbers from -1 to 1 that the golden script computes too.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let number = |i: u32| {
        let mut h = i.wrapping_mul(73856093) ^ seed.wrapping_mul(19349663);
        h ^= h >> 13;
        h = h.wrapping_mul(0x5bd1e995);
        h ^= h >> 15;
        (h & 0xffff) as f32 / 32767.5 - 1.0
    };
    (0..count as u32).map(number).collect()
}

/// AlexNet and LPIPS with such weights, in two files as they are published.
fn alexnet(folder: &Path) {
    use safetensors::tensor::{serialize_to_file, Dtype, TensorView};
    let convolutions = [(0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)];
    let (mut net, mut lins) = (vec![], vec![]);
    let scaled = |values: Vec<f32>, by: f32, plus: f32| -> Vec<u8> {
        values.into_iter().flat_map(|v| (v * by + plus).to_le_bytes()).collect()
    };
    for (i, (number, outputs, inputs, kernel)) in convolutions.into_iter().enumerate() {
        let shape = vec![outputs, inputs, kernel, kernel];
        let (count, seed) = (shape.iter().product(), i as u32);
        let size = 2.0 / ((inputs * kernel * kernel) as f32).sqrt();
        net.push((format!("features.{number}.weight"), shape, scaled(numbers(seed, count), size, 0.0)));
        net.push((format!("features.{number}.bias"), vec![outputs], scaled(numbers(seed + 10, outputs), 0.1, 0.0)));
        lins.push((
            format!("lin{i}.model.1.weight"),
            vec![1, outputs, 1, 1],
            scaled(numbers(seed + 20, outputs), 0.5, 0.5),
        ));
    }
    for (name, tensors) in [("alexnet.safetensors", &net), ("alex.safetensors", &lins)] {
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        serialize_to_file(views, None, &folder.join(name)).unwrap();
    }
}

#[test]
fn diversity_is_the_lpips_of_pictures_of_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    alexnet(folder.path());
    let options = OpenOptions { lpips: Some(folder.path().into()), ..OpenOptions::default() };
    let evaluator = Evaluator::open(&options, &mut Run::new()).unwrap();
    assert_eq!(evaluator.info().lpips.as_ref().unwrap().len(), 2);
    let expected = expected();
    let drawn: Vec<Picture> = sizes(&expected["drawn"]).into_iter().map(formula).collect();
    let scores = measure(&evaluator, Protocol::D, &drawn[..1], &drawn);
    let (found, expected) = (scores.diversity.unwrap(), expected["diversity"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-4 * expected.max(1.0), "{found} instead of {expected}");
    assert_eq!(measure(&evaluator, Protocol::D, &drawn[..1], &drawn[..2]).diversity, None);
    std::fs::remove_file(folder.path().join("alex.safetensors")).unwrap();
    let error = Evaluator::open(&options, &mut Run::new()).err().unwrap().to_string();
    assert!(error.contains("lin0.model.1.weight"), "{error}");
}
