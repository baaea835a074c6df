//! Damaged, lying and missing files, through the C functions: a status, a message that names the file, never a panic, and no
//! success that means something else.

use crate::host::*;
use safetensors::SafeTensors;
use sitter::capi::engine::sitter_engine;
use sitter::capi::image::*;
use sitter::capi::nouns::{sitter_image, sitter_model, sitter_subject};
use sitter::capi::setters::*;
use sitter::capi::status::*;
use sitter::capi::subject::*;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Damaged versions of each file.
const ROUNDS: usize = 220;

/// A stream of numbers that is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Truncate,
    Flip,
    Overwrite,
    Insert,
}

/// One damaged version; most of the damage is in the first `structure` bytes, where the file says what it is.
fn damaged(good: &[u8], structure: usize, dice: &mut Dice) -> (Damage, usize, Vec<u8>) {
    let range = if dice.below(4) > 0 { structure.clamp(1, good.len()) } else { good.len() };
    let at = dice.below(range);
    let mut bytes = good.to_vec();
    let kind = [Damage::Truncate, Damage::Flip, Damage::Flip, Damage::Overwrite, Damage::Insert][dice.below(5)];
    match kind {
        Damage::Truncate => bytes.truncate(at),
        Damage::Flip => bytes[at] ^= 1 << dice.below(8),
        Damage::Overwrite => {
            let value = [u64::MAX, 1 << 40, 0, 0x3939_3939_3939_3939][dice.below(4)].to_le_bytes();
            let end = (at + 8).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
        }
        Damage::Insert => bytes.insert(at, dice.below(256) as u8),
    }
    (kind, at, bytes)
}

