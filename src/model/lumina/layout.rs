//! The sequence grammar of Lumina-mGPT: which token may stand where, and how a picture becomes tokens.
//!
//! A training sequence is `bos, question, separator | image start, height, width, rows of codes each closed by a
//! newline, image end | separator`; the part behind the first bar is what the model is scored on.

use crate::model::text::Text;
use crate::tokens::Tokens;
use crate::{Error, Result};

/// Size tokens count grid units of two codes, up to this number.
const LARGEST_SIZE: usize = 255;

/// The most codes along a side of a picture.
/// Tokens before the first code of a picture.
pub const HEAD: usize = 3;
pub const LARGEST_GRID: u32 = 2 * LARGEST_SIZE as u32;

/// Token ids by role, all taken from the vocabulary by name.
#[derive(Clone, Debug)]
pub struct Layout {
    pub bos: u32,
    pub separator: u32,
    pub image_start: u32,
    pub image_end: u32,
    pub newline: u32,
    /// Token id of each VQ index.
    code_tokens: Vec<u32>,
    /// Token id of size n (in grid units), where the vocabulary has one; index 0 is never used.
    size_tokens: Vec<Option<u32>>,
    /// Pixels per grid unit: twice the image tokenizer's downsampling.
    unit: u32,
}

impl Layout {
    /// Finds every role in the vocabulary. `codebook` is the image tokenizer's number of codes, `downsampling` its
    /// pixels per code, `vocab_size` the number of rows that the transformer has.
    pub fn new(text: &Text, codebook: usize, downsampling: u32, vocab_size: usize) -> Result<Self> {
        let mut code_tokens = vec![None; codebook];
        let mut size_tokens = vec![None; LARGEST_SIZE + 1];
        for (name, id) in text.vocabulary() {
            if let Some(index) = code_of_name(&name) {
                let slot = code_tokens.get_mut(index).ok_or_else(|| {
                    Error::bad_format(
                        text.file(),
                        format!("token {name} stands for VQ index {index}, but the image tokenizer has only {codebook} codes"),
                    )
                })?;
                if let Some(other) = slot.replace(id) {
                    let message = format!("tokens {other} and {id} both stand for VQ index {index}");
                    return Err(Error::bad_format(text.file(), message));
                }
            } else if let Some(n) = size_of_name(&name) {
                size_tokens[n] = Some(id);
            }
        }
        let code_tokens = code_tokens
            .into_iter()
            .enumerate()
            .map(|(index, id)| {
                id.ok_or_else(|| {
                    Error::bad_format(
                        text.file(),
                        format!(
                            "no IMGIMG token stands for VQ index {index} (the image tokenizer has {codebook} codes)"
                        ),
                    )
                })
            })
            .collect::<Result<Vec<u32>>>()?;
        let need = |name: &str, role: &str| {
            let message = || format!("the vocabulary has no token {name} ({role}); is this a Lumina-mGPT tokenizer?");
            text.id(name).ok_or_else(|| Error::bad_format(text.file(), message()))
        };
        // `config.json` may still say bos 1, which is the padding token; the vocabulary knows better.
        let layout = Layout {
            bos: need("<s>", "start of sequence")?,
            separator: need("<reserved08706>", "separator")?,
            image_start: need("<racm3:break>", "start of image")?,
            image_end: need("<eoss>", "end of image")?,
            newline: need("<reserved08799>", "end of an image row")?,
            code_tokens,
            size_tokens,
            unit: 2 * downsampling,
        };
        let roles = [layout.bos, layout.separator, layout.image_start, layout.image_end, layout.newline];
        let largest = roles.iter().chain(&layout.code_tokens).chain(layout.size_tokens.iter().flatten()).max();
        if let Some(&id) = largest.filter(|&&id| id as usize >= vocab_size) {
            let message = format!("token id {id} is outside the transformer's vocabulary of {vocab_size}");
            return Err(Error::bad_format(text.file(), message));
        }
        Ok(layout)
    }

    /// Pixels per grid unit; pictures have sides that are multiples of it.
    pub fn unit(&self) -> u32 {
        self.unit
    }

    /// The most pixels along a side of a picture: of the largest size that the vocabulary has a word for.
    pub fn largest_side(&self) -> u32 {
        self.size_tokens.iter().rposition(Option::is_some).unwrap_or(0) as u32 * self.unit
    }

    /// Token id of each VQ index, in order.
    pub fn code_tokens(&self) -> &[u32] {
        &self.code_tokens
    }

