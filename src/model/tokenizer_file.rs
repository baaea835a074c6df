//! What a `tokenizer.json` may ask for, looked at before the tokenizers crate reads it.
//!
//! That crate (version 0.22.2) reads and encodes whatever a file says: it reserves the memory that a number claims, repeats a
//! replacement as often as it fits, and ends the process where there is no memory left. So sizes are counted here, in one
//! walk through the text that keeps next to nothing, and a bound is found for how much longer the file's rules can make a text.

use crate::device::memory;
use crate::{Error, Result};
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// The largest published ones, of 262 144 words, have 33 MB.
const MAX_FILE: usize = 64 << 20;
/// What reading a file takes, as a multiple of its size: the crate keeps it as a tree of values while it builds its tables.
const MEMORY: u64 = 30;
/// Words, and merges of two of them.
const MAX_WORDS: usize = 1 << 20;
const MAX_MERGES: usize = 1 << 21;
/// Words that are looked for in the text itself. Whole vocabularies were published so.
const MAX_ADDED: usize = 1 << 16;
/// A single word. The longest published ones are rows of some hundred blanks.
const MAX_WORD: usize = 1024;
/// All words together; the largest vocabularies have a third of it. Each of their bytes may take some hundred in memory.
const MAX_TEXT: usize = 8 << 20;
/// The added words as they are looked for: normalised.
const MAX_SOUGHT: u64 = 4 << 20;
/// How many times as long the rules may make a text. Those of T5, with the longest table of replacements, come to some hundred.
const MAX_GROWTH: u64 = 4096;
/// What the rules may make of one text, in bytes; some dozen times as much is held meanwhile.
const MAX_ENCODED: u64 = 16 << 20;
/// The longest text, whatever the rules; a model reads a small part of it.
const MAX_PROMPT: u64 = 256 << 10;
/// Letters of a word that is looked up piece by piece, which takes the square of it.
const MAX_LETTERS: u64 = 1000;
/// What is put before or behind each piece.
const MAX_AFFIX: usize = 64;

/// What is known of a file that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vetted {
    /// Words with an id, the added ones among them.
    pub words: usize,
    /// The longest text that may be encoded, in bytes.
    pub longest_text: usize,
}

/// Errors if the file asks for more than any tokenizer needs, or than there is memory for. That it is one at all is for its reader to find out.
pub fn vet(bytes: &[u8], file: &Path) -> Result<Vetted> {
    let bad = |message: String| Error::bad_format(file, message);
    if bytes.len() > MAX_FILE {
        return Err(bad(format!("has {} bytes; a tokenizer has at most {MAX_FILE}", bytes.len())));
    }
    memory::room(file, bytes.len() as u64 * MEMORY)?;
    let parts: Parts = serde_json::from_slice(bytes).map_err(|e| bad(format!("not a tokenizer: {e}")))?;
    let rules = [("normalizer", &parts.normalizer), ("pre_tokenizer", &parts.pre_tokenizer)];
    let mut growth = 1u64;
    for (name, rule) in rules {
        growth = growth.saturating_mul(self::growth(rule).map_err(|what| bad(format!("{name}: {what}")))?);
    }
    if growth > MAX_GROWTH {
        let message =
            format!("its normalizer and pre_tokenizer could make a text {growth} times as long; at most {MAX_GROWTH}");
        return Err(bad(message));
    }
    let Added { count, bytes: plain, normalised } = parts.added_tokens;
    let sought = (plain as u64).saturating_add((normalised as u64).saturating_mul(growth));
    if sought > MAX_SOUGHT {
        return Err(bad(format!("its added_tokens have {sought} bytes to look for; at most {MAX_SOUGHT}")));
    }
    let model = parts.model;
    if let Some(random) = model.dropout.as_f64().filter(|&p| p != 0.0) {
        let message =
            format!("model.dropout is {random}, which would give each text other tokens each time; set it to null");
        return Err(bad(message));
    }
    for (name, affix) in [("continuing_subword_prefix", model.prefix), ("end_of_word_suffix", model.suffix)] {
        let length = affix.as_ref().map_or(0, String::len);
        if length > MAX_AFFIX {
            return Err(bad(format!("model.{name} has {length} bytes; at most {MAX_AFFIX}")));
        }
    }
    if let Some(letters) = model.max_letters.as_u64().filter(|&n| n > MAX_LETTERS) {
        return Err(bad(format!("model.max_input_chars_per_word is {letters}; at most {MAX_LETTERS}")));
    }
    let longest_text = (MAX_ENCODED / growth).min(MAX_PROMPT) as usize;
    Ok(Vetted { words: model.vocab.0.saturating_add(count), longest_text })
}

