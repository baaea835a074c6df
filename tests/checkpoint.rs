//! What the checkpoint reader promises about right, wrong and hostile files.

use candle_core::{DType, Device};
use sitter::files::checkpoint::Checkpoint;
use sitter::files::Files;
use sitter::Error;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

// --- what was the largest piece of memory that this thread asked for? ---

struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn watch(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: as the caller promised us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: as the caller promised us.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        watch(size);
        // SAFETY: as the caller promised us.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised us.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

fn largest_allocation(f: impl FnOnce()) -> usize {
    LARGEST.with(|largest| largest.set(0));
    f();
    LARGEST.with(Cell::get)
}

const MEGABYTE: usize = 1 << 20;

// --- making files ---

fn folder(files: &[(&str, &[u8])]) -> (TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let files = Files::Folder(dir.path().to_owned());
    (dir, files)
}

/// A safetensors file with this header, whatever it says.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A right safetensors file of F32 tensors.
fn f32_file(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        header.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{}]}}"#, data.len()));
    }
    safetensors(&format!("{{{}}}", header.join(",")), &data)
}

fn index(map: &[(&str, &str)]) -> Vec<u8> {
    let map: Vec<_> = map.iter().map(|(tensor, file)| format!(r#""{tensor}":"{file}""#)).collect();
    format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, map.join(",")).into_bytes()
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint").join(name)).unwrap()
}

const A: &str = "model-00001-of-00002.safetensors";
const B: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const CKPT: &str = "vqgan.ckpt";
const STATE: Option<&str> = Some("state_dict");

fn open(files: &[(&str, &[u8])]) -> sitter::Result<Checkpoint> {
    let (_dir, files) = folder(files);
    Checkpoint::open(&files, "model")
}

fn open_pickle(bytes: &[u8], key: Option<&str>) -> sitter::Result<Checkpoint> {
    let (_dir, files) = folder(&[(CKPT, bytes)]);
    Checkpoint::open_pickle(&files, CKPT, key)
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f64> {
    let tensor = checkpoint.get_any(name, DType::F64, &Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The message of an error, which must contain all of `parts`.
#[track_caller]
fn says<T: std::fmt::Debug>(result: sitter::Result<T>, parts: &[&str]) -> Error {
    let error = result.unwrap_err();
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    error
}

/// A wrong `model.safetensors`.
#[track_caller]
fn wrong_file(bytes: &[u8], parts: &[&str]) {
    let error = says(open(&[(SINGLE, bytes)]), &[&[SINGLE], parts].concat());
    assert!(matches!(error, Error::BadFormat { .. }), "{error:?}");
}

// --- right files ---

#[test]
fn a_single_file_gives_its_tensors() {
    let bytes = f32_file(&[("w", &[2, 3], &[1., 2., 3., 4., 5., 6.]), ("b", &[2], &[0.5, -1.5])]);
    let checkpoint = open(&[(SINGLE, &bytes)]).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["b", "w"]);
    assert!(checkpoint.contains("w") && !checkpoint.contains("v"));
    assert_eq!((checkpoint.shape("w"), checkpoint.dtype("w")), (Some(&[2, 3][..]), Some(DType::F32)));
    let w = checkpoint.get("w", &[2, 3], DType::BF16, &Device::Cpu).unwrap();
    assert_eq!((w.dims(), w.dtype()), (&[2, 3][..], DType::BF16));
    assert_eq!(values(&checkpoint, "b"), [0.5, -1.5]);
}

#[test]
fn a_header_may_have_metadata_and_padding() {
    let header = r#"{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}      "#;
    let checkpoint = open(&[(SINGLE, &safetensors(header, &7f32.to_le_bytes()))]).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["x"]);
    assert_eq!(values(&checkpoint, "x"), [7.]);
}

#[test]
fn each_float_dtype_is_converted() {
    let data: Vec<u8> = [
        &half::f16::from_f32(1.5).to_le_bytes()[..],
        &half::bf16::from_f32(-2.5).to_le_bytes(),
        &3.25f32.to_le_bytes(),
        &4.125f64.to_le_bytes(),
    ]
    .concat();
    let header = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[],"data_offsets":[2,4]},
        "c":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]},"d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}"#;
    let checkpoint = open(&[(SINGLE, &safetensors(header, &data))]).unwrap();
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        for (name, value) in [("a", 1.5), ("b", -2.5), ("c", 3.25), ("d", 4.125)] {
            let tensor = checkpoint.get_any(name, dtype, &Device::Cpu).unwrap();
            assert_eq!(tensor.dtype(), dtype);
            let found: Vec<f64> = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(found, [value]);
        }
    }
}

