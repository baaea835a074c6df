//! A file that tensors lie in: mapped as a whole, or read a tensor at a time.

use super::header::MAX_HEADER;
use crate::device::memory;
use crate::files::Bytes;
use crate::{Error, Result};
use rayon::prelude::*;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What one thread reads, or adds up, at a time.
const PIECE: usize = 4 << 20;

pub struct Source {
    pub path: PathBuf,
    content: Content,
}

enum Content {
    Whole(Bytes),
    /// Somebody may cut the file off meanwhile: who reads is told so, whereas who had mapped it would be ended by the system.
    File(File),
}

impl Source {
    pub fn whole(path: PathBuf, bytes: Bytes) -> Self {
        Source { path, content: Content::Whole(bytes) }
    }

    /// Opens a safetensors file to be read. Returns with it the bytes up to the end of its header, or a few more, and how many
    /// the file has.
    pub fn open(path: &Path) -> Result<(Self, Vec<u8>, usize)> {
        /// Enough to tell what else a file may be.
        const LEAST: u64 = 64;
        let failed = |e| Error::io(path, e);
        // Looked at before opening, because opening a named pipe would wait for its writer.
        let found = std::fs::metadata(path).map_err(failed)?;
        if !found.is_file() {
            let what = if found.is_dir() { "a folder" } else { "a device or a pipe" };
            return Err(Error::bad_format(path, format!("is {what}; a file is needed")));
        }
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let source = Source { path: path.to_owned(), content: Content::File(file) };
        let claimed = match length {
            0..8 => 0,
            _ => u64::from_le_bytes(source.bytes(0..8)?[..8].try_into().unwrap_or_default()),
        };
        let head = (8 + claimed.min(MAX_HEADER)).max(LEAST).min(length);
        let head = source.bytes(0..head as usize)?.to_vec();
        Ok((source, head, usize::try_from(length).unwrap_or(usize::MAX)))
    }

    /// Some bytes of the file.
    pub fn bytes(&self, range: Range<usize>) -> Result<Bytes> {
        let file = match &self.content {
            Content::Whole(bytes) => return Ok(bytes.part(range)),
            Content::File(file) => file,
        };
        let mut bytes = memory::zeros::<u8>(&self.path, range.len())?;
        let pieces = bytes.par_chunks_mut(PIECE).enumerate();
        let read = pieces.map(|(piece, to)| read_exact_at(file, to, (range.start + piece * PIECE) as u64));
        read.collect::<std::io::Result<()>>().map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::bad_format(&self.path, "was cut off while it was read; get or make the file again")
            }
            _ => Error::io(&self.path, e),
        })?;
        Ok(bytes.into())
    }

    /// Tells the system that what was looked at between these bytes is not needed for now. It had mapped more than that: whole
    /// pages, and around each as many as it holds together.
    pub fn forget(&self, range: Range<usize>) {
        if let Content::Whole(bytes) = &self.content {
            bytes.forget(range);
        }
    }

    /// Whether what is read stays as it is.
    pub fn is_whole(&self) -> bool {
        matches!(self.content, Content::Whole(_))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, to: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut to: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !to.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, to, at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                to = &mut to[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The CRC-32 of some bytes, by all threads.
pub fn check_sum(bytes: &[u8]) -> u32 {
    if bytes.len() <= PIECE {
        return crc32fast::hash(bytes);
    }
    let of = |piece: &[u8]| {
        let mut sum = crc32fast::Hasher::new();
        sum.update(piece);
        sum
    };
    let sums: Vec<_> = bytes.par_chunks(PIECE).map(of).collect();
    let mut all = crc32fast::Hasher::new();
    sums.iter().for_each(|sum| all.combine(sum));
    all.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_whole_however_it_is_divided() {
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i * i % 251) as u8).collect();
        for length in [0, 1, PIECE, PIECE + 1, bytes.len()] {
            assert_eq!(check_sum(&bytes[..length]), crc32fast::hash(&bytes[..length]));
        }
    }

    #[test]
    fn a_file_that_is_cut_off_while_it_is_open_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let content: Vec<u8> = (0..2 * PIECE + 7).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let (source, _, length) = Source::open(&path).unwrap();
        assert_eq!((length, &*source.bytes(3..content.len()).unwrap()), (content.len(), &content[3..]));
        File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert_eq!(*source.bytes(0..100).unwrap(), content[..100]);
        let error = source.bytes(3..content.len()).unwrap_err().to_string();
        assert!(error.contains("cut off") && error.contains(path.to_str().unwrap()), "{error}");
    }
}