/// A file in place of an older one: an open map must not see its file change.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A copy of the small golden model.
fn copy() -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in std::fs::read_dir(golden("plain")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// An engine for all the openings of this file.
fn shared_engine() -> *const sitter_engine {
    static ENGINE: OnceLock<Handle<sitter_engine>> = OnceLock::new();
    ENGINE.get_or_init(|| engine(1, 8)).at
}

fn open_folder(folder: &Path) -> Result<Handle<sitter_model>> {
    open_on(shared_engine(), folder.to_str().unwrap(), null_mut())
}

/// What the model makes of one grid: the score and the pixels, or the status of what failed.
type Meaning = (std::result::Result<f64, i32>, std::result::Result<Vec<u8>, i32>);

fn meaning(folder: &Path) -> Result<Meaning> {
    let model = open_folder(folder)?;
    let grid = tokens(&(0..8).collect::<Vec<u32>>(), 4, 2).unwrap();
    let prompt = c"a photo of a fox";
    let mut score = 0.0;
    // SAFETY: living handles.
    let scored = check(|err| unsafe {
        let pictures = [grid.at.cast_const()];
        let none = std::ptr::null();
        sitter::capi::tokens::sitter_tokens_score(
            model.at,
            prompt.as_ptr(),
            none,
            0,
            pictures.as_ptr(),
            1,
            null_mut(),
            &mut score,
            err,
        )
    });
    let decoded =
        made(sitter_image_free, |out, err| unsafe { sitter_image_decode(model.at, grid.at, null_mut(), out, err) });
    for status in [status(&scored), status(&decoded)] {
        assert_ne!(status, SITTER_E_PANIC, "{scored:?}");
    }
    Ok((scored.map(|()| score).map_err(|f| f.status), decoded.map(|i| rgb(&i)).map_err(|f| f.status)))
}

/// Fails unless an error is one that a damaged file may give, and names a file of the folder.
#[track_caller]
fn is_told(failed: &Failed, folder: &Path) {
    let expected = [
        SITTER_E_BAD_FORMAT,
        SITTER_E_UNSUPPORTED_MODEL,
        SITTER_E_SHAPE_MISMATCH,
        SITTER_E_CORRUPT,
        SITTER_E_NOT_FOUND,
    ];
    assert!(expected.contains(&failed.status), "{failed:?}");
    assert!(failed.message.contains(folder.to_str().unwrap()), "{failed:?}");
    assert!(failed.message.len() < 3000, "a message of {} bytes", failed.message.len());
}

/// Opens the model with many damaged versions of one of its files. `may_change` says after which damage a model that still
/// opens may mean something else.
fn damage_file(folder: &TempDir, name: &str, structure: usize, may_change: impl Fn(Damage, usize) -> bool) {
    let _busy = busy();
    let path = folder.path().join(name);
    let good = std::fs::read(&path).unwrap();
    let right = meaning(folder.path()).unwrap();
    assert!(right.0.is_ok() && right.1.is_ok(), "{right:?}");
    let mut dice = Dice(name.len() as u64);
    let mut opened = 0;
    for round in 0..ROUNDS {
        let (kind, at, bytes) = damaged(&good, structure, &mut dice);
        replace(&path, &bytes);
        match meaning(folder.path()) {
            Err(failed) => is_told(&failed, folder.path()),
            Ok(found) => {
                opened += 1;
                assert!(found == right || may_change(kind, at), "{name}, round {round}: {kind:?} at {at} went unseen");
            }
        }
    }
    println!("{name}: {opened} of {ROUNDS} damaged files opened");
    replace(&path, &good);
    assert_eq!(meaning(folder.path()).unwrap(), right);
}

/// Bytes of a safetensors file up to its numbers.
fn header_length(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

#[test]
fn damaged_weights_are_told_or_are_other_numbers() {
    let folder = copy();
    for name in ["model.safetensors", "vqgan.safetensors"] {
        let header = header_length(&folder.path().join(name));
        // There is no check sum: a flipped bit of a weight is another weight.
        damage_file(&folder, name, header, |kind, at| at >= header && matches!(kind, Damage::Flip | Damage::Overwrite));
    }
}

#[test]
fn a_damaged_configuration_is_told() {
    let folder = copy();
    // Numbers such as rope_theta may be others, and the file is still right.
    damage_file(&folder, "config.json", usize::MAX, |kind, _| kind != Damage::Truncate);
}

#[test]
fn a_damaged_tokenizer_configuration_is_told() {
    let folder = copy();
    damage_file(&folder, "vqgan.yaml", usize::MAX, |_, _| false);
}

#[test]
fn a_damaged_vocabulary_is_told() {
    let folder = copy();
    damage_file(&folder, "tokenizer.json", usize::MAX, |kind, _| kind != Damage::Truncate);
}

#[test]
fn a_damaged_index_of_shards_is_told() {
    let folder = copy();
    let whole = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&whole).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let first = |name: &str| name.contains("layers.0");
    let [a, b] = [1, 2].map(|n| format!("model-0000{n}-of-00002.safetensors"));
    for (shard, wanted) in [(&a, true), (&b, false)] {
        let part = all.iter().filter(|(name, _)| first(name) == wanted);
        std::fs::write(folder.path().join(shard), safetensors::serialize(part, None).unwrap()).unwrap();
    }
    let map: serde_json::Map<_, _> =
        all.names().into_iter().map(|n| (n.to_owned(), if first(n) { a.clone() } else { b.clone() }.into())).collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::remove_file(whole).unwrap();
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    damage_file(&folder, "model.safetensors.index.json", usize::MAX, |_, _| false);
    let header = header_length(&folder.path().join(&b));
    damage_file(&folder, &b, header, |kind, at| at >= header && matches!(kind, Damage::Flip | Damage::Overwrite));
}

/// The tensors of a safetensors file as `torch.save` would write them, check sums included.
fn as_checkpoint(bytes: &[u8]) -> Vec<u8> {
    let text = |s: &str| [&[0x8c, s.len() as u8], s.as_bytes()].concat();
    let int = |n: usize| [&b"J"[..], &(n as u32).to_le_bytes()].concat();
    let tuple = |all: Vec<usize>| [b"(".to_vec(), all.into_iter().flat_map(int).collect(), b"t".to_vec()].concat();
    let mut program = [b"\x80\x02}".to_vec(), text("state_dict"), b"}".to_vec()].concat();
    let mut members = Vec::new();
    for (i, (name, view)) in SafeTensors::deserialize(bytes).unwrap().iter().enumerate() {
        let count: usize = view.shape().iter().product();
        let strides = (0..view.shape().len()).map(|d| view.shape()[d + 1..].iter().product()).collect();
        let storage = match view.dtype() {
            safetensors::Dtype::F16 => "HalfStorage",
            safetensors::Dtype::BF16 => "BFloat16Storage",
            _ => "FloatStorage",
        };
        let storage = format!("ctorch\n{storage}\n").into_bytes();
        let key = i.to_string();
        program.extend(text(name));
        program.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        program.extend([text("storage"), storage, text(&key), text("cpu"), int(count)].concat());
        program.extend([b"tQ".to_vec(), int(0), tuple(view.shape().to_vec()), tuple(strides)].concat());
        program.extend(b"\x89}tRs");
        members.push((format!("vq/data/{key}"), view.data().to_vec()));
    }
    program.extend(b"s.");
    members.insert(0, ("vq/data.pkl".into(), program));

    let (mut zip, mut list) = (Vec::new(), Vec::new());
    let (u16, u32) = (|n: usize| (n as u16).to_le_bytes(), |n: usize| (n as u32).to_le_bytes());
    for (name, content) in &members {
        let crc = crc32fast::hash(content).to_le_bytes();
        let sizes = [&crc[..], &u32(content.len()), &u32(content.len()), &u16(name.len()), &u16(0)].concat();
        list.push([b"PK\x01\x02", &[0; 12][..], &sizes, &[0; 10], &u32(zip.len()), name.as_bytes()].concat());
        zip.extend([b"PK\x03\x04", &[0; 10][..], &sizes, name.as_bytes(), content].concat());
    }
    let (start, count, list) = (zip.len(), u16(members.len()), list.concat());
    zip.extend(&list);
    zip.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &u32(list.len()), &u32(start), &[0; 2]].concat());
    zip
}