#[test]
fn shards_are_found_by_the_index_or_by_their_numbers() {
    let (a, b) = (f32_file(&[("x", &[1], &[1.])]), f32_file(&[("y", &[1], &[2.])]));
    let map = index(&[("x", A), ("y", B)]);
    for files in [&[(A, &a[..]), (B, &b), (INDEX, &map)][..], &[(A, &a), (B, &b)]] {
        let checkpoint = open(files).unwrap();
        assert_eq!((values(&checkpoint, "x"), values(&checkpoint, "y")), (vec![1.], vec![2.]));
    }
}

#[test]
fn embedded_files_are_read_from_any_address() {
    let bytes: &'static [u8] = [vec![0], f32_file(&[("x", &[3], &[1., 2., 3.])])].concat().leak();
    let list: &'static [(&str, &[u8])] = vec![(SINGLE, &bytes[1..])].leak();
    let files = Files::Embedded("embedded:", list);
    assert_eq!(values(&Checkpoint::open(&files, "model").unwrap(), "x"), [1., 2., 3.]);
    says(Checkpoint::open_file(&files, "vqgan.safetensors"), &["embedded:vqgan.safetensors", "not there"]);
}

#[test]
fn the_fingerprint_does_not_change_with_sharding_but_with_any_sampled_byte() {
    let big: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
    let single = |big: &[f32]| f32_file(&[("x", &[10_000], big), ("y", &[1], &[2.])]);
    let print = |files: &[(&str, &[u8])]| open(files).unwrap().fingerprint().unwrap();
    let first = print(&[(SINGLE, &single(&big))]);
    let (a, b) = (f32_file(&[("y", &[1], &[2.])]), f32_file(&[("x", &[10_000], &big)]));
    assert_eq!(print(&[(A, &a), (B, &b)]), first);
    for at in [0, 5_000, 9_999] {
        let mut other = big.clone();
        other[at] += 1.0;
        assert_ne!(print(&[(SINGLE, &single(&other))]), first, "value {at}");
    }
    let renamed = f32_file(&[("x", &[10_000], &big), ("z", &[1], &[2.])]);
    let reshaped = f32_file(&[("x", &[100, 100], &big), ("y", &[1], &[2.])]);
    assert_ne!(print(&[(SINGLE, &renamed)]), first);
    assert_ne!(print(&[(SINGLE, &reshaped)]), first);
}

// --- wrong files ---

#[test]
fn missing_weights_say_what_is_needed() {
    let error = says(open(&[("config.json", b"{}")]), &[SINGLE, "weights are missing", INDEX]);
    assert!(matches!(error, Error::NotFound { .. }));
    says(open(&[("pytorch_model.bin", b"PK")]), &["pytorch_model.bin", "safetensors"]);
    says(Checkpoint::open(&Files::Folder("/no/such/folder".into()), "model"), &["/no/such/folder", "no such folder"]);
}

#[test]
fn a_folder_in_place_of_a_file_is_an_error() {
    let (dir, files) = folder(&[]);
    std::fs::create_dir(dir.path().join("vqgan.safetensors")).unwrap();
    says(Checkpoint::open_file(&files, "vqgan.safetensors"), &["vqgan.safetensors", "is a folder"]);
}

#[test]
fn names_cannot_leave_the_folder() {
    let (dir, files) = folder(&[]);
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for name in ["../secret", "/etc/passwd", "", ".", "sub/../../x"] {
        assert!(!files.exists(name) && matches!(files.bytes(name), Err(Error::NotFound { .. })), "{name}");
    }
}

#[test]
fn a_text_file_must_be_text() {
    let (_dir, files) = folder(&[("ok", "häuser".as_bytes()), ("bad", b"ab\xff"), ("empty", b"")]);
    assert_eq!(files.text("ok").unwrap(), "häuser");
    says(files.text("bad"), &["bad", "not UTF-8", "at 2"]);
    says(files.text("empty"), &["empty (0 bytes)"]);
    says(files.text("tokenizer.json"), &["tokenizer.json", "not there"]);
}

#[test]
fn an_empty_file_is_an_error() {
    wrong_file(b"", &["empty (0 bytes)"]);
}

#[test]
fn a_git_lfs_pointer_is_recognised() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13476000000\n";
    wrong_file(pointer, &["Git LFS pointer", "git lfs pull"]);
    says(open_pickle(pointer, STATE), &[CKPT, "Git LFS pointer"]);
    says(open(&[(INDEX, pointer)]), &[INDEX, "Git LFS pointer"]);
}

#[test]
fn a_web_page_is_recognised() {
    wrong_file(b"<!DOCTYPE html><html>Sign in</html>", &["web page"]);
}

