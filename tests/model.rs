//! Opening a model folder: what is accepted, and what each kind of wrong folder is told.

use safetensors::tensor::TensorView;
use safetensors::SafeTensors;
use sitter::model::family::Prediction;
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions, EMBEDDED};
use sitter::personalize::{Dataset, Method, Options};
use sitter::picture::{Crop, Picture};
use sitter::run::{Flow, Run, Stage};
use sitter::tokens::Tokens;
use sitter::{sample, Error, Result};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(folder: impl AsRef<Path>) -> Result<Model> {
    Model::open(
        folder,
        &OpenOptions { device: "cpu".into(), dtype: "f32".into(), keep_quantised: false, ..Default::default() },
        &mut Run::new(),
    )
}

/// A copy of a golden model that a test may spoil.
fn copy(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn refusal(folder: &TempDir) -> Error {
    match open(folder) {
        Err(e) => e,
        Ok(_) => panic!("a spoiled model opened"),
    }
}

fn replace(folder: &TempDir, file: &str, from: &str, to: &str) {
    let path = folder.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Rewrites a safetensors file with some tensors changed, left out or moved elsewhere.
fn rewrite(from: &Path, to: &Path, keep: impl Fn(&str) -> bool, change: impl Fn(&str, &mut Vec<u8>)) {
    let bytes = std::fs::read(from).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let mut changed = Vec::new();
    for (name, view) in all.iter().filter(|(name, _)| keep(name)) {
        let mut data = view.data().to_vec();
        change(name, &mut data);
        changed.push((name.to_string(), view.dtype(), view.shape().to_vec(), data));
    }
    let views = changed.iter().map(|(n, t, s, d)| (n.as_str(), TensorView::new(*t, s.clone(), d).unwrap()));
    std::fs::write(to, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn the_embedded_model_opens_and_its_tokenizer_keeps_a_picture() {
    let mut stages = Vec::new();
    let mut run = Run::with_events(|e| {
        stages.push((e.stage, e.done, e.total));
        Flow::Continue
    });
    let model = Model::open(EMBEDDED, &OpenOptions::default(), &mut run).unwrap();
    drop(run);
    assert_eq!(stages.last().map(|s| (s.0, s.1 == s.2)), Some((Stage::Open, true)));
    let info = model.info();
    assert!(info.can_decode && info.grid_unit_px == 16 && info.codebook == 8192, "{info:?}");
    let options = sample::Options::for_model(&model).unwrap();
    assert_eq!((options.width, options.height), (128, 128));

    let picture = Picture::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/subjects/fox/1.png")).unwrap();
    let picture = picture.fit(128, info.grid_unit_px, Crop::Centre).unwrap();
    let tokens = model.encode(&picture, &Run::new()).unwrap();
    assert_eq!((tokens.height(), tokens.width()), (16, 16));
    let back = model.decode(&tokens, &Run::new()).unwrap();
    let gap: f64 = picture.rgb().iter().zip(back.rgb()).map(|(&a, &b)| (a as f64 - b as f64).abs()).sum();
    let gap = gap / picture.rgb().len() as f64;
    assert!(gap < 20.0, "mean difference of {gap} levels");
}

#[test]
fn without_a_decoder_scoring_works_and_decoding_says_what_is_missing() {
    let model = open(golden("grouped")).unwrap();
    assert!(!model.info().can_decode);
    let tokens = Tokens::new(2, 2, vec![1, 2, 3, 4]).unwrap();
    assert!(
        Personalized::new(&model, &[]).unwrap().score("a fox", std::slice::from_ref(&tokens), &mut Run::new()).unwrap()
            [0]
            > 0.0
    );
    let error = model.decode(&tokens, &Run::new()).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("vqgan.ckpt"), "{error}");
}

#[test]
fn an_image_tokenizer_beside_the_model_wins_over_one_inside_without_decoder() {
    let folder = copy("grouped");
    for file in ["vqgan.safetensors", "vqgan.yaml"] {
        std::fs::create_dir_all(folder.path().join("tokenizer")).unwrap();
        std::fs::copy(golden("plain").join(file), folder.path().join("tokenizer").join(file)).unwrap();
    }
    let model = open(&folder).unwrap();
    assert!(model.info().can_decode);
    let picture = model.decode(&Tokens::new(2, 4, (0..8).collect()).unwrap(), &Run::new()).unwrap();
    assert_eq!((picture.width(), picture.height()), (8, 4));
}

/// What `embedded:infinity` holds, opened as the folder it is.
#[test]
fn the_second_embedded_model_draws_what_it_is_asked_for_and_learns_a_subject() {
    let model = open(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/embedded-infinity")).unwrap();
    let info = model.info();
    assert!(info.family == "infinity" && info.can_decode, "{info:?}");
    let nats = |subjects: &[&Subject], prompt: &str, tokens: &Tokens| {
        Personalized::new(&model, subjects)
            .unwrap()
            .score(prompt, std::slice::from_ref(tokens), &mut Run::new())
            .unwrap()[0]
    };

    let [snow, city] = ["a photo of a fox in the snow", "a photo of a fox in a city"];
    let drawing = sample::Options::for_model(&model).unwrap();
    let drawn = sample::sample(&model, snow, &[], &drawing, &mut Run::new()).unwrap();
    let picture = model.decode(&drawn[0].tokens, &Run::new()).unwrap();
    assert_eq!((picture.width(), picture.height()), (128, 128));
    assert!(nats(&[], snow, &drawn[0].tokens) < nats(&[], city, &drawn[0].tokens));

    let fox = |i: usize| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("assets/subjects/fox/{i}.png"));
    let mut options = Options::for_model(&model, Method::Arbooth).unwrap();
    (options.class_word, options.layer_steps) = ("fox".into(), 10);
    let dataset = Dataset::load(&[fox(1), fox(2)]).unwrap();
    let subject = sitter::train(&model, &dataset, &options, &mut Run::new()).unwrap();
    let unseen = Picture::load(fox(3)).unwrap().fit(128, info.grid_unit_px, Crop::Centre).unwrap();
    let unseen = model.encode(&unseen, &Run::new()).unwrap();
    assert!(nats(&[&subject], "a photo of a [V] fox", &unseen) < nats(&[], "a photo of a fox", &unseen));
}

#[cfg(not(feature = "embedded-infinity"))]
#[test]
fn who_names_the_second_embedded_model_without_the_feature_is_told_where_it_is() {
    let error = open("embedded:infinity").err().unwrap();
    assert!(
        matches!(error, Error::NotFound { .. }) && error.to_string().contains("feature embedded-infinity"),
        "{error}"
    );
}

#[test]
fn who_nearly_names_the_embedded_model_is_told_its_name() {
    for name in ["embedded", "Embedded:", "embedded: ", "embedded:lumina"] {
        let error = open(name).err().unwrap();
        assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("\"embedded:\""), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    for (file, word) in [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors"),
        ("tokenizer.json", "tokenizer.json"),
        ("vqgan.safetensors", "vqgan.ckpt"),
    ] {
        let folder = copy("plain");
        std::fs::remove_file(folder.path().join(file)).unwrap();
        let error = refusal(&folder);
        assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains(word), "{file}: {error}");
    }
    let error = open("no/such/folder").err().unwrap();
    assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("model folder"), "{error}");
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_named_with_both_shapes() {
    let folder = copy("plain");
    replace(&folder, "config.json", "\"intermediate_size\": ", "\"intermediate_size\": 1");
    let error = refusal(&folder);
    assert!(matches!(error, Error::Tensor { .. }), "{error}");
    assert!(error.to_string().contains("model.layers.0.mlp.gate_proj.weight"), "{error}");

    let folder = copy("plain");
    let file = folder.path().join("model.safetensors");
    rewrite(&golden("plain").join("model.safetensors"), &file, |n| n != "model.norm.weight", |_, _| {});
    let error = refusal(&folder);
    assert!(matches!(error, Error::Tensor { .. }) && error.to_string().contains("model.norm.weight"), "{error}");
}

#[test]
fn not_a_number_among_the_weights_is_found_and_placed() {
    let folder = copy("plain");
    let file = folder.path().join("model.safetensors");
    let last = "model.layers.1.self_attn.k_proj.weight";
    rewrite(
        &golden("plain").join("model.safetensors"),
        &file,
        |_| true,
        |name, data| {
            if name == last {
                let n = data.len();
                data[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
            }
        },
    );
    let error = refusal(&folder);
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains(last), "{error}");
}

#[test]
fn a_tokenizer_without_the_needed_names_is_refused_by_name() {
    for name in ["<eoss>", "<reserved08799>", "IMGIMGBCZ"] {
        let folder = copy("plain");
        replace(&folder, "tokenizer.json", &format!("\"{name}\""), "\"other\"");
        let error = refusal(&folder).to_string();
        let word = if name == "IMGIMGBCZ" { "VQ index 12" } else { name };
        assert!(error.contains("tokenizer.json") && error.contains(word), "{error}");
    }
    let folder = copy("plain");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(refusal(&folder).to_string().contains("tokenizer.json"));
}

#[test]
fn shards_give_the_same_model_as_one_file() {
    let folder = copy("plain");
    let whole = golden("plain").join("model.safetensors");
    let first = |name: &str| name.contains("layers.0");
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let [a, b] = [1, 2].map(|n| format!("model-0000{n}-of-00002.safetensors"));
    rewrite(&whole, &folder.path().join(&a), first, |_, _| {});
    rewrite(&whole, &folder.path().join(&b), |n| !first(n), |_, _| {});
    let bytes = std::fs::read(&whole).unwrap();
    let names = SafeTensors::deserialize(&bytes).unwrap();
    let map: serde_json::Map<_, _> = names
        .names()
        .into_iter()
        .map(|n| (n.to_string(), if first(n) { a.clone() } else { b.clone() }.into()))
        .collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_eq!(open(&folder).unwrap().fingerprint(), open(golden("plain")).unwrap().fingerprint());

    std::fs::remove_file(folder.path().join(&b)).unwrap();
    let error = refusal(&folder).to_string();
    assert!(error.contains(&b), "{error}");
}

#[test]
fn other_weights_or_words_give_another_fingerprint() {
    let plain = open(golden("plain")).unwrap();
    let folder = copy("plain");
    let file = folder.path().join("model.safetensors");
    rewrite(
        &golden("plain").join("model.safetensors"),
        &file,
        |_| true,
        |name, data| {
            if name == "model.norm.weight" {
                data[..4].copy_from_slice(&7f32.to_le_bytes());
            }
        },
    );
    assert_ne!(open(&folder).unwrap().fingerprint(), plain.fingerprint());
}

#[test]
fn recommended_settings_are_read_and_their_mistakes_named() {
    let folder = copy("plain");
    let file = folder.path().join("sitter.json");
    std::fs::write(&file, r#"{"sample": {"guidance": 2.5, "width": 8}}"#).unwrap();
    let options = sample::Options::for_model(&open(&folder).unwrap()).unwrap();
    assert_eq!((options.guidance, options.width, options.temperature), (2.5, 8, 1.0));

    std::fs::write(&file, r#"{"sample": {"guidence": 2.5}}"#).unwrap();
    let error = sample::Options::for_model(&open(&folder).unwrap()).unwrap_err().to_string();
    assert!(error.contains("sitter.json") && error.contains("guidence"), "{error}");
    std::fs::write(&file, "[").unwrap();
    assert!(refusal(&folder).to_string().contains("sitter.json"));
}

/// As what comes from strangers in the place of a folder.
#[test]
fn a_path_that_is_no_model_folder_is_told_why() {
    let said = |path: &Path| open(path).err().unwrap().to_string();
    let nowhere = tempfile::tempdir().unwrap();
    let file = nowhere.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(said(&file).contains("is not a model folder"), "{}", said(&file));
    for absent in [nowhere.path().join("absent"), file.join("below")] {
        assert!(said(&absent).contains("nothing of this name"), "{}", said(&absent));
    }
    let embedded = open("embedded").err().unwrap();
    assert!(matches!(embedded, Error::NotFound { .. }) && embedded.to_string().contains("\"embedded:\""), "{embedded}");
    // Not even root can look into a circle; as with a folder that may not be read, the system's own reason is told.
    #[cfg(unix)]
    {
        let circle = nowhere.path().join("circle");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        let error = open(&circle).err().unwrap();
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("symbolic links"), "{error}");
    }
}

#[test]
fn an_image_tokenizer_without_its_description_is_told_to_lack_it() {
    let folder = copy("plain");
    std::fs::remove_file(folder.path().join("vqgan.yaml")).unwrap();
    match refusal(&folder) {
        Error::NotFound { path, message } => {
            assert!(path.ends_with("vqgan.yaml") && message.contains("copy vqgan.yaml"), "{message}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn words_without_a_row_in_the_model_are_a_typed_error() {
    let folder = copy("plain");
    replace(&folder, "tokenizer.json", "\"fox\": 61", "\"fox\": 99991");
    let model = open(&folder).unwrap();
    let view = Personalized::new(&model, &[]).unwrap();
    match view.condition("a fox", 8, 8) {
        Err(Error::BadFormat { file, message }) => {
            assert!(
                file.ends_with("tokenizer.json") && message.contains("\"fox\"") && message.contains("128"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    let many: String = (0..300).map(|i| format!("\"other{i}\": {i}, ")).collect();
    replace(&folder, "tokenizer.json", "\"fox\":", &format!("{many}\"fox\":"));
    let error = refusal(&folder).to_string();
    assert!(error.contains("tokenizer.json") && error.contains("128"), "{error}");
}

#[test]
fn finite_weights_that_are_far_too_large_are_a_typed_error() {
    let folder = copy("plain");
    let enlarged = |file: &str, of: &[&str]| {
        let bytes = std::fs::read(golden("plain").join(file)).unwrap();
        let all = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (&str, TensorView)| {
            let is_half = view.dtype() == safetensors::Dtype::F16;
            let numbers: Vec<f32> = match is_half {
                true => view.data().chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
                false => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            };
            let by = if of.iter().any(|part| name.contains(part)) { 1e38 } else { 1.0 };
            let data = numbers.iter().flat_map(|n| (n.clamp(-1.0, 1.0) * by).to_le_bytes()).collect::<Vec<u8>>();
            (name.to_string(), view.shape().to_vec(), data)
        };
        let tensors: Vec<_> = all.iter().map(tensor).collect();
        let views = tensors
            .iter()
            .map(|(n, s, d)| (n.as_str(), TensorView::new(safetensors::Dtype::F32, s.clone(), d).unwrap()));
        std::fs::write(folder.path().join(file), safetensors::serialize(views, None).unwrap()).unwrap();
    };
    enlarged("model.safetensors", &["proj.weight"]);
    enlarged("vqgan.safetensors", &["quant_conv.weight", "conv_in.weight", "conv_out.weight"]);
    let model = open(&folder).unwrap();
    let overflows = |what: &str, error: Option<Error>| {
        let error = error.unwrap_or_else(|| panic!("{what} gave a result"));
        assert!(matches!(error, Error::Overflow { .. }), "{what}: {error}");
    };
    let picture = Picture::new(8, 8, (0..192).map(|i| i as u8).collect()).unwrap();
    let tokens = Tokens::new(4, 4, (0..16).collect()).unwrap();
    overflows("encode", model.encode(&picture, &Run::new()).err());
    overflows("decode", model.decode(&tokens, &Run::new()).err());
    let options = sample::Options { width: 8, height: 8, ..sample::Options::default() };
    overflows("sample", sample::sample(&model, "a fox", &[], &options, &mut Run::new()).err());
    let view = Personalized::new(&model, &[]).unwrap();
    overflows("score", view.score("a fox", &[tokens], &mut Run::new()).err());
}

#[cfg(unix)]
#[test]
fn quantised_weights_are_not_written_through_a_link_of_the_folder() {
    let (folder, elsewhere) = (copy("plain"), TempDir::new().unwrap());
    let target = elsewhere.path().join("target");
    std::fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, folder.path().join("sitter.q8_0.safetensors")).unwrap();
    open_quantised(&folder, "q8_0", true);
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    assert!(folder.path().join("sitter.q8_0.safetensors").is_symlink());
}

#[test]
fn opening_can_be_cancelled() {
    let mut run = Run::with_events(|_| Flow::Cancel);
    let result = Model::open(golden("plain"), &OpenOptions::default(), &mut run);
    assert!(matches!(result, Err(Error::Cancelled)));
}

fn open_quantised(folder: &TempDir, dtype: &str, keep_quantised: bool) -> Model {
    let options = OpenOptions { device: "cpu".into(), dtype: dtype.into(), keep_quantised, ..Default::default() };
    Model::open(folder, &options, &mut Run::new()).unwrap()
}

/// Where the blocks of a matrix begin in a file of quantised weights.
fn blocks_at(bytes: &[u8]) -> usize {
    let all = SafeTensors::deserialize(bytes).unwrap();
    all.tensor("model.layers.0.self_attn.q_proj.weight").unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize
}

/// What the model makes of a prompt: logits of codes.
fn states(model: &Model) -> Vec<f32> {
    let view = Personalized::new(model, &[]).unwrap();
    let pieces = view.condition("a fox", 64, 64).unwrap().pieces;
    let Prediction::NextToken(next) = view.family.prediction() else { panic!("draws code by code") };
    let context = next.rotary().causal(pieces.len()).unwrap();
    let hidden = next.forward(&next.embed(&[&pieces], None).unwrap(), &context, None).unwrap();
    next.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn quantised_weights_are_written_once_and_read_from_then_on_with_the_same_result() {
    for dtype in ["q8_0", "q4_k"] {
        let folder = copy("plain");
        let file = folder.path().join(format!("sitter.{dtype}.safetensors"));
        let first = open_quantised(&folder, dtype, true);
        let mut bytes = std::fs::read(&file).unwrap();
        let second = open_quantised(&folder, dtype, true);
        assert_eq!(states(&first), states(&second));
        assert_eq!(first.fingerprint(), second.fingerprint());
        let temporary =
            |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().contains("tmp");
        assert!(!std::fs::read_dir(&folder).unwrap().any(temporary));

        // Another number in the file is another number in the model: it comes from there. (In a file as early versions wrote
        // it, without check sums.)
        let number = blocks_at(&bytes) + 20;
        bytes[number] ^= 0x55;
        without_sums(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        assert_ne!(states(&open_quantised(&folder, dtype, true)), states(&first));
        assert_eq!(states(&open_quantised(&folder, dtype, false)), states(&first));
    }
}

/// Takes the check sums out of a file's header, which keeps its length.
fn without_sums(bytes: &mut [u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let (before, rest) = header.split_once(r#"\"checks\":\""#).unwrap();
    let (_, after) = rest.split_once(r#"\","#).unwrap();
    let shorter = format!("{:length$}", format!("{before}{after}"));
    bytes[8..8 + length].copy_from_slice(shorter.as_bytes());
}

#[test]
fn quantised_weights_outlive_a_file_that_is_cut_off() {
    let folder = copy("plain");
    let expected = states(&open_quantised(&folder, "q4_k", true));
    let model = open_quantised(&folder, "q4_k", true);
    std::fs::write(folder.path().join("sitter.q4_k.safetensors"), "").unwrap();
    assert_eq!(states(&model), expected);
}

#[test]
fn quantised_weights_are_not_kept_if_the_host_does_not_want_it_or_the_folder_cannot_be_written() {
    let folder = copy("plain");
    open_quantised(&folder, "q8_0", false);
    open_quantised(&folder, "f32", true);
    let kept = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().starts_with("sitter.q");
    assert!(!std::fs::read_dir(&folder).unwrap().any(kept));
    // A folder of that name stands in the way of the file, whoever runs the test.
    std::fs::create_dir(folder.path().join("sitter.q8_0.safetensors")).unwrap();
    let expected = states(&open_quantised(&folder, "q8_0", false));
    assert_eq!(states(&open_quantised(&folder, "q8_0", true)), expected);
}

#[test]
fn a_file_of_quantised_weights_that_does_not_fit_is_made_anew() {
    let folder = copy("plain");
    let expected = states(&open_quantised(&folder, "q8_0", true));
    let file = folder.path().join("sitter.q8_0.safetensors");
    let sound = std::fs::read(&file).unwrap();
    let spoil: [fn(&mut Vec<u8>); 7] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.truncate(bytes.len() - 1),
        // A block gets a scale that is infinite.
        |bytes| {
            let at = blocks_at(bytes);
            bytes[at..at + 2].copy_from_slice(&[0x00, 0x7c]);
        },
        // A single bit, and a stretch of numbers.
        |bytes| {
            let at = blocks_at(bytes);
            bytes[at + 20] ^= 1;
        },
        |bytes| {
            let at = blocks_at(bytes);
            bytes[at + 2..at + 30].iter_mut().for_each(|b| *b = !*b);
        },
        // Of another model.
        |bytes| {
            let key = br#"fingerprint\":\""#;
            let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        },
    ];
    for (case, spoil) in spoil.into_iter().enumerate() {
        let mut bytes = sound.clone();
        spoil(&mut bytes);
        assert_ne!(bytes, sound);
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(states(&open_quantised(&folder, "q8_0", true)), expected, "case {case}");
        assert!(std::fs::read(&file).unwrap() == sound, "case {case}");
    }
}