#[test]
fn a_damaged_pytorch_checkpoint_is_told_or_means_the_same() {
    let folder = copy();
    let before = meaning(folder.path()).unwrap();
    let file = folder.path().join("vqgan.safetensors");
    let checkpoint = as_checkpoint(&std::fs::read(&file).unwrap());
    std::fs::remove_file(file).unwrap();
    std::fs::write(folder.path().join("vqgan.ckpt"), &checkpoint).unwrap();
    assert_eq!(meaning(folder.path()).unwrap(), before, "the checkpoint does not hold the same model");
    let program = checkpoint.windows(9).position(|w| w == b"vq/data/0").unwrap();
    damage_file(&folder, "vqgan.ckpt", program, |_, _| false);
    // The list of contents at the end of the file.
    let list = checkpoint.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let path = folder.path().join("vqgan.ckpt");
    for at in (list..checkpoint.len()).step_by(7) {
        let mut bytes = checkpoint.clone();
        bytes[at] ^= 0x41;
        replace(&path, &bytes);
        match meaning(folder.path()) {
            Err(failed) => is_told(&failed, folder.path()),
            // The check sum itself, or fields that nobody needs.
            Ok(found) => assert_eq!(found, before, "byte {at}"),
        }
    }
}

#[test]
fn absurd_numbers_are_refused_before_memory_is_asked_for() {
    let _busy = busy();
    let cases: &[(&str, &str, &str)] = &[
        ("config.json", "\"hidden_size\": 32", "\"hidden_size\": 16777216"),
        ("config.json", "\"hidden_size\": 32", "\"hidden_size\": 18446744073709551615"),
        ("config.json", "\"hidden_size\": 32", "\"hidden_size\": -1"),
        ("config.json", "\"hidden_size\": 32", "\"hidden_size\": 1e400"),
        ("config.json", "\"vocab_size\": 128", "\"vocab_size\": 16777216"),
        ("config.json", "\"vocab_size\": 128", "\"vocab_size\": 16"),
        ("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 16777216"),
        ("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0"),
        ("config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 3"),
        ("config.json", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1"),
        ("config.json", "\"rope_theta\": 10000.0", "\"rope_theta\": 0"),
        ("config.json", "\"model_type\": \"chameleon\"", "\"model_type\": \"llama\""),
        ("config.json", "{", "[[[[[[[["),
        ("vqgan.yaml", "n_embed: 16", "n_embed: 16777216"),
        ("vqgan.yaml", "n_embed: 16", "n_embed: 17"),
        ("vqgan.yaml", "embed_dim: 8", "embed_dim: 65536"),
        ("vqgan.yaml", "ch: 32", "ch: 65536"),
        ("vqgan.yaml", "num_res_blocks: 1", "num_res_blocks: 64"),
        ("vqgan.yaml", "ch_mult:", "ch_mult: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n      other:"),
        ("tokenizer.json", "\"IMGIMGAZ\": 4", "\"IMGIMGAZ\": 4000000000"),
        ("tokenizer.json", "\"version\": \"1.0\"", "\"version\": 1"),
    ];
    for (file, from, to) in cases {
        let folder = copy();
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        match open_folder(folder.path()) {
            Err(failed) => is_told(&failed, folder.path()),
            Ok(_) => panic!("{file} with {to} opened"),
        }
    }
    for header in [
        r#"{"x":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}"#,
        r#"{"x":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
        r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}}"#,
        r#"{"x":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
    ] {
        let folder = copy();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
        for file in ["model.safetensors", "vqgan.safetensors", "subject.safetensors"] {
            std::fs::write(folder.path().join(file), &bytes).unwrap();
        }
        is_told(&open_folder(folder.path()).err().unwrap(), folder.path());
        is_told(&load(&folder.path().join("subject.safetensors")).err().unwrap(), folder.path());
    }
}

