//! The text tokenizer: words to token ids, and token ids by name.

use super::tokenizer_file::{vet, Vetted};
use crate::files::Bytes;
use crate::run::Control;
use crate::{caught, Error, Result};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, RecvTimeoutError};
use std::time::Duration;

/// The text tokenizer of a model, read from `tokenizer.json`.
pub struct Text {
    tokenizer: tokenizers::Tokenizer,
    file: PathBuf,
    vetted: Vetted,
    /// How many words the model has vectors for, once it is known.
    rows: Option<usize>,
}

impl Text {
    /// `file` is named in errors.
    ///
    /// A file's `padding` and `truncation` are ignored, as transformers does unless asked for them, and so is what would stand
    /// around a text (`post_processor`).
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self> {
        let vetted = vet(bytes, file)?;
        let mut tokenizer = caught(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|e| Error::bad_format(file, format!("not a tokenizer: {e}")))?;
        let unset = tokenizer.with_padding(None).with_truncation(None).map(|_| ());
        unset.map_err(|e| Error::bad_format(file, format!("not a tokenizer: {e}")))?;
        tokenizer.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        Ok(Text { tokenizer, file: file.to_owned(), vetted, rows: None })
    }

    /// As [`Text::from_bytes`], and gives up soon after `stop` is cancelled. A large vocabulary takes seconds in one piece, so
    /// another thread reads it; after a cancel it goes on to its end, and nobody waits for it.
    pub fn open(bytes: Bytes, file: &Path, stop: &Control) -> Result<Self> {
        const TICK: Duration = Duration::from_millis(20);
        /// The crate reads parts inside parts by calling itself, some 128 deep.
        const STACK: usize = 16 << 20;
        let (send, receive) = sync_channel(1);
        let (own, name) = (bytes.clone(), file.to_owned());
        let reader = std::thread::Builder::new().name("read-tokenizer".into()).stack_size(STACK).spawn(move || {
            caught::quietly();
            // Whoever waits may be gone.
            let _ = send.send(Text::from_bytes(&own, &name));
        });
        if reader.is_err() {
            return Text::from_bytes(&bytes, file);
        }
        loop {
            match receive.recv_timeout(TICK) {
                Ok(text) => return text,
                Err(RecvTimeoutError::Timeout) => stop.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::bad_format(file, "not a tokenizer: its parts contradict each other"))
                }
            }
        }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The id of a token by its exact name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
    }

    /// The same for a model with so many rows of vectors. Errors if the vocabulary is of another model.
    pub fn of_model(self, rows: usize) -> Result<Self> {
        let words = self.vetted.words;
        // A few words without a row are usual, such as one for padding that was added later.
        if words / 2 > rows {
            let message =
                format!("has {words} words, but the model's vocabulary has {rows}; are the two of one model?");
            return Err(Error::bad_format(&self.file, message));
        }
        Ok(Text { rows: Some(rows), ..self })
    }

    /// The token that stands for a word which the vocabulary does not know.
    pub fn unknown(&self) -> Option<u32> {
        self.id("<unk>")
    }

    /// Adds a word that is found wherever it stands in a text; returns its id.
    pub fn add_word(&mut self, word: &str) -> Option<u32> {
        self.tokenizer.add_special_tokens(&[tokenizers::AddedToken::from(word, true)]);
        self.id(word)
    }

    /// All names with their ids.
    pub fn vocabulary(&self) -> impl Iterator<Item = (String, u32)> {
        self.tokenizer.get_vocab(true).into_iter()
    }

    /// Whether a word is a single one of the vocabulary.
    pub fn knows(&self, word: &str) -> Result<bool> {
        let ids = self.encode(word)?;
        Ok(ids.len() == 1 && Some(ids[0]) != self.unknown())
    }

    /// Token ids of a text; nothing is put in front or behind.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let longest = self.vetted.longest_text;
        if text.len() > longest {
            return Err(Error::invalid(
                "prompt",
                format!("has {} bytes to make tokens of; at most {longest} are read", text.len()),
            ));
        }
        let encoding = caught(|| self.tokenizer.encode_fast(text, false)).map_err(|e| {
            let start: String = text.chars().take(100).collect();
            Error::bad_format(&self.file, format!("the tokenizer failed on {start:?}: {e}"))
        })?;
        let ids = encoding.get_ids();
        if let Some((&id, rows)) = self.rows.and_then(|rows| Some((ids.iter().find(|&&id| id as usize >= rows)?, rows)))
        {
            let name = self.tokenizer.id_to_token(id).unwrap_or_default();
            let message = format!(
                "the word {name:?} has id {id}, but the model's vocabulary has {rows} rows; are the two of one model?"
            );
            return Err(Error::bad_format(&self.file, message));
        }
        Ok(ids.to_vec())
    }
}