    /// The grid (height, width in codes) of a picture of `width` x `height` pixels.
    pub fn grid(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        for (field, side) in [("width", width), ("height", height)] {
            if side == 0 || !side.is_multiple_of(self.unit) {
                return Err(Error::invalid(
                    field,
                    format!("{side} is not a positive multiple of {} pixels", self.unit),
                ));
            }
            self.size_token(field, side / self.unit)?;
        }
        Ok((height / self.unit * 2, width / self.unit * 2))
    }

    fn size_token(&self, field: &str, n: u32) -> Result<u32> {
        self.size_tokens.get(n as usize).copied().flatten().ok_or_else(|| {
            let (pixels, largest) = (n * self.unit, self.largest_side());
            let message = format!("{pixels} pixels have no size token in this model; the largest is {largest} pixels");
            Error::invalid(field, message)
        })
    }

    /// Pixels of a grid: (width, height).
    pub fn pixels(&self, tokens: &Tokens) -> (u32, u32) {
        (tokens.width() * self.unit / 2, tokens.height() * self.unit / 2)
    }

    /// The tokens that open a picture of a grid: image start, height, width.
    pub fn image_head(&self, height: u32, width: u32) -> Result<[u32; HEAD]> {
        for (field, side) in [("height", height), ("width", width)] {
            if side == 0 || !side.is_multiple_of(2) {
                return Err(Error::invalid(field, format!("a grid of {side} codes; expected a positive even number")));
            }
        }
        Ok([self.image_start, self.size_token("height", height / 2)?, self.size_token("width", width / 2)?])
    }

    /// All tokens of a picture, image start to image end: 4 + h (w + 1) of them.
    pub fn image_block(&self, tokens: &Tokens) -> Result<Vec<u32>> {
        let mut block = self.image_head(tokens.height(), tokens.width())?.to_vec();
        for row in tokens.codes().chunks_exact(tokens.width() as usize) {
            for &code in row {
                let id = self.code_tokens.get(code as usize).ok_or_else(|| {
                    let message = format!("VQ index {code} is outside the codebook of {}", self.code_tokens.len());
                    Error::invalid("tokens", message)
                })?;
                block.push(*id);
            }
            block.push(self.newline);
        }
        block.push(self.image_end);
        Ok(block)
    }

    /// The grid in a list of tokens as [`Layout::image_block`] makes it; image start and end may be left out.
    pub fn read_image_block(&self, block: &[u32]) -> Result<Tokens> {
        let wrong = |message: String| Error::invalid("tokens", message);
        let inner = block.strip_prefix(&[self.image_start]).unwrap_or(block);
        let inner = inner.strip_suffix(&[self.image_end]).unwrap_or(inner);
        let size = |at: usize| {
            let id = *inner.get(at).ok_or_else(|| wrong("the size tokens are missing".into()))?;
            let n = self.size_tokens.iter().position(|&t| t == Some(id));
            n.map(|n| 2 * n as u32).ok_or_else(|| wrong(format!("token {id} stands where a size token is expected")))
        };
        let (height, width) = (size(0)?, size(1)?);
        let rows = &inner[2..];
        let expected = height as usize * (width as usize + 1);
        if rows.len() != expected {
            return Err(wrong(format!(
                "{} tokens follow the size tokens; a {height} x {width} grid has {expected}",
                rows.len()
            )));
        }
        let mut codes = Vec::with_capacity(height as usize * width as usize);
        for row in rows.chunks_exact(width as usize + 1) {
            for &id in &row[..width as usize] {
                let index = self.code_tokens.iter().position(|&t| t == id);
                codes.push(index.ok_or_else(|| wrong(format!("token {id} is not an image code")))? as u32);
            }
            if row[width as usize] != self.newline {
                return Err(wrong(format!("token {} stands where a row must end", row[width as usize])));
            }
        }
        Tokens::new(height, width, codes)
    }
}

/// The VQ index in a name like `IMGIMGBACDZ`: letters A to J are digits, the last character is dropped.
fn code_of_name(name: &str) -> Option<usize> {
    let letters = name.strip_prefix("IMGIMG")?;
    let (letters, _last) = letters.split_at_checked(letters.len().checked_sub(1)?)?;
    let digits: String = letters
        .chars()
        .map(|c| match c {
            'A'..='J' => (b'0' + (c as u8 - b'A')) as char,
            other => other,
        })
        .collect();
    digits.parse().ok()
}