/// The parts of the file that matter here. A part that stands there twice is an error: the crate takes the last.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    added_tokens: Added,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Words,
    /// Only counted, as the field is read.
    #[serde(default, rename = "merges")]
    _merges: Merges,
    #[serde(default)]
    dropout: Value,
    #[serde(default, rename = "continuing_subword_prefix")]
    prefix: Option<String>,
    #[serde(default, rename = "end_of_word_suffix")]
    suffix: Option<String>,
    #[serde(default, rename = "max_input_chars_per_word")]
    max_letters: Value,
}

/// Counts words, and errors at the first that is too much.
#[derive(Default)]
struct Count {
    words: usize,
    bytes: usize,
}

impl Count {
    fn add<E: serde::de::Error>(&mut self, word: &str, most: usize) -> std::result::Result<(), E> {
        self.words += 1;
        self.bytes = self.bytes.saturating_add(word.len());
        match () {
            _ if word.len() > MAX_WORD => Err(E::custom(format!("a word of {} bytes; at most {MAX_WORD}", word.len()))),
            _ if self.words > most => Err(E::custom(format!("more than {most} words"))),
            _ if self.bytes > MAX_TEXT => Err(E::custom(format!("words of more than {MAX_TEXT} bytes in all"))),
            _ => Ok(()),
        }
    }
}

/// How many words a vocabulary has: an object of ids, or a list of pairs of word and score.
#[derive(Default)]
struct Words(usize);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Words, A::Error> {
                let mut count = Count::default();
                while let Some((word, _)) = map.next_entry::<String, IgnoredAny>()? {
                    count.add(&word, MAX_WORDS)?;
                }
                Ok(Words(count.words))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Words, A::Error> {
                let mut count = Count::default();
                while let Some((word, _)) = seq.next_element::<(String, IgnoredAny)>()? {
                    count.add(&word, MAX_WORDS)?;
                }
                Ok(Words(count.words))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// A list that is not too long.
#[derive(Default)]
struct Merges;

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Merges, A::Error> {
                let mut count = 0usize;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                    if count > MAX_MERGES {
                        return Err(A::Error::custom(format!("more than {MAX_MERGES} merges")));
                    }
                }
                Ok(Merges)
            }
        }
        deserializer.deserialize_seq(V)
    }
}

/// The words that are looked for in the text itself.
#[derive(Default)]
struct Added {
    count: usize,
    /// Of those that are looked for as they are, and of those that are normalised first.
    bytes: usize,
    normalised: usize,
}

impl<'de> Deserialize<'de> for Added {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Token {
            content: String,
            #[serde(default)]
            normalized: bool,
        }
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Added;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of added tokens")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Added, A::Error> {
                let (mut count, mut added) = (Count::default(), Added::default());
                while let Some(Token { content, normalized }) = seq.next_element()? {
                    count.add(&content, MAX_ADDED)?;
                    *(if normalized { &mut added.normalised } else { &mut added.bytes }) += content.len();
                }
                Ok(Added { count: count.words, ..added })
            }
        }
        deserializer.deserialize_seq(V)
    }
}