#[test]
fn what_is_no_model_folder_is_told() {
    let _busy = busy();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "vqgan.safetensors", "vqgan.yaml"] {
        let folder = copy();
        let path = folder.path().join(file);
        std::fs::remove_file(&path).unwrap();
        let failed = open_folder(folder.path()).err();
        let failed = failed.unwrap();
        assert_eq!(failed.status, SITTER_E_NOT_FOUND, "{failed:?}");
        is_told(&failed, folder.path());
        // A folder and a pipe of that name.
        std::fs::create_dir(&path).unwrap();
        is_told(&open_folder(folder.path()).err().unwrap(), folder.path());
        std::fs::remove_dir(&path).unwrap();
        pipe(&path);
        is_told(&open_folder(folder.path()).err().unwrap(), folder.path());
    }
    for path in ["", "/no/such/folder", "fake", "embedded", "embedded:x", "/dev/null", "\u{1}"] {
        fails(open(path), SITTER_E_NOT_FOUND);
    }
    for bad in ["fake:bad", "fake:steps", "fake:steps=-1", "fake:steps=99999999999999999999"] {
        fails(open(bad), SITTER_E_INVALID_ARGUMENT);
    }
}

fn pipe(path: &Path) {
    let path = c(path.to_str().unwrap());
    // SAFETY: a terminated string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn what_is_no_picture_file_is_told() {
    let folder = TempDir::new().unwrap();
    let open = |path: &Path| {
        let path = c(path.to_str().unwrap());
        made(sitter_image_free, |out, err| unsafe { sitter_image_open(path.as_ptr(), out, err) })
    };
    let file = folder.path().join("picture");
    assert!(fails(open(&file), SITTER_E_NOT_FOUND).contains("picture"));
    fails(open(&file.join("inside")), SITTER_E_NOT_FOUND);
    for content in [&b""[..], b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\xff\xff\xff\xffWEBPVP8 "] {
        std::fs::write(&file, content).unwrap();
        assert!(fails(open(&file), SITTER_E_BAD_FORMAT).contains("picture"));
    }
    fails(open(&file.join("inside")), SITTER_E_IO);
    std::fs::remove_file(&file).unwrap();
    pipe(&file);
    assert!(fails(open(&file), SITTER_E_BAD_FORMAT).contains("pipe"));
    assert!(fails(open(folder.path()), SITTER_E_BAD_FORMAT).contains("folder"));
    assert!(fails(open(Path::new("/dev/zero")), SITTER_E_BAD_FORMAT).contains("/dev/zero"));

    let mut dice = Dice(3);
    for name in ["rgb.png", "rgb.jpg", "rgb.webp", "palette_transparent.png", "orientation6.jpg", "lossy.webp"] {
        let good = std::fs::read(golden("pictures").join(name)).unwrap();
        let file = folder.path().join(name);
        for _ in 0..60 {
            std::fs::write(&file, damaged(&good, good.len(), &mut dice).2).unwrap();
            if let Err(failed) = open(&file) {
                assert_eq!(failed.status, SITTER_E_BAD_FORMAT, "{failed:?}");
                is_told(&failed, folder.path());
            }
        }
    }
}

