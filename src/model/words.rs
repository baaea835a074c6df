//! Words that stand for subjects, and where they stand in a prompt.

use crate::{Error, Result};
use std::ops::Range;

/// An identifier and the learned vectors that stand for it, rows of all the learned vectors that are in use.
#[derive(Clone, Debug)]
pub struct Word {
    pub identifier: String,
    pub vectors: Range<u32>,
}

/// A stretch of a prompt.
#[derive(Clone, Copy, Debug)]
pub enum Stretch<'a> {
    Text(&'a str),
    Word(&'a Word),
}

/// A text with words in it, in order. A word takes with it the blank before it, which most tokenizers count to the word.
/// Errors if the text names a subject that is not among the words.
pub fn split<'a>(text: &'a str, words: &'a [Word]) -> Result<Vec<Stretch<'a>>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let next = words.iter().filter_map(|w| Some((find_word(rest, &w.identifier)?, w)));
        // The earliest; of two that begin there, the longer.
        let next = next.min_by_key(|(at, w)| (*at, std::cmp::Reverse(w.identifier.len())));
        let (text, word) = match next {
            Some((at, word)) => (rest[..at].strip_suffix(' ').unwrap_or(&rest[..at]), Some((at, word))),
            None => (rest, None),
        };
        if let Some(unknown) = find_identifier(text) {
            let message =
                format!("{unknown} names a subject that was not given; pass its subject, or take it out of the prompt");
            return Err(Error::invalid("prompt", message));
        }
        if !text.is_empty() {
            found.push(Stretch::Text(text));
        }
        let Some((at, word)) = word else { return Ok(found) };
        found.push(Stretch::Word(word));
        rest = &rest[at + word.identifier.len()..];
    }
}

/// Whether `word` stands in the text as a word of its own.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    find_word(text, word).is_some()
}

/// Where `word` stands in the text as a word of its own, first place.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let edge = |a: Option<char>, b: Option<char>| {
        !(a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric))
    };
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        edge(text[..at].chars().next_back(), word.chars().next())
            && edge(word.chars().next_back(), text[at + word.len()..].chars().next())
    })
}

/// The first thing in the text that looks like an identifier: one short word in square brackets.
fn find_identifier(text: &str) -> Option<&str> {
    text.match_indices('[').find_map(|(at, _)| {
        let inner = &text[at + 1..];
        let end = inner.find(']')?;
        let word = &inner[..end];
        let plain = |c: char| c.is_alphanumeric() || "_-*".contains(c);
        (!word.is_empty() && word.chars().count() <= 16 && word.chars().all(plain)).then(|| &text[at..at + end + 2])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_as_whole_words_only() {
        assert_eq!(find_word("a [V] dog", "[V]"), Some(2));
        assert_eq!(find_word("askseb sks dog", "sks"), Some(7));
        assert_eq!(find_word("my sks, please", "sks"), Some(3));
        assert_eq!(find_word("asks", "sks"), None);
        assert_eq!(find_identifier("a [V] dog [W2]"), Some("[V]"));
        assert_eq!(find_identifier("a [two words] ] [ x"), None);
        assert_eq!(find_identifier("a [] dog"), None);
    }

    #[test]
    fn a_text_is_split_at_its_words_which_take_the_blank_before_them() {
        let word = |identifier: &str, row: u32| Word { identifier: identifier.into(), vectors: row..row + 1 };
        let words = [word("[V]", 0), word("[V]2", 1)];
        let read = |text| -> Vec<String> {
            let stretch = |s: &Stretch| match s {
                Stretch::Text(text) => text.to_string(),
                Stretch::Word(word) => format!("#{}", word.vectors.start),
            };
            split(text, &words).unwrap().iter().map(stretch).collect()
        };
        assert_eq!(read("a [V] dog"), ["a", "#0", " dog"]);
        assert_eq!(read("[V]"), ["#0"]);
        assert_eq!(read("a [V]2, [V]"), ["a", "#1", ",", "#0"]);
        assert_eq!(read("a dog"), ["a dog"]);
        let error = split("a [W] dog", &words).unwrap_err().to_string();
        assert!(error.contains("[W] names a subject that was not given"), "{error}");
    }
}