/// A bound for how many times as long a rule can make a text.
///
/// What a rule can do is told by its fields as well as by its type, since the crate goes by them where it does not know the
/// type. Of one key that stands there twice the last counts, here as there.
fn growth(rule: &Value) -> std::result::Result<u64, String> {
    /// For a rule of a type that is not known here.
    const UNKNOWN: u64 = 16;
    let fields = match rule {
        Value::Object(fields) => fields,
        Value::Array(rules) => {
            return rules.iter().try_fold(1u64, |all, rule| Ok(all.saturating_mul(growth(rule)?)));
        }
        _ => return Ok(1),
    };
    let mut factor = match fields.get("type").and_then(Value::as_str) {
        Some("Sequence" | "Replace" | "Prepend" | "Precompiled" | "Strip" | "StripAccents" | "Nmt") => 1,
        Some("Split" | "Punctuation" | "Whitespace" | "WhitespaceSplit" | "Digits" | "UnicodeScripts") => 1,
        Some("BertPreTokenizer" | "CharDelimiterSplit" | "FixedLength") => 1,
        Some("Lowercase") => 2,
        // What Unicode says of its normal forms in UTF-8.
        Some("NFC" | "NFD") => 3,
        Some("NFKC" | "NFKD") => 11,
        // Blanks around each Chinese letter.
        Some("BertNormalizer") => 4,
        // Two bytes for one, and a blank in front.
        Some("ByteLevel") => 3,
        // A letter of up to 4 bytes for each blank, and one in front.
        Some("Metaspace") => 8,
        _ => UNKNOWN,
    };
    for (name, value) in fields {
        let by = match (name.as_str(), value.as_str()) {
            ("content", Some(new)) => {
                let old = fields.get("pattern").and_then(|p| p.get("String")?.as_str()).unwrap_or_default();
                match old.len() {
                    // Also what a regular expression finds may be empty, and is then found everywhere.
                    0 => new.len() as u64 + 1,
                    old => (new.len().div_ceil(old) as u64).max(1),
                }
            }
            ("prepend", Some(new)) => new.len() as u64 + 1,
            ("precompiled_charsmap", Some(map)) => longest_replacement(map)?,
            ("pattern", _) => 1,
            _ => growth(value)?,
        };
        factor = factor.saturating_mul(by);
    }
    Ok(factor)
}

