//! Where a model's files come from: a folder, or the library itself.

pub mod checkpoint;
mod entry;
mod pickle;
pub(crate) mod tensor_file;

use crate::device::memory;
use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The largest file that [`Files::text`] reads; the indexes of the largest checkpoints have some hundred KB.
const MAX_TEXT: usize = 16 << 20;

/// The files of one model, by name.
#[derive(Clone, Debug)]
pub enum Files {
    /// A folder in Hugging Face layout.
    Folder(PathBuf),
    /// Files that were compiled into the library: the name that the model is opened by, and its files by theirs.
    Embedded(&'static str, &'static [(&'static str, &'static [u8])]),
}

impl Files {
    /// Whether something is called `name`, be it a file or not: reading it says what is wrong with what is no file, and whether
    /// it may be read.
    pub fn exists(&self, name: &str) -> bool {
        match self {
            Files::Folder(folder) => is_inside(name) && is_there(&folder.join(name)),
            Files::Embedded(_, files) => files.iter().any(|(n, _)| *n == name),
        }
    }

    /// How messages call the file `name`: its path, `embedded:NAME` or `embedded:MODEL/NAME`.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Files::Folder(folder) => folder.join(name),
            Files::Embedded(model, _) => {
                PathBuf::from(format!("{model}{}{name}", if model.ends_with(':') { "" } else { "/" }))
            }
        }
    }

    /// The content of the file `name`. A file of a folder is mapped, not read: it must not be changed or truncated while
    /// the result lives. To replace a model's file, write a new one beside it and rename it.
    pub fn bytes(&self, name: &str) -> Result<Bytes> {
        let path = self.path(name);
        if !is_inside(name) {
            return Err(Error::NotFound { path, message: format!("'{name}' does not name a file inside the model") });
        }
        match self {
            Files::Folder(_) => map(&path),
            Files::Embedded(_, files) => match files.iter().find(|(n, _)| *n == name) {
                Some((_, content)) => Ok(Bytes::new(Content::Static(content), content.len())),
                None => Err(missing(path)),
            },
        }
    }

    /// The content of the file `name`, which must be UTF-8 text.
    pub fn text(&self, name: &str) -> Result<String> {
        let bytes = self.bytes(name)?;
        let path = self.path(name);
        if let Some(message) = foreign(&bytes) {
            return Err(Error::bad_format(path, message));
        }
        if bytes.len() > MAX_TEXT {
            let message = format!("is {} bytes long; a text file of a model has at most {MAX_TEXT}", bytes.len());
            return Err(Error::bad_format(path, message));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => {
                /// The values that a text stands for take some times as much as the text.
                const TIMES: u64 = 16;
                memory::room(&path, text.len() as u64 * TIMES)?;
                Ok(text.to_owned())
            }
            Err(e) => {
                let message =
                    format!("is not UTF-8 text (first wrong byte at {}); get the file again", e.valid_up_to());
                Err(Error::bad_format(path, message))
            }
        }
    }

    /// The names of the files at the top, sorted. Names that are not UTF-8 are left out: no file of a model has one.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut names = match self {
            Files::Folder(folder) => {
                let mut names = Vec::new();
                for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
                    let entry = entry.map_err(|e| Error::io(folder, e))?;
                    names.extend(entry.file_name().into_string().ok());
                }
                names
            }
            Files::Embedded(_, files) => files.iter().map(|(name, _)| name.to_string()).collect(),
        };
        names.sort_unstable();
        Ok(names)
    }
}

/// The content of a file or a part of it: of a memory map, of the library, or bytes that no file holds. Cheap to clone.
#[derive(Clone)]
pub struct Bytes {
    content: Content,
    range: Range<usize>,
}

#[derive(Clone)]
enum Content {
    Static(&'static [u8]),
    Mapped(Arc<Mmap>),
    Own(Arc<Vec<u8>>),
}

impl Bytes {
    fn new(content: Content, length: usize) -> Self {
        Bytes { content, range: 0..length }
    }

    /// A part of these.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn part(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len(), "a part of bytes");
        let (start, content) = (self.range.start, self.content.clone());
        Bytes { content, range: start + range.start..start + range.end }
    }

    /// Tells the system that a part is not needed for now, so that it does not count as this process's memory. It is read from
    /// the file again if it is needed after all.
    #[cfg(unix)]
    pub fn forget(&self, range: Range<usize>) {
        if let Content::Mapped(map) = &self.content {
            let start = self.range.start + range.start;
            // SAFETY: the map is shared, backed by its file and never written, so dropped pages come back with the same content.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, range.len()) };
        }
    }

    /// Elsewhere the system decides by itself.
    #[cfg(not(unix))]
    pub fn forget(&self, _: Range<usize>) {}
}

impl From<Vec<u8>> for Bytes {
    fn from(own: Vec<u8>) -> Self {
        let length = own.len();
        Bytes::new(Content::Own(Arc::new(own)), length)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.content {
            Content::Static(bytes) => bytes,
            Content::Mapped(map) => map,
            Content::Own(own) => own,
        };
        &all[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

fn map(path: &Path) -> Result<Bytes> {
    let found = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing(path.to_owned()),
        _ => Error::io(path, e),
    })?;
    // Looked at before opening, because opening a named pipe would wait for its writer.
    if !found.is_file() {
        let what = if found.is_dir() { "a folder" } else { "a device or a pipe" };
        return Err(Error::bad_format(path, format!("is {what}; a file is needed")));
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is read-only and private to this process. What Rust asks beyond that, that nobody changes the file
    // while the map lives, no program can enforce; it is a documented condition of opening a model (`Files::bytes`).
    // Every reader of the map takes its bytes as hostile numbers, so a changed byte is at worst a wrong weight; a file
    // truncated by somebody else ends the process with SIGBUS, as it does in every program that maps files.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| match e.kind() {
        std::io::ErrorKind::OutOfMemory => memory::none(path, found.len()),
        _ => Error::io(path, e),
    })?;
    let length = map.len();
    Ok(Bytes::new(Content::Mapped(Arc::new(map)), length))
}

fn missing(path: PathBuf) -> Error {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Error::NotFound {
        path,
        message: format!("the model needs the file {name}, which is not there; copy the whole model"),
    }
}

/// Whether there is something under a path, if only a link that leads nowhere or something that may not be looked at.
pub(super) fn is_there(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    !std::fs::symlink_metadata(path).is_err_and(|e| matches!(e.kind(), NotFound | NotADirectory))
}

/// Whether `name` stays inside the folder it is joined to. Names come from index files, too.
pub(super) fn is_inside(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0') && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)))
}

/// Recognises what a failed download leaves where a file of a model should be, and says how to mend it.
pub(super) fn foreign(bytes: &[u8]) -> Option<String> {
    let start = bytes.get(..bytes.len().min(64)).unwrap_or_default();
    if bytes.is_empty() {
        return Some("is empty (0 bytes); get the file again".into());
    }
    if start.starts_with(b"version https://git-lfs") {
        return Some(
            "is a Git LFS pointer, a text that stands for the real file; run `git lfs pull` in the model's folder, \
             or download the file itself"
                .into(),
        );
    }
    let text = start.trim_ascii_start().to_ascii_lowercase();
    if text.starts_with(b"<!doctype") || text.starts_with(b"<html") {
        return Some("is a web page, probably a login or an error page; download the file again".into());
    }
    None
}