/// Calls the tokenizers crate, which panics on some malformed files: version 0.22.2 on every mistake inside a decoder.
fn caught<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its parts contradict each other".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let mut file = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "fox": 2, "<pad>": 3}, "unk_token": "<unk>"}});
        change(&mut file);
        file.to_string().into_bytes()
    }

    fn tokens(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u32> {
        Text::from_bytes(&file(change), Path::new("tokenizer.json")).unwrap().encode("a fox a fox").unwrap()
    }

    #[test]
    fn padding_truncation_and_what_stands_around_a_text_are_not_applied() {
        assert_eq!(tokens(|_| {}), [1, 2, 1, 2]);
        let padding = |strategy, multiple| {
            serde_json::json!({"strategy": strategy, "direction": "Right", "pad_to_multiple_of": multiple,
                "pad_id": 3, "pad_type_id": 0, "pad_token": "<pad>"})
        };
        let null = serde_json::Value::Null;
        assert_eq!(tokens(|f| f["padding"] = padding(serde_json::json!({"Fixed": 1_000_000_000}), null)), [1, 2, 1, 2]);
        let many = serde_json::json!(4_000_000_000u64);
        assert_eq!(tokens(|f| f["padding"] = padding(serde_json::json!("BatchLongest"), many)), [1, 2, 1, 2]);
        let truncation =
            serde_json::json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        assert_eq!(tokens(|f| f["truncation"] = truncation), [1, 2, 1, 2]);
        let thrice = serde_json::json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
        assert_eq!(tokens(|f| f["post_processor"] = thrice), [1, 2, 1, 2]);
    }

    #[test]
    fn parts_inside_parts_end_with_an_error_and_not_with_the_stack() {
        for (part, list) in [
            ("normalizer", "normalizers"),
            ("pre_tokenizer", "pretokenizers"),
            ("decoder", "decoders"),
            ("post_processor", "processors"),
        ] {
            for depth in [10, 60, 120, 5000] {
                let start = format!(r#"{{"type": "Sequence", "{list}": ["#).repeat(depth);
                let rule = format!("{start}{}", "]}".repeat(depth));
                let text = String::from_utf8(file(|_| {})).unwrap().replacen(&format!("\"{part}\":"), "\"unused\":", 1);
                let text = text.replacen('{', &format!("{{\"{part}\": {rule},"), 1);
                let result = Text::open(text.into_bytes().into(), Path::new("tokenizer.json"), &Control::default());
                assert!(matches!(result, Ok(_) | Err(Error::BadFormat { .. })), "{part} {depth}");
            }
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_before_it_is_read() {
        let text = Text::from_bytes(&file(|_| {}), Path::new("tokenizer.json")).unwrap();
        let error = text.encode(&"a ".repeat(1 << 18)).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "prompt"), "{error}");
        assert!(error.to_string().contains("at most 262144"), "{error}");
    }

    /// So many words of 13 letters.
    fn large(words: usize) -> Vec<u8> {
        file(|f| {
            let words = (0..words).map(|i| (format!("word{i:09}"), i.into()));
            f["model"]["vocab"] = words.collect::<serde_json::Map<_, _>>().into();
            f["model"]["vocab"]["<unk>"] = 1_000_000.into();
        })
    }

    #[cfg(unix)]
    #[test]
    fn a_vocabulary_that_does_not_fit_in_memory_is_an_error_that_names_it() {
        use crate::device::memory::tests::with_memory;
        let bytes = large(150_000);
        let name = "a_vocabulary_that_does_not_fit_in_memory_is_an_error_that_names_it";
        let refused = with_memory(name, |_| match Text::from_bytes(&bytes, Path::new("tokenizer.json")) {
            Ok(_) => 0,
            Err(Error::NoMemory { file, .. }) if file == Path::new("tokenizer.json") => 1,
            Err(other) => panic!("{other}"),
        });
        let Some(refused) = refused else { return };
        assert!(refused.first() == Some(&1) && refused.last() == Some(&0), "{refused:?}");
    }

    #[test]
    fn opening_is_cancelled_while_a_large_vocabulary_is_read() {
        let large = large(400_000);
        let stop = Control::default();
        let canceller = stop.clone();
        let asked = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            canceller.cancel();
            std::time::Instant::now()
        });
        let result = Text::open(large.into(), Path::new("tokenizer.json"), &stop);
        let late = asked.join().unwrap().elapsed();
        // On a machine that reads it in no time there is nothing to cancel.
        assert!(matches!(result, Err(Error::Cancelled) | Ok(_)) && late < Duration::from_millis(200), "{late:?}");
    }

    #[test]
    fn a_file_on_which_the_tokenizers_crate_panics_is_an_error() {
        let text = r#"{"version": "1.0", "decoder": {"type": "ByteLevel",, "model": {}}"#;
        let error = Text::from_bytes(text.as_bytes(), Path::new("tokenizer.json")).err().unwrap();
        assert!(matches!(error, Error::BadFormat { .. }) && error.to_string().contains("tokenizer.json"), "{error}");
    }
}