/// The bytes of the longest text that a table of replacements puts in the place of a letter. The table, in base 64, is the length
/// of a search tree, the tree, and texts that each end in a zero.
fn longest_replacement(table: &str) -> std::result::Result<u64, String> {
    let broken = |what: &str| format!("precompiled_charsmap {what}");
    let table = base64(table).ok_or_else(|| broken("is not in base 64"))?;
    let (length, rest) = table.split_first_chunk::<4>().ok_or_else(|| broken("is too short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let texts = rest
        .get(length..)
        .ok_or_else(|| broken(&format!("claims a search tree of {length} bytes; {} are there", rest.len())))?;
    Ok(texts.split(|&b| b == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as u64)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let letters = group.len();
        if letters == 1 {
            return None;
        }
        bits <<= 6 * (4 - letters);
        bytes.extend_from_slice(&bits.to_be_bytes()[1..letters]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(change: impl FnOnce(&mut Value)) -> Result<Vetted> {
        let mut file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "dropout": null}});
        change(&mut file);
        vet(file.to_string().as_bytes(), Path::new("tokenizer.json"))
    }

    fn refused(change: impl FnOnce(&mut Value), words: &[&str]) {
        let error = file(change).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, Error::BadFormat { .. }) && said.starts_with("tokenizer.json: "), "{said}");
        for word in words {
            assert!(said.contains(word), "{said} lacks {word}");
        }
    }

    fn added(count: usize, normalized: bool) -> Value {
        let token =
            |i| json!({"id": i, "content": format!("<reserved{i:06}>"), "normalized": normalized, "special": true});
        (0..count).map(token).collect()
    }

    /// A search tree of 4 bytes, and a text of 33.
    fn charsmap() -> String {
        format!("BAAAAAAAAABh{}YWEA", "YWFh".repeat(10))
    }

    #[test]
    fn tokenizers_as_they_are_published_pass() {
        assert_eq!(file(|_| {}).unwrap(), Vetted { words: 3, longest_text: 256 << 10 });
        // LLaMA and Chameleon.
        let llama = file(|f| {
            f["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]});
            f["added_tokens"] = added(1 << 16, false);
        });
        assert_eq!(llama.unwrap(), Vetted { words: 3 + (1 << 16), longest_text: 256 << 10 });
        // T5.
        let t5 = file(|f| {
            f["normalizer"] = json!({"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap()},
                {"type": "Strip", "strip_left": false, "strip_right": true},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u{2581}"}]});
            f["pre_tokenizer"] =
                json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
            f["added_tokens"] = added(103, true);
            f["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<pad>", 0.0], ["\u{2581}a", -2.5]]});
        });
        assert_eq!(t5.unwrap(), Vetted { words: 105, longest_text: (16 << 20) / (33 * 4 * 8) });
        // As Qwen has it.
        let split = file(|f| {
            f["normalizer"] = json!({"type": "NFC"});
            f["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]});
        });
        assert_eq!(split.unwrap().longest_text, 256 << 10);
    }

    #[test]
    fn rules_that_multiply_a_text_are_refused() {
        let replace = |old: Value, new: String| json!({"type": "Replace", "pattern": old, "content": new});
        let long = || "x".repeat(5000);
        refused(|f| f["normalizer"] = replace(json!({"String": "a"}), long()), &["5000 times"]);
        refused(|f| f["normalizer"] = replace(json!({"Regex": "a{9}"}), long()), &["5001 times"]);
        refused(|f| f["normalizer"] = json!({"pattern": {"String": "a"}, "content": long()}), &["times"]);
        refused(|f| f["normalizer"] = json!({"type": "Prepend", "prepend": long()}), &["5001 times"]);
        let ten = replace(json!({"String": "x"}), "x".repeat(10));
        refused(|f| f["normalizer"] = json!({"type": "Sequence", "normalizers": vec![ten; 30]}), &["times"]);
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false});
        refused(
            |f| f["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![bytes; 40]}),
            &["pre_tokenizer"],
        );
        assert!(file(|f| f["normalizer"] = replace(json!({"String": &"a".repeat(900)}), long())).is_ok());
    }

    #[test]
    fn a_table_of_replacements_must_hold_what_it_claims() {
        let table = |text: &str| json!({"type": "Precompiled", "precompiled_charsmap": text});
        refused(|f| f["normalizer"] = table("/////w=="), &["normalizer", "4294967295 bytes", "0 are there"]);
        refused(|f| f["normalizer"] = table("AAA="), &["too short"]);
        refused(|f| f["normalizer"] = table("A"), &["base 64"]);
        refused(|f| f["normalizer"] = table("A?=="), &["base 64"]);
        assert_eq!(longest_replacement(&charsmap()).unwrap(), 33);
    }

    #[test]
    fn numbers_beyond_all_tokenizers_are_refused() {
        refused(|f| f["added_tokens"] = added(100_000, false), &["more than 65536 words"]);
        refused(|f| f["added_tokens"] = json!([{"id": 0, "content": "x".repeat(1025)}]), &["1025 bytes"]);
        refused(
            |f| {
                f["added_tokens"] = added(60_000, true);
                f["normalizer"] = json!({"type": "NFKC"});
            },
            &["added_tokens", "bytes to look for"],
        );
        refused(|f| f["model"]["vocab"] = json!({"x".repeat(2000): 0}), &["2000 bytes"]);
        refused(|f| f["model"]["vocab"] = json!([["x".repeat(2000), 0.0]]), &["2000 bytes"]);
        refused(|f| f["model"]["dropout"] = json!(0.1), &["model.dropout is 0.1"]);
        refused(|f| f["model"]["continuing_subword_prefix"] = json!("#".repeat(65)), &["continuing_subword_prefix"]);
        refused(|f| f["model"]["end_of_word_suffix"] = json!("#".repeat(65)), &["end_of_word_suffix"]);
        refused(|f| f["model"]["max_input_chars_per_word"] = json!(1u64 << 40), &["max_input_chars_per_word"]);
        let merges = format!(r#"{{"model": {{"merges": [{}0]}}}}"#, "0,".repeat(MAX_MERGES));
        let said = vet(merges.as_bytes(), Path::new("t")).unwrap_err().to_string();
        assert!(said.contains("merges"), "{said}");
        let said = vet(&vec![b' '; MAX_FILE + 1], Path::new("t")).unwrap_err().to_string();
        assert!(said.contains("67108865 bytes"), "{said}");
    }

    #[test]
    fn a_part_that_stands_there_twice_is_refused() {
        for text in [
            r#"{"normalizer": null, "normalizer": {"type": "NFC"}, "model": {}}"#,
            r#"{"model": {"vocab": {}, "vocab": {}}}"#,
            r#"{"added_tokens": [], "added_tokens": [], "model": {}}"#,
        ] {
            let said = vet(text.as_bytes(), Path::new("t")).unwrap_err().to_string();
            assert!(said.contains("duplicate"), "{said}");
        }
    }

    #[test]
    fn base_64_is_read_as_others_write_it() {
        assert_eq!(base64("").unwrap(), b"");
        assert_eq!(base64("Zg==").unwrap(), b"f");
        assert_eq!(base64("Zm8=").unwrap(), b"fo");
        assert_eq!(base64("Zm9v").unwrap(), b"foo");
        assert_eq!(base64("Zm9vYmFyIQ==").unwrap(), b"foobar!");
    }
}
