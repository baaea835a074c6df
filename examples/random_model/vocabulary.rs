//! A vocabulary with every name and id that Lumina's layout needs, and a byte-level BPE of made-up words behind them.

use super::janus;
use serde_json::{json, Value};
use sitter::{Error, Result};
use std::collections::BTreeMap;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

const CODES: usize = 8192;
/// The id behind the reserved names.
const FIRST_TEXT: usize = 16384;

/// `tokenizer.json` with `size` tokens: markers 0 to 3, the image codes, `<eoss>` 8196, `<racm3:break>` 8197, then
/// `<reservedN>` with id N + 4 (the separator, the newline and the sizes are among them), then text.
pub fn tokenizer(size: usize) -> Result<Value> {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort();
    if size < FIRST_TEXT + bytes.len() {
        let message = format!("{size} is too small; at least {} are needed", FIRST_TEXT + bytes.len());
        return Err(Error::invalid("--vocabulary", message));
    }
    let mut names: Vec<String> = ["<s>", "<pad>", "</s>", "<unk>"].map(String::from).into();
    names.extend((0..CODES).map(code_name));
    names.extend(["<eoss>", "<racm3:break>"].map(String::from));
    names.extend((names.len()..FIRST_TEXT).map(|id| format!("<reserved{:05}>", id - 4)));
    names.extend(bytes.into_iter().map(String::from));
    let added = [0, 1, 2, 3];
    Ok(file(names, size, &added))
}

/// The same for Janus's layout: bytes, text, and last the words with a meaning.
pub fn janus(size: usize) -> Result<Value> {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort();
    let special = janus::words();
    if size < bytes.len() + special.len() {
        let message = format!("{size} is too small; at least {} are needed", bytes.len() + special.len());
        return Err(Error::invalid("--vocabulary", message));
    }
    let names = bytes.into_iter().map(String::from).collect();
    let mut file = file(names, size - special.len(), &[]);
    let added = special.iter().zip(size - special.len()..).map(|(name, id)| marker(id, name));
    file["added_tokens"] = added.collect();
    Ok(file)
}

/// A file of the kind that T5's is: pieces with scores, blanks as part of words, the end behind every text.
pub fn t5(size: usize) -> Result<Value> {
    let (blank, end) = ("\u{2581}", "</s>");
    let letters = || ('a'..='z').chain(",.[]*".chars()).map(String::from);
    // As T5's 100 spare words and 28 rows without a word.
    let (first, spare) = (4 + letters().count(), 128);
    if size < first + spare + 26 {
        let message = format!("{size} is too small; at least {} are needed", first + spare + 26);
        return Err(Error::invalid("--vocabulary", message));
    }
    let mut pieces: Vec<(String, f64)> =
        ["<pad>", end, "<unk>"].iter().map(|name| (name.to_string(), 0.0)).chain([(blank.into(), -4.0)]).collect();
    let of_words = words(size - first - spare).into_iter();
    pieces.extend(of_words.zip(1..).map(|(word, i)| (word.replace('Ġ', blank), -5.0 - 1e-4 * f64::from(i))));
    pieces.extend(letters().map(|letter| (letter, -20.0)));
    let space = json!({"type": "Metaspace", "replacement": blank, "prepend_scheme": "always", "split": true});
    let markers: Vec<Value> = (0..3).map(|id| marker(id, &pieces[id].0)).collect();
    let last = json!({"SpecialToken": {"id": end, "type_id": 0}});
    let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    Ok(json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": markers, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {"type": "TemplateProcessing", "single": [text("A", 0), last],
            "pair": [text("A", 0), text("B", 0)], "special_tokens": {end: {"id": end, "ids": [1], "tokens": [end]}}},
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": false}}))
}

/// `names`, then made-up words until there are `size`; those that are `added` are looked for in the text itself.
fn file(mut names: Vec<String>, size: usize, added: &[usize]) -> Value {
    let words = words(size - names.len());
    let merges: Vec<(String, String)> = words.iter().map(|word| split_last(word)).collect();
    names.extend(words);
    let vocabulary: BTreeMap<&String, usize> = names.iter().enumerate().map(|(id, name)| (name, id)).collect();
    let markers: Vec<Value> = added.iter().map(|&id| marker(id, &names[id])).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": markers,
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": merges}})
}

fn marker(id: usize, name: &str) -> Value {
    json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true})
}

/// Letters A to J for the digits, and a last one that says nothing.
fn code_name(index: usize) -> String {
    let letters: String = index.to_string().bytes().map(|digit| (digit - b'0' + b'A') as char).collect();
    format!("IMGIMG{letters}Z")
}

/// `count` strings of letters, with and without a blank (`Ġ`) in front, each one letter longer than one before it.
fn words(count: usize) -> Vec<String> {
    let letters = || ('a'..='z').map(String::from);
    let longer = |shorter: &[String]| -> Vec<String> {
        shorter.iter().flat_map(|s| letters().map(move |l| format!("{s}{l}"))).collect()
    };
    let (mut inside, mut first): (Vec<_>, Vec<_>) = (letters().collect(), longer(&["Ġ".to_string()]));
    let mut words = first.clone();
    while words.len() < count {
        (inside, first) = (longer(&inside), longer(&first));
        words.extend_from_slice(&inside);
        words.extend_from_slice(&first);
    }
    words.truncate(count);
    words
}

fn split_last(word: &str) -> (String, String) {
    let at = word.char_indices().next_back().map_or(0, |(at, _)| at);
    (word[..at].to_string(), word[at..].to_string())
}