// --- subjects ---

fn load(path: &Path) -> Result<Handle<sitter_subject>> {
    let path = c(path.to_str().unwrap());
    made(sitter_subject_free, |out, err| unsafe { sitter_subject_load(path.as_ptr(), out, err) })
}

fn save(subject: &Handle<sitter_subject>, path: &Path) -> Result<()> {
    let path = c(path.to_str().unwrap());
    check(|err| unsafe { sitter_subject_save(subject.at, path.as_ptr(), err) })
}

/// A subject of the small model, with changed weights.
fn taught(method: &str) -> Handle<sitter_subject> {
    let studio = Studio::on(shared_engine(), golden("plain").to_str().unwrap(), 8, 2);
    let options = train_options(&studio.model, Some(method));
    // SAFETY: living handles.
    unsafe {
        check(|err| sitter_train_options_set_image_size(options.at, 8, err)).unwrap();
        check(|err| sitter_train_options_set_embedding_steps(options.at, 1, err)).unwrap();
        check(|err| sitter_train_options_set_layer_steps(options.at, 1, err)).unwrap();
        check(|err| sitter_train_options_set_lora_rank(options.at, 2, err)).unwrap();
        made(sitter_subject_free, |out, err| {
            sitter_subject_train(studio.model.at, studio.dataset.at, options.at, null_mut(), out, err)
        })
        .unwrap()
    }
}

#[test]
fn a_damaged_subject_file_is_told_or_can_be_used() {
    let _busy = busy();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("subject.safetensors");
    let studio = Studio::on(shared_engine(), golden("plain").to_str().unwrap(), 8, 2);
    for method in ["two_stage", "lora"] {
        save(&taught(method), &file).unwrap();
        let good = std::fs::read(&file).unwrap();
        let header = header_length(&file);
        let mut dice = Dice(11);
        let (mut read, mut used) = (0, 0);
        for _ in 0..2 * ROUNDS {
            let (kind, at, bytes) = damaged(&good, header, &mut dice);
            replace(&file, &bytes);
            match load(&file) {
                Err(failed) => is_told(&failed, folder.path()),
                Ok(subject) => {
                    read += 1;
                    assert_ne!(kind, Damage::Truncate, "at {at}");
                    subject_info(&subject);
                    // A name of the fingerprint, a weight or the identifier may have changed; then it is told here.
                    let result = studio.score_all("a photo of a [V] fox", &[&subject], &[&studio.tokens], null_mut());
                    let told = [SITTER_OK, SITTER_E_WRONG_MODEL, SITTER_E_INVALID_ARGUMENT, SITTER_E_INTERNAL];
                    assert!(told.contains(&status(&result)), "{result:?}");
                    used += usize::from(result.is_ok());
                }
            }
        }
        println!("{method}: {read} of {} damaged subjects were read, {used} used", 2 * ROUNDS);
    }
}