#[test]
fn a_pickle_under_a_safetensors_name_is_recognised_and_the_reverse() {
    wrong_file(&golden("flat.ckpt"), &["zip archive", "PyTorch"]);
    says(open_pickle(&f32_file(&[("x", &[1], &[1.])]), STATE), &[CKPT, "safetensors file"]);
}

#[test]
fn other_content_is_no_safetensors_file() {
    wrong_file(b"abc", &["not a safetensors file"]);
    wrong_file(b"This is some text, long enough.", &["not a safetensors file"]);
}

#[test]
fn a_header_length_beyond_the_file_is_an_error() {
    let mut bytes = f32_file(&[("x", &[1], &[1.])]);
    bytes[..8].copy_from_slice(&5_000_000u64.to_le_bytes());
    wrong_file(&bytes, &["truncated", "5000000"]);
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    wrong_file(&bytes, &["18446744073709551615"]);
    bytes[..8].copy_from_slice(&10u64.to_le_bytes());
    wrong_file(&bytes, &["header is broken"]);
}

#[test]
fn truncated_and_oversized_files_are_errors() {
    let bytes = f32_file(&[("x", &[4], &[1.; 4])]);
    wrong_file(&bytes[..bytes.len() - 3], &["truncated", "16 bytes, 13"]);
    wrong_file(&[&bytes[..], b"xy"].concat(), &["2 bytes behind"]);
}

#[test]
fn a_name_twice_in_a_header_is_an_error() {
    let header = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    wrong_file(&safetensors(header, &[0; 4]), &["x stands in it twice"]);
}

#[test]
fn overlapping_tensors_and_gaps_are_errors() {
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"x":{{"dtype":"F32","shape":[1],"data_offsets":{a}}},"y":{{"dtype":"F32","shape":[1],"data_offsets":{b}}}}}"#
        )
    };
    wrong_file(&safetensors(&two("[0,4]", "[2,6]"), &[0; 6]), &["tensor y", "overlaps"]);
    wrong_file(&safetensors(&two("[0,4]", "[0,4]"), &[0; 4]), &["tensor y", "overlaps"]);
    wrong_file(&safetensors(&two("[0,4]", "[6,10]"), &[0; 10]), &["tensor y", "gap"]);
    wrong_file(&safetensors(&two("[0,4]", "[8,4]"), &[0; 8]), &["tensor y", "8 to 4"]);
}

