//! Pictures against Pillow: tools/golden/pictures.py made tests/golden/pictures/.

use candle_core::Device;
use formula::formula;
use sha2::{Digest, Sha256};
use sitter::picture::{read_png_text, Crop, Picture};
use std::path::PathBuf;

#[path = "golden/formula.rs"]
mod formula;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures").join(name)
}

fn expected() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn pair(v: &serde_json::Value) -> (u32, u32) {
    (v[0].as_u64().unwrap() as u32, v[1].as_u64().unwrap() as u32)
}

#[test]
fn fitting_agrees_with_pillow_to_the_byte() {
    let expected = expected();
    let cases = expected["fits"].as_array().unwrap();
    assert_eq!(cases.len(), 120);
    for case in cases {
        let (w, h) = pair(&case["size"]);
        let crop = match &case["at"] {
            serde_json::Value::Null => Crop::Centre,
            at => Crop::At(at[0].as_f64().unwrap(), at[1].as_f64().unwrap()),
        };
        let out = formula((w, h)).fit(case["target"].as_u64().unwrap() as u32, 32, crop).unwrap();
        assert_eq!((out.width(), out.height()), pair(&case["out"]), "{case}");
        assert_eq!(hex(&Sha256::digest(out.rgb())), case["sha256"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn every_kind_of_file_is_read_as_pillow_reads_it() {
    let expected = expected();
    for case in expected["files"].as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let picture = Picture::load(golden(name)).unwrap();
        assert_eq!((picture.width(), picture.height()), pair(&case["size"]), "{name}");
        let wanted = unhex(case["rgb"].as_str().unwrap());
        let worst = picture.rgb().iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // JPEG is decoded by another library than Pillow's, with other roundings.
        let allowed = if case["exact"].as_bool().unwrap() { 0 } else { 3 };
        println!("{name}: largest difference {worst}");
        assert!(worst <= allowed, "{name}: differs by {worst}");
    }
}

#[test]
fn every_truncation_of_every_file_is_an_error_and_never_a_panic() {
    for case in expected()["files"].as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let bytes = std::fs::read(golden(name)).unwrap();
        for len in 0..bytes.len() {
            let result = Picture::from_bytes(&bytes[..len], name);
            // A PNG without its end chunk and a WebP without its padding have all their pixels.
            let spare = if name.ends_with(".jpg") { 1 } else { 64 };
            if len + spare <= bytes.len() {
                assert!(result.is_err(), "{name} cut to {len} of {}", bytes.len());
            }
        }
    }
}

#[test]
fn no_single_damaged_byte_makes_a_panic() {
    for case in expected()["files"].as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let bytes = std::fs::read(golden(name)).unwrap();
        for at in 0..bytes.len() {
            for flip in [0xff, 0x01, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = Picture::from_bytes(&damaged, name);
            }
        }
    }
}

#[test]
fn a_header_that_claims_a_huge_picture_is_refused_before_memory_is_taken() {
    let mut bytes = std::fs::read(golden("rgb.png")).unwrap();
    for (w, h) in [(u32::MAX >> 1, u32::MAX >> 1), (100_000, 100_000), (1, u32::MAX >> 1), (0, 5)] {
        bytes[16..20].copy_from_slice(&w.to_be_bytes());
        bytes[20..24].copy_from_slice(&h.to_be_bytes());
        let crc = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = Picture::from_bytes(&bytes, "huge.png").unwrap_err();
        assert!(error.to_string().starts_with("huge.png: "), "{error}");
    }
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn other_formats_are_refused_by_name() {
    for (bytes, found) in [(&b"GIF89a\x01\0\x01\0"[..], "Gif"), (b"hello, world", "unknown"), (b"", "empty")] {
        let error = Picture::from_bytes(bytes, "cat.xyz").unwrap_err().to_string();
        assert!(error.contains("cat.xyz") && error.contains(found), "{error}");
        assert!(error.contains("PNG, JPEG and WebP"), "{error}");
    }
}

#[test]
fn a_missing_file_is_told_from_a_bad_one() {
    let error = Picture::load("no/such/picture.png").unwrap_err();
    assert!(matches!(error, sitter::Error::NotFound { .. }), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(Picture::load(folder.path()).is_err());
}

#[test]
fn saved_pictures_come_back_with_pixels_and_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    let picture = formula((33, 21));
    let text = [("prompt", "ein Foto von Ähre, 犬 🐕\nzweite Zeile"), ("seed", "7")];
    std::fs::write(&path, "older").unwrap();
    picture.save_png(&path, &text).unwrap();
    assert_eq!(Picture::load(&path).unwrap(), picture);
    let back = read_png_text(&path).unwrap();
    assert_eq!(back, text.map(|(k, v)| (k.to_string(), v.to_string())));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left behind");
}

#[test]
fn a_failed_save_leaves_the_older_file_and_no_temporary_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    // A folder cannot be replaced by a file.
    std::fs::create_dir(&path).unwrap();
    assert!(formula((4, 4)).save_png(&path, &[]).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = formula((4, 4)).save_png(folder.path().join("no/out.png"), &[]).unwrap_err();
    assert!(matches!(error, sitter::Error::NotFound { .. }), "{error}");
    for key in ["", " x", "a  b", "ключ", &"k".repeat(80)] {
        assert!(formula((4, 4)).save_png(folder.path().join("k.png"), &[(key, "v")]).is_err(), "{key:?}");
    }
    assert!(formula((4, 4)).save_png(folder.path().join("k.png"), &[("k", "a\0b")]).is_err());
    assert!(formula((4, 4)).save_png("/", &[]).is_err());
    assert!(!folder.path().join("k.png").exists());
}

#[test]
fn text_of_a_file_that_is_no_png_is_an_error() {
    assert!(read_png_text(golden("rgb.jpg")).is_err());
    assert!(read_png_text(golden("no.png")).is_err());
    assert_eq!(read_png_text(golden("rgb.png")).unwrap(), []);
}

#[test]
fn a_decoded_picture_makes_the_round_trip_through_a_tensor() {
    let picture = formula((16, 32));
    let tensor = picture.to_tensor(&Device::Cpu).unwrap();
    assert_eq!(tensor.dims(), [1, 3, 32, 16]);
    let back = Picture::from_tensor(&tensor).unwrap();
    assert!(back.rgb().iter().zip(picture.rgb()).all(|(a, b)| b - a <= 1));
}