#[test]
fn a_file_of_another_kind_is_no_subject() {
    for file in
        [golden("plain").join("model.safetensors"), golden("plain").join("config.json"), golden("checkpoint/flat.ckpt")]
    {
        let message = fails(load(&file), SITTER_E_BAD_FORMAT);
        assert!(message.contains(file.to_str().unwrap()), "{message}");
    }
    fails(load(Path::new("/no/such/subject")), SITTER_E_NOT_FOUND);
    fails(load(&golden("plain")), SITTER_E_BAD_FORMAT);
    fails(load(Path::new("")), SITTER_E_INVALID_ARGUMENT);
    fails(load(Path::new("/")), SITTER_E_INVALID_ARGUMENT);
}

// --- writing ---

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    names
}

fn save_png(image: &Handle<sitter_image>, path: &Path) -> Result<()> {
    let path = c(path.to_str().unwrap());
    check(|err| unsafe { sitter_image_save_png(image.at, path.as_ptr(), err) })
}

#[test]
fn what_cannot_be_written_is_told_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let subject = Studio::fake("steps=1").train(null_mut()).unwrap();
    let image = pattern(20, 20);
    std::fs::write(folder.path().join("file"), "here before").unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let before = names(folder.path());
    let both = |path: PathBuf, allowed: &[i32]| {
        for result in [save(&subject, &path), save_png(&image, &path)] {
            let failed = result.expect_err("it was written");
            assert!(allowed.contains(&failed.status), "{failed:?}");
            assert!(path.as_os_str().is_empty() || failed.message.contains(path.to_str().unwrap()), "{failed:?}");
        }
        assert_eq!(names(folder.path()), before, "something is left");
    };
    both(folder.path().join("none/x"), &[SITTER_E_NOT_FOUND]);
    both(folder.path().join("file/x"), &[SITTER_E_NOT_FOUND, SITTER_E_IO]);
    both(folder.path().join("sub"), &[SITTER_E_IO]);
    both("/proc/self/x".into(), &[SITTER_E_IO, SITTER_E_NOT_FOUND]);
    both(folder.path().join("sub/.."), &[SITTER_E_INVALID_ARGUMENT]);
    both("".into(), &[SITTER_E_INVALID_ARGUMENT]);
    both("/".into(), &[SITTER_E_INVALID_ARGUMENT]);
    both(folder.path().join("n".repeat(300)), &[SITTER_E_IO]);
    assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "here before");
    // The name alone means the working directory.
    let name = format!("sitter-test-{}", std::process::id());
    save_png(&image, Path::new(&name)).unwrap();
    std::fs::remove_file(name).unwrap();
}

#[test]
fn a_file_that_is_there_is_whole() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("subject.safetensors");
    let subject = Studio::fake("steps=1").train(null_mut()).unwrap();
    save(&subject, &file).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..40).for_each(|_| save(&subject, &file).unwrap()));
        while !writer.is_finished() {
            load(&file).unwrap();
        }
    });
    assert_eq!(names(folder.path()), [file]);
}

#[test]
#[ignore = "run in a process of its own by the test below"]
fn child_writes_on_a_full_disk() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("out");
    let subject = Studio::fake("steps=200").train(null_mut()).unwrap();
    std::fs::write(&file, "here before").unwrap();
    // SAFETY: a limit on the size of files for this process alone, told as an error instead of a signal.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: 512, rlim_max: 512 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    fails(save(&subject, &file), SITTER_E_IO);
    fails(save_png(&pattern(200, 200), &file), SITTER_E_IO);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "here before");
    assert_eq!(names(folder.path()), [file]);
}

#[test]
fn on_a_full_disk_the_old_file_stays() {
    in_own_process("hostile::child_writes_on_a_full_disk");
}
