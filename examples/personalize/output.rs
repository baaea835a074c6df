//! The folder that everything goes to: one run's alone.

use sitter::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// What a run without `--out` is called, and with a number behind it where that is taken.
const DEFAULT: &str = "sitter-out";
pub const SUBJECT: &str = "subject.safetensors";
pub const SHEET: &str = "contact_sheet.png";

/// A folder that this run alone writes to, as long as this is held.
pub struct Output {
    folder: PathBuf,
    /// It was not there before.
    made: bool,
    /// Not let go of before the end. None where folders cannot be locked.
    _lock: Option<File>,
}

/// Why a folder is not taken.
enum Taken {
    InUse,
    Holds(String),
}

impl Output {
    /// The folder that was asked for, or else a new one. `keeps_subject` is whether a subject file that is there already is
    /// left alone.
    pub fn claim(asked: Option<&Path>, keeps_subject: bool) -> Result<Self> {
        let Some(folder) = asked else { return Self::numbered(Path::new(DEFAULT), keeps_subject) };
        Self::try_claim(folder, keeps_subject)?.map_err(|taken| {
            let folder = folder.display();
            let message = match taken {
                Taken::InUse => format!("another run writes to {folder} just now; name another folder"),
                Taken::Holds(file) => {
                    format!(
                        "{folder} holds {file} of an earlier run; name another folder, or move that run's files away"
                    )
                }
            };
            Error::invalid("--out", message)
        })
    }

    /// `base`, or the first of `base-2`, `base-3` and so on that is free.
    fn numbered(base: &Path, keeps_subject: bool) -> Result<Self> {
        for n in 1..10_000 {
            let mut folder = base.as_os_str().to_owned();
            if n > 1 {
                folder.push(format!("-{n}"));
            }
            if let Ok(output) = Self::try_claim(Path::new(&folder), keeps_subject)? {
                return Ok(output);
            }
        }
        let message = format!("{} and all its numbers are taken; name another folder", base.display());
        Err(Error::invalid("--out", message))
    }

    fn try_claim(folder: &Path, keeps_subject: bool) -> Result<std::result::Result<Self, Taken>> {
        let made = !folder.exists();
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let lock = File::open(folder).ok();
        if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock) {
            return Ok(Err(Taken::InUse));
        }
        let output = Output { folder: folder.to_owned(), made, _lock: lock };
        // What cannot be written to is noticed now and not when there is something to be saved.
        tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_result(&name) && !(keeps_subject && name == SUBJECT) {
                return Ok(Err(Taken::Holds(name)));
            }
        }
        Ok(Ok(output))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // A run that came to nothing leaves nothing. Folders with something in them stay.
        if self.made {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

/// The name of a picture: its number and the words of its prompt.
pub fn picture_name(number: usize, prompt: &str) -> String {
    let words: String = prompt.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let words: Vec<&str> = words.split('_').filter(|w| !w.is_empty()).collect();
    let short: String = words.join("_").chars().take(60).collect();
    format!("{number:03}_{short}.png")
}

/// Whether a file has a name that this program gives.
fn is_result(name: &str) -> bool {
    let numbered = |name: &str| {
        let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        digits >= 3 && name[digits..].starts_with('_') && name.ends_with(".png")
    };
    name == SUBJECT || name == SHEET || numbered(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(folder: &Path, keeps_subject: bool) -> String {
        Output::claim(Some(folder), keeps_subject).map_or_else(|e| e.to_string(), |_| "free".into())
    }

    #[test]
    fn a_folder_with_results_in_it_is_refused_and_one_with_other_files_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["1.png", "12_a.png", "notes.txt", "fox.safetensors", "\u{fc}\u{fc}"] {
            std::fs::write(file(name), "").unwrap();
        }
        assert_eq!(claim(folder.path(), false), "free");
        for name in [&picture_name(1, "a [V] fox"), &picture_name(1000, ""), SUBJECT, SHEET] {
            std::fs::write(file(name), "").unwrap();
            let said = claim(folder.path(), false);
            assert!(said.starts_with("--out: ") && said.contains(name) && said.contains("another folder"), "{said}");
            assert_eq!(claim(folder.path(), true) == "free", name == SUBJECT, "{name}");
            std::fs::remove_file(file(name)).unwrap();
        }
    }

    #[test]
    fn a_folder_that_another_run_writes_to_is_refused_until_that_ends() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        let first = Output::claim(Some(&folder), false).unwrap();
        let said = claim(&folder, true);
        assert!(said.contains("another run"), "{said}");
        std::fs::write(first.file("notes"), "").unwrap();
        drop(first);
        assert_eq!(claim(&folder, false), "free");
    }

    #[test]
    fn without_a_name_the_next_free_number_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().join("out");
        let next = || Output::numbered(&base, false).unwrap();
        let first = next();
        assert_eq!(first.folder(), base);
        let second = next();
        assert_eq!(second.folder(), place.path().join("out-2"));
        std::fs::write(first.file(SHEET), "").unwrap();
        drop((first, second));
        let third = next();
        assert_eq!(third.folder(), place.path().join("out-2"), "the second left nothing behind");
        assert_eq!(next().folder(), place.path().join("out-3"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_noticed_at_once() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(claim(&file, false).contains("file"));
        assert!(claim(Path::new("/proc/nowhere"), false).contains("/proc/nowhere"));
    }
}