/// The number n of grid units in a size token `<reserved{8800+n}>`.
fn size_of_name(name: &str) -> Option<usize> {
    let number: usize = name.strip_prefix("<reserved")?.strip_suffix('>')?.parse().ok()?;
    number.checked_sub(8800).filter(|n| (1..=LARGEST_SIZE).contains(n))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::Path;

    /// A word-level vocabulary in Lumina's naming, `codes` codes, ids in Lumina's order.
    pub(crate) fn vocabulary(codes: usize, words: &[&str]) -> serde_json::Map<String, serde_json::Value> {
        let letters = |i: usize| i.to_string().bytes().map(|b| (b - b'0' + b'A') as char).collect::<String>();
        let names = ["<s>", "<pad>", "</s>", "<unk>"].map(String::from).into_iter();
        let names = names.chain((0..codes).map(|i| format!("IMGIMG{}Z", letters(i))));
        let names = names.chain(["<eoss>", "<racm3:break>", "<reserved08706>", "<reserved08799>"].map(String::from));
        let names = names.chain((1..=8).map(|n| format!("<reserved{:05}>", 8800 + n)));
        let names = names.chain(words.iter().map(|w| w.to_string()));
        names.enumerate().map(|(i, n)| (n, i.into())).collect()
    }

    pub(crate) fn text(vocabulary: serde_json::Map<String, serde_json::Value>) -> Text {
        let json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}});
        Text::from_bytes(json.to_string().as_bytes(), Path::new("tokenizer.json")).unwrap()
    }

    fn layout() -> Layout {
        Layout::new(&text(vocabulary(16, &["a"])), 16, 8, 64).unwrap()
    }

    #[test]
    fn names_give_the_ids_of_the_fact_sheet() {
        let layout = layout();
        assert_eq!((layout.bos, layout.image_end, layout.image_start), (0, 20, 21));
        assert_eq!((layout.separator, layout.newline), (22, 23));
        assert_eq!(layout.code_tokens(), (4..20).collect::<Vec<u32>>());
        assert_eq!(code_of_name("IMGIMGIBJBZ"), Some(8191));
        assert_eq!(code_of_name("IMGIMGAZ"), Some(0));
        assert_eq!(code_of_name("IMGIMG"), None);
        assert_eq!(size_of_name("<reserved08824>"), Some(24));
        assert_eq!(size_of_name("<reserved08799>"), None);
    }

    #[test]
    fn an_image_block_is_height_first_and_every_row_ends_in_a_newline() {
        let layout = layout();
        let tokens = Tokens::new(2, 4, vec![0, 1, 2, 3, 12, 13, 14, 15]).unwrap();
        let block = layout.image_block(&tokens).unwrap();
        assert_eq!(block, [21, 24, 25, 4, 5, 6, 7, 23, 16, 17, 18, 19, 23, 20]);
        assert_eq!(layout.read_image_block(&block).unwrap(), tokens);
        assert_eq!(layout.read_image_block(&block[1..13]).unwrap(), tokens);
        assert_eq!(layout.grid(32, 16).unwrap(), (2, 4));
        assert_eq!(layout.pixels(&tokens), (32, 16));
    }

    #[test]
    fn malformed_blocks_and_sizes_are_refused() {
        let layout = layout();
        let block = layout.image_block(&Tokens::new(2, 2, vec![1, 2, 3, 4]).unwrap()).unwrap();
        for at in 1..block.len() - 1 {
            let mut broken = block.clone();
            broken[at] = 22;
            assert!(layout.read_image_block(&broken).is_err(), "token {at}");
            broken.remove(at);
            assert!(layout.read_image_block(&broken).is_err(), "token {at} left out");
        }
        assert!(layout.image_block(&Tokens::new(2, 2, vec![1, 2, 3, 16]).unwrap()).is_err());
        assert!(layout.grid(24, 16).unwrap_err().to_string().contains("multiple of 16"));
        assert!(layout.grid(160, 16).unwrap_err().to_string().contains("largest is 128"));
    }

    #[test]
    fn the_code_map_must_be_a_bijection_inside_the_vocabulary() {
        let mut missing = vocabulary(16, &[]);
        missing.remove("IMGIMGFZ");
        let error = Layout::new(&text(missing), 16, 8, 64).unwrap_err().to_string();
        assert!(error.contains("VQ index 5"), "{error}");

        let mut twice = vocabulary(16, &[]);
        twice.insert("IMGIMGFY".into(), 60.into());
        let error = Layout::new(&text(twice), 16, 8, 64).unwrap_err().to_string();
        assert!(error.contains("both stand for VQ index 5"), "{error}");

        let error = Layout::new(&text(vocabulary(17, &[])), 16, 8, 64).unwrap_err().to_string();
        assert!(error.contains("only 16 codes"), "{error}");
        let error = Layout::new(&text(vocabulary(16, &[])), 16, 8, 30).unwrap_err().to_string();
        assert!(error.contains("outside the transformer's vocabulary"), "{error}");
        let mut nameless = vocabulary(16, &[]);
        nameless.remove("<eoss>");
        let error = Layout::new(&text(nameless), 16, 8, 64).unwrap_err().to_string();
        assert!(error.contains("<eoss>"), "{error}");
    }
}