#[test]
fn a_shape_that_does_not_fit_its_bytes_is_an_error() {
    let header = |shape: &str| format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}"#);
    for shape in ["[2]", "[18446744073709551615,18446744073709551615]", "[4611686018427387905]", "[0]"] {
        wrong_file(&safetensors(&header(shape), &[0; 4]), &["tensor x", "does not fit"]);
    }
    wrong_file(&safetensors(&header("[-1]"), &[0; 4]), &["header is broken"]);
    wrong_file(&safetensors(&header("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), &[0; 4]), &["at most 16 sizes"]);
}

#[test]
fn messages_stay_short() {
    let long = "y".repeat(100_000);
    let headers = [
        format!(r#"{{"{long}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"x":{{"dtype":"{long}","shape":[1],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"x":{{"dtype":"F32","shape":["{long}"],"data_offsets":[0,4]}}}}"#),
    ];
    for header in headers {
        let error = says(open(&[(SINGLE, &safetensors(&header, &[0; 4]))]), &["header is broken", "column"]);
        assert!(error.to_string().len() < 600);
    }
    for map in [index(&[(&long, A)]), index(&[("x", &long)])] {
        let error = says(open(&[(INDEX, &map)]), &["not an index", "100000 bytes"]);
        assert!(error.to_string().len() < 600);
    }
}

#[test]
fn lying_headers_allocate_little() {
    let mut long = f32_file(&[("x", &[1], &[1.])]);
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let huge =
        safetensors(r#"{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#, &[0; 64]);
    let deep = safetensors(&format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000)), &[]);
    for bytes in [&long, &huge, &deep] {
        let largest = largest_allocation(|| drop(open(&[(SINGLE, bytes)]).unwrap_err()));
        assert!(largest < MEGABYTE, "{largest}");
    }
    // In pickles: texts, big integers and counts of gigabytes, in an archive that claims as many members.
    let programs: [&[u8]; 5] = [
        b"\x80\x02X\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
    ];
    for program in programs {
        let largest = largest_allocation(|| drop(open_pickle(&archive(&[("t/data.pkl", program)]), None).unwrap_err()));
        assert!(largest < MEGABYTE, "{largest}");
    }
    let mut members = archive(&[("t/data.pkl", b"}.")]);
    let end = members.len() - 22;
    members[end + 8..end + 12].fill(0xfe);
    let largest = largest_allocation(|| drop(says(open_pickle(&members, None), &["breaks off at entry 1 of 65278"])));
    assert!(largest < MEGABYTE, "{largest}");
}

#[test]
fn an_index_that_names_an_absent_shard_is_an_error() {
    let a = f32_file(&[("x", &[1], &[1.])]);
    let error = says(open(&[(A, &a), (INDEX, &index(&[("x", A), ("y", B)]))]), &[B, INDEX, "1 tensors", "not there"]);
    assert!(matches!(error, Error::NotFound { .. }));
}

#[test]
fn a_tensor_of_the_index_that_is_not_in_its_shard_is_an_error() {
    let (a, b) = (f32_file(&[("x", &[1], &[1.])]), f32_file(&[("y", &[1], &[2.])]));
    let open = |map: &[(&str, &str)]| open(&[(A, &a), (B, &b), (INDEX, &index(map))]);
    says(open(&[("x", A), ("y", B), ("z", B)]), &[B, "tensor z", "no such tensor"]);
    says(open(&[("x", B), ("y", B), ("x2", A)]), &[B, "tensor x", A]);
}

#[test]
fn a_tensor_in_two_shards_is_an_error() {
    let (a, b) = (f32_file(&[("x", &[1], &[1.])]), f32_file(&[("x", &[1], &[1.]), ("y", &[1], &[2.])]));
    for files in [&[(A, &a[..]), (B, &b), (INDEX, &index(&[("x", A), ("y", B)]))][..], &[(A, &a), (B, &b)]] {
        says(open(files), &["tensor x", A, B, "one shard only"]);
    }
}

#[test]
fn an_index_that_is_not_one_is_an_error() {
    for (text, part) in [
        ("{", "not an index"),
        ("{}", "weight_map"),
        (r#"{"weight_map":{}}"#, "names no tensors"),
        (r#"{"weight_map":{"x":1}}"#, "not an index"),
        (r#"{"weight_map":{"x":"a.safetensors","x":"a.safetensors"}}"#, "twice"),
        (r#"{"weight_map":{"x":"../../secret.safetensors"}}"#, "../../secret"),
        (r#"{"weight_map":{"x":"/etc/passwd"}}"#, "/etc/passwd"),
    ] {
        says(open(&[(INDEX, text.as_bytes())]), &[INDEX, part]);
    }
}

#[test]
fn an_incomplete_set_of_shards_without_index_is_an_error() {
    let a = f32_file(&[("x", &[1], &[1.])]);
    says(open(&[(A, &a)]), &[B, "1 of the 2 shards"]);
    says(open(&[(A, &a), ("model-00001-of-00003.safetensors", &a)]), &["shards of two models"]);
    says(open(&[("model-00000-of-00001.safetensors", &a)]), &["model-00001-of-00001", "not there"]);
    let extra = [("model-00001-of-00001.safetensors", &a[..]), ("model-00002-of-00001.safetensors", &a)];
    says(open(&extra), &["not one of the shards"]);
}

// --- wrong tensors ---

#[test]
fn an_absent_tensor_is_named_with_its_neighbours() {
    let bytes = f32_file(&[("model.vqmodel.quant_conv.bias", &[1], &[1.]), ("lm_head.weight", &[1], &[1.])]);
    let checkpoint = open(&[(SINGLE, &bytes)]).unwrap();
    let get = |name: &str| checkpoint.get(name, &[1], DType::F32, &Device::Cpu);
    says(get("quant_conv.bias"), &[SINGLE, "tensor quant_conv.bias", "similar names: model.vqmodel.quant_conv.bias"]);
    says(get("lm_head.weigth"), &["similar names: lm_head.weight"]);
    let error = says(get("model.norm.weight"), &["expected a tensor of shape [1], found no such tensor"]);
    assert!(!error.to_string().contains("similar"));
}

#[test]
fn another_shape_is_an_error_that_names_both() {
    let checkpoint = open(&[(SINGLE, &f32_file(&[("x", &[2, 3], &[0.; 6])]))]).unwrap();
    says(
        checkpoint.get("x", &[3, 2], DType::F32, &Device::Cpu),
        &["tensor x", "expected shape [3, 2]", "found shape [2, 3]"],
    );
    says(checkpoint.get("x", &[6], DType::F32, &Device::Cpu), &["[6]"]);
}

#[test]
fn integers_are_not_weights() {
    let header = r#"{"x":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#;
    let checkpoint = open(&[(SINGLE, &safetensors(header, &[0; 4]))]).unwrap();
    assert_eq!(checkpoint.dtype("x"), None);
    says(checkpoint.get("x", &[1], DType::F32, &Device::Cpu), &["tensor x", "F16, BF16, F32, F64", "I32"]);
    let checkpoint = open(&[(SINGLE, &f32_file(&[("x", &[1], &[0.])]))]).unwrap();
    let error = checkpoint.get("x", &[1], DType::U8, &Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }));
}

#[test]
fn nan_and_infinity_are_corrupt_in_every_dtype() {
    type Encoder = (&'static str, fn(f64) -> Vec<u8>);
    let encoders: [Encoder; 4] = [
        ("F16", |v| half::f16::from_f64(v).to_le_bytes().into()),
        ("BF16", |v| half::bf16::from_f64(v).to_le_bytes().into()),
        ("F32", |v| (v as f32).to_le_bytes().into()),
        ("F64", |v| v.to_le_bytes().into()),
    ];
    // Larger than what is looked through at once.
    let count = 600_000;
    for (dtype, encode) in encoders {
        for bad in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut values = vec![1.0; count];
            values[count - 7] = bad;
            values[count - 2] = bad;
            let data: Vec<u8> = values.into_iter().flat_map(encode).collect();
            let header =
                format!(r#"{{"x":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{}]}}}}"#, data.len());
            let checkpoint = open(&[(SINGLE, &safetensors(&header, &data))]).unwrap();
            let error = says(
                checkpoint.get("x", &[count], DType::F32, &Device::Cpu),
                &[SINGLE, "tensor x: 2 of 600000 values are NaN or infinite, the first at index 599993"],
            );
            assert!(matches!(error, Error::Corrupt { .. }));
        }
    }
}

#[test]
fn numbers_that_become_infinite_in_the_wanted_dtype_are_an_error() {
    let checkpoint = |value: f64| {
        let header = r#"{"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
        let data = [&value.to_le_bytes()[..], &1f32.to_le_bytes(), &(value as f32).to_le_bytes()].concat();
        open(&[(SINGLE, &safetensors(header, &data))]).unwrap()
    };
    for value in [65504.0, -65519.0] {
        for name in ["x", "y"] {
            let tensor = checkpoint(value).get_any(name, DType::F16, &Device::Cpu).unwrap();
            let found: Vec<half::f16> = tensor.to_vec1().unwrap();
            assert!(found.iter().all(|v| v.is_finite()));
        }
    }
    for (value, dtype) in [(65520.0, DType::F16), (-1e9, DType::F16), (3.4e38, DType::BF16), (1e39, DType::F32)] {
        says(checkpoint(value).get_any("x", dtype, &Device::Cpu), &["tensor x", "too large, the first at index 0"]);
    }
    says(checkpoint(1e6).get_any("y", DType::F16, &Device::Cpu), &["1 of 2 too large, the first at index 1", "bf16"]);
    assert!(checkpoint(1e300).get_any("x", DType::F64, &Device::Cpu).is_ok());
}

// --- PyTorch checkpoints ---

/// A zip archive of stored members without check sums.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut list) = (Vec::new(), Vec::new());
    let u16 = |n: usize| (n as u16).to_le_bytes();
    let u32 = |n: usize| (n as u32).to_le_bytes();
    for (name, content) in members {
        let sizes = [&u32(0)[..], &u32(content.len()), &u32(content.len()), &u16(name.len()), &u16(0)].concat();
        list.push([b"PK\x01\x02", &[0; 12][..], &sizes, &[0; 10], &u32(bytes.len()), name.as_bytes()].concat());
        bytes.extend([b"PK\x03\x04", &[0; 10][..], &sizes, name.as_bytes(), content].concat());
    }
    let start = bytes.len();
    let count = u16(list.len());
    let list = list.concat();
    bytes.extend(&list);
    bytes.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &u32(list.len()), &u32(start), &[0; 2]].concat());
    bytes
}

#[derive(serde::Deserialize)]
struct Expected {
    dtype: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_slice(&golden("expected.json")).unwrap()
}

#[test]
fn pytorch_checkpoints_give_the_values_that_pytorch_reads() {
    let files =
        [("lightning.ckpt", STATE), ("protocol5.ckpt", STATE), ("no_checksum.ckpt", STATE), ("flat.ckpt", None)];
    for (file, key) in files {
        let checkpoint = open_pickle(&golden(file), key).unwrap();
        for (name, Expected { dtype, shape, values }) in expected() {
            let stored = checkpoint.dtype(&name).map(|dtype| dtype.as_str());
            let short = dtype.replace("bfloat", "bf").replace("float", "f");
            assert_eq!(stored, Some(short.as_str()), "{file} {name}");
            let tensor = checkpoint.get(&name, &shape, DType::F64, &Device::Cpu).unwrap();
            assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap(), values, "{file} {name}");
        }
    }
}

#[test]
fn one_model_has_one_fingerprint_in_all_pickles() {
    let print = |file, key| open_pickle(&golden(file), key).unwrap().fingerprint().unwrap();
    assert_eq!(print("lightning.ckpt", STATE), print("protocol5.ckpt", STATE));
    assert_eq!(print("lightning.ckpt", STATE), print("flat.ckpt", None));
}

#[test]
fn tensors_that_are_not_weights_are_listed_but_not_read() {
    let checkpoint = open_pickle(&golden("lightning.ckpt"), STATE).unwrap();
    for (name, kind) in [
        ("loss.discriminator.main.1.num_batches_tracked", "LongStorage"),
        ("loss.mask", "BoolStorage"),
        ("loss.steps16", "uint16"),
    ] {
        assert!(checkpoint.contains(name) && checkpoint.dtype(name).is_none());
        says(checkpoint.get_any(name, DType::F32, &Device::Cpu), &[CKPT, name, kind]);
    }
}

#[test]
fn an_absent_key_is_an_error_that_names_the_keys_found() {
    says(
        open_pickle(&golden("lightning.ckpt"), Some("model")),
        &[CKPT, "has no 'model'", "state_dict", "epoch", "callbacks"],
    );
    says(open_pickle(&golden("lightning.ckpt"), Some("epoch")), &["'epoch' is not a dict"]);
    says(open_pickle(&golden("lightning.ckpt"), Some("callbacks")), &["no tensors"]);
}

#[test]
fn the_old_pytorch_format_is_an_error_that_says_how_to_convert() {
    says(open_pickle(&golden("legacy.ckpt"), STATE), &[CKPT, "before version 1.6", "torch.save"]);
}

#[test]
fn compressed_archives_and_other_archives_are_errors() {
    says(open_pickle(&golden("compressed.ckpt"), STATE), &[CKPT, "is compressed", "torch.save"]);
    says(open_pickle(&archive(&[("readme.txt", b"hello")]), STATE), &["no data.pkl"]);
    says(open_pickle(&archive(&[("a/data.pkl", b"}."), ("b/data.pkl", b"}.")]), STATE), &["more than one data.pkl"]);
    says(open_pickle(&archive(&[("a/data.pkl", b"}."), ("a/data.pkl", b"}.")]), STATE), &["twice"]);
    says(open_pickle(&archive(&[("a/data.pkl", b"}."), ("a/constants.pkl", b")")]), STATE), &["TorchScript"]);
    says(open_pickle(&archive(&[("a/data.pkl", b"}."), ("a/byteorder", b"big")]), STATE), &["big-endian"]);
    says(open_pickle(b"", STATE), &["empty (0 bytes)"]);
    says(open_pickle(b"something else", STATE), &["not a PyTorch checkpoint"]);
}

/// A checkpoint with one tensor `x` whose description is `(shape, strides, offset, count)` over `data`.
fn one_tensor(shape: &[i64], strides: &[i64], offset: i64, count: i64, data: &[u8]) -> Vec<u8> {
    let int = |n: i64| [&b"\x8a\x08"[..], &n.to_le_bytes()].concat();
    let tuple = |all: &[i64]| [b"(", &all.iter().flat_map(|&n| int(n)).collect::<Vec<u8>>()[..], b"t"].concat();
    let text = |s: &str| [&[0x8c, s.len() as u8], s.as_bytes()].concat();
    let storage =
        [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), &int(count), b"tQ"].concat();
    let arguments = [&storage, &int(offset), &tuple(shape), &tuple(strides), &b"\x89}"[..]].concat();
    let call = [b"ctorch._utils\n_rebuild_tensor_v2\n(", &arguments[..], b"tR"].concat();
    let program = [b"\x80\x02}", &text("x")[..], &call, b"s."].concat();
    archive(&[("t/data.pkl", &program), ("t/data/0", data)])
}

#[test]
fn tensors_of_pickles_must_lie_inside_their_storage() {
    let data: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let open = |shape: &[i64], strides: &[i64], offset, count| {
        open_pickle(&one_tensor(shape, strides, offset, count, &data), None)
    };
    assert_eq!(values(&open(&[2, 2], &[3, 1], 1, 6).unwrap(), "x"), [1., 2., 4., 5.]);
    assert_eq!(values(&open(&[3, 2], &[1, 3], 0, 6).unwrap(), "x"), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(values(&open(&[1, 2], &[i64::MAX, 1], 4, 6).unwrap(), "x"), [4., 5.]);

    const FAR: i64 = i64::MAX;
    for (shape, strides, offset) in [
        (&[2, 3][..], &[3, 1][..], 1),
        (&[7], &[1], 0),
        (&[2], &[6], 0),
        (&[1], &[1], 6),
        (&[1], &[1], FAR),
        (&[2, 2], &[FAR, FAR], FAR),
        (&[FAR, FAR, 4], &[1, 1, 1], 0),
        (&[1_000_000_000], &[0], 0),
    ] {
        let bytes = one_tensor(shape, strides, offset, 6, &data);
        let largest = largest_allocation(|| {
            says(open_pickle(&bytes, None), &[CKPT, "tensor x", "beyond the 6 values stored"]);
        });
        assert!(largest < MEGABYTE);
    }
    says(open(&[-1], &[1], 0, 6), &["tensor x", "shape is not"]);
    says(open(&[1], &[-1], 0, 6), &["tensor x", "strides are not"]);
    says(open(&[1], &[1], -1, 6), &["tensor x", "offset is not"]);
    says(open(&[1], &[], 0, 6), &["1 sizes and 0 strides"]);
    says(open(&[1; 17], &[1; 17], 0, 6), &["up to 16"]);
    for count in [5, 7, FAR, -1] {
        says(open(&[1], &[1], 0, count), &["tensor x", "storage"]);
    }
}

#[test]
fn pickles_that_attack_the_reader_are_errors_or_harmless() {
    let open = |program: &[u8]| open_pickle(&archive(&[("t/data.pkl", program)]), None);
    // What torch.load would execute.
    says(open(b"\x80\x02cposix\nsystem\n\x8c\x04true\x85R."), &["not hold a dict"]);
    // Deep nesting, ten levels of doubling sharing, a list in itself, endless steps.
    says(open(&[&b"\x80\x02"[..], &b"]".repeat(500_000), &b"a".repeat(499_999), b"."].concat()), &["not hold a dict"]);
    says(open(&[&b"\x80\x02N"[..], &b"\x85".repeat(500_000), b"."].concat()), &["not hold a dict"]);
    says(open(&[&b"\x80\x02N"[..], &b"2\x86".repeat(500_000), b"."].concat()), &["not hold a dict"]);
    says(open(b"\x80\x02]q\x00h\x00a."), &["not hold a dict"]);
    says(open(&[&b"\x80\x02"[..], &b"N0".repeat(1_500_000), b"}."].concat()), &["more than 2000000 steps"]);
    // A long list given to OrderedDict again and again.
    let list = [&b"\x80\x02](N"[..], &b"2".repeat(200_000), b"e\x85q\x00"].concat();
    let again = b"ccollections\nOrderedDict\nh\x00R0".repeat(1_000);
    says(open(&[&list[..], &again, b"}."].concat()), &["too often"]);
    for program in [
        &b""[..],
        b".",
        b"t.",
        b"(.",
        b"(0.",
        b"}s.",
        b"}NNu.",
        b"}(Nu.",
        b"h\x05.",
        b"q\x00.",
        b"R.",
        b"NN\x93.",
        b"(N(01.",
        b"S\n.",
        b"pabc\n.",
        b"\x80\x09.",
        b"\xff.",
        b"c.",
        b"J\x00.",
    ] {
        says(open(program), &[CKPT]);
    }
}

#[test]
fn a_data_pkl_of_wrong_size_or_check_sum_is_an_error() {
    let big = [&b"\x80\x02"[..], &vec![b'N'; 17 << 20], b"."].concat();
    says(open_pickle(&archive(&[("t/data.pkl", &big)]), None), &["data.pkl has"]);
    let mut bytes = golden("lightning.ckpt");
    let at = bytes.windows(8).position(|w| w == b"conv_in.").unwrap();
    bytes[at] ^= 1;
    assert!(matches!(says(open_pickle(&bytes, STATE), &[CKPT, "check sum"]), Error::Corrupt { .. }));
}

// --- damage anywhere ---

type Contents = Vec<(String, Vec<f64>)>;

fn read_all(checkpoint: &Checkpoint) -> sitter::Result<Contents> {
    let _ = checkpoint.fingerprint();
    let mut all = Vec::new();
    for name in checkpoint.names().filter(|name| checkpoint.dtype(name).is_some()) {
        checkpoint.get(name, checkpoint.shape(name).unwrap(), DType::F32, &Device::Cpu)?;
        let tensor = checkpoint.get_any(name, DType::F64, &Device::Cpu)?;
        all.push((name.to_owned(), tensor.flatten_all()?.to_vec1()?));
    }
    Ok(all)
}

const POSITIONS: usize = 1500;

/// Damages `good` in every way at many places. `read` must never panic nor ask for much memory; it sees the kind of damage.
/// Returns how many damaged files it took and how many it refused.
fn damage(good: &[u8], read: impl Fn(&str, &[u8]) -> bool) -> [usize; 2] {
    let mut counts = [0; 2];
    let mut count = |kind: &str, bytes: &[u8]| counts[usize::from(!read(kind, bytes))] += 1;
    for i in 0..POSITIONS {
        let at = i * good.len() / POSITIONS;
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << ((i * 5 + i / 8) % 8);
        count("flip", &bytes);
        for (kind, value) in [("ones", u64::MAX), ("large", 1 << 40), ("zeros", 0)] {
            let mut bytes = good.to_vec();
            let end = (at + 8).min(bytes.len());
            bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            count(kind, &bytes);
        }
        count("truncate", &good[..at]);
        let extra: Vec<u8> = (0..=i).map(|k| (k * 31 + i) as u8).collect();
        count("extend", &[good, &extra].concat());
        count("insert", &[&good[..at], &extra[..1], &good[at..]].concat());
        count("remove", &[&good[..at], &good[at + 1..]].concat());
    }
    counts
}

fn is_typed(error: &Error) -> bool {
    use Error::*;
    matches!(error, BadFormat { .. } | Tensor { .. } | Corrupt { .. } | NotFound { .. })
}

fn check_damage(
    good: &[u8],
    name: &str,
    others: &[(&str, &[u8])],
    open: impl Fn(&Files) -> sitter::Result<Checkpoint>,
) -> [usize; 2] {
    let (dir, files) = folder(others);
    let path = dir.path().join(name);
    damage(good, |kind, bytes| {
        // A new file each time: an open map must not see its file change.
        std::fs::write(path.with_extension("new"), bytes).unwrap();
        std::fs::rename(path.with_extension("new"), &path).unwrap();
        let mut result = None;
        let largest = largest_allocation(|| result = Some(open(&files).and_then(|checkpoint| read_all(&checkpoint))));
        assert!(largest < MEGABYTE, "{kind}: {largest}");
        match result.unwrap() {
            Ok(_) => {
                assert!(!matches!(kind, "truncate" | "extend") || name.ends_with(".json"), "{kind} was not seen");
                true
            }
            Err(error) => {
                assert!(is_typed(&error), "{kind}: {error:?}");
                assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
                false
            }
        }
    })
}

#[test]
fn a_damaged_safetensors_file_never_panics() {
    let x: Vec<f32> = (0..60).map(|i| i as f32 / 7.0).collect();
    let good = f32_file(&[("a.weight", &[3, 20], &x), ("b", &[2], &[1., 2.]), ("c.empty", &[0, 4], &[])]);
    let counts = check_damage(&good, SINGLE, &[], |files| Checkpoint::open(files, "model"));
    println!("safetensors: {counts:?} taken, refused");
}

#[test]
fn a_damaged_index_never_panics() {
    let (a, b) = (f32_file(&[("x", &[1], &[1.])]), f32_file(&[("y", &[1], &[2.])]));
    let good = index(&[("x", A), ("y", B)]);
    let counts = check_damage(&good, INDEX, &[(A, &a), (B, &b)], |files| Checkpoint::open(files, "model"));
    println!("index: {counts:?} taken, refused");
}

#[test]
fn a_damaged_pytorch_checkpoint_never_panics() {
    for file in ["lightning.ckpt", "no_checksum.ckpt", "protocol5.ckpt"] {
        let good = golden(file);
        let counts = check_damage(&good, CKPT, &[], |files| Checkpoint::open_pickle(files, CKPT, STATE));
        println!("{file}: {counts:?} taken, refused");
    }
}

#[test]
fn a_flipped_bit_in_a_pytorch_checkpoint_is_seen_or_changes_nothing() {
    let good = golden("lightning.ckpt");
    let (dir, files) = folder(&[]);
    let read = |bytes: &[u8]| {
        std::fs::write(dir.path().join("new"), bytes).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join(CKPT)).unwrap();
        Checkpoint::open_pickle(&files, CKPT, STATE).and_then(|checkpoint| read_all(&checkpoint))
    };
    let right = read(&good).unwrap();
    let mut seen = 0;
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        match read(&bytes) {
            Ok(found) => assert_eq!(found, right, "byte {at}"),
            Err(_) => seen += 1,
        }
    }
    println!("{seen} of {} flipped bits were seen", good.len());
}
