//! Files that appear whole or not at all: everything that this library saves is written beside its place and renamed.
//!
//! A save goes where the name leads, through symbolic links, and gives the new file the mode of the one that it replaces.
//! Only regular files are replaced. What a killed process left half written goes with the next save to its folder.

use crate::{Error, Result};
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
#[cfg(unix)]
use std::time::Duration;
use std::time::Instant;

/// Writes the file `path` with what `write` writes. A failure leaves what was there.
pub fn save(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let place = Place::of(path)?;
    remove_leftovers(place.folder());
    let mut draft = Draft::new(path, &place)?;
    write(&mut draft.file)?;
    draft.file.sync_all().map_err(|e| Error::io(path, e))?;
    std::fs::rename(&draft.path, &place.target).map_err(|e| Error::io(path, e))?;
    draft.kept = true;
    Ok(())
}

/// Errors if [`save`] could not write the file now; leaves nothing.
pub fn check(path: &Path) -> Result<()> {
    Draft::new(path, &Place::of(path)?).map(drop)
}

/// Removes a saved file, through links as it was saved; one that is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(Place::of(path)?.target) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

/// Where a name leads.
struct Place {
    /// Behind all symbolic links.
    target: PathBuf,
    /// The file that is to be replaced.
    old: Option<Metadata>,
}

impl Place {
    fn of(path: &Path) -> Result<Place> {
        /// As many as Linux follows.
        const MAX_LINKS: usize = 40;
        if path.file_name().is_none() {
            return Err(Error::invalid("path", format!("{} does not name a file", path.display())));
        }
        let refused = |what: &str| {
            let message = format!("is {what}; only regular files are replaced, give another name");
            Error::io(path, std::io::Error::new(std::io::ErrorKind::InvalidInput, message))
        };
        let mut target = path.to_owned();
        for _ in 0..MAX_LINKS {
            let found = match std::fs::symlink_metadata(&target) {
                Ok(found) => found,
                // Also the end of a link that leads nowhere yet.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Place { target, old: None }),
                Err(e) => return Err(Error::io(path, e)),
            };
            if !found.is_symlink() {
                return match found {
                    found if found.is_file() => Ok(Place { target, old: Some(found) }),
                    // As the system says it, by the number that hosts look for.
                    #[cfg(unix)]
                    found if found.is_dir() => Err(Error::io(path, std::io::Error::from_raw_os_error(libc::EISDIR))),
                    #[cfg(not(unix))]
                    found if found.is_dir() => Err(refused("a folder")),
                    _ => Err(refused("a device, a pipe or a socket")),
                };
            }
            let to = std::fs::read_link(&target).map_err(|e| Error::io(path, e))?;
            target = folder_of(&target).join(to);
        }
        Err(refused("a symbolic link in a circle"))
    }

    fn folder(&self) -> &Path {
        folder_of(&self.target)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is being written; gone when this is dropped, unless it was kept.
struct Draft {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Draft {
    /// `path` is how messages call the place.
    fn new(path: &Path, place: &Place) -> Result<Draft> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        /// Names of a process that had the same number before this one.
        const TAKEN: usize = 1000;
        if place.old.is_some() {
            // A file that must not be written must not be replaced either.
            OpenOptions::new().write(true).open(&place.target).map_err(|e| Error::io(path, e))?;
        }
        for _ in 0..TAKEN {
            let name = draft_name(place.target.file_name(), COUNTER.fetch_add(1, Ordering::Relaxed));
            let draft = place.folder().join(name);
            let file = match OpenOptions::new().read(true).write(true).create_new(true).open(&draft) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::NotFound { path: path.to_owned(), message: "its folder does not exist".into() })
                }
                Err(e) => return Err(Error::io(path, e)),
            };
            let draft = Draft { file, path: draft, kept: false };
            if !draft.claim() {
                continue;
            }
            if let Some(old) = &place.old {
                draft.take_after(old).map_err(|e| Error::io(path, e))?;
            }
            return Ok(draft);
        }
        Err(Error::io(path, std::io::ErrorKind::AlreadyExists.into()))
    }

    /// Shows others that the file is at work; false if one took it for a leftover before.
    #[cfg(unix)]
    fn claim(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        // Where there are no locks nobody removes leftovers.
        let _ = self.file.try_lock();
        self.file.metadata().is_ok_and(|found| found.nlink() > 0)
    }

    #[cfg(not(unix))]
    fn claim(&self) -> bool {
        true
    }

    /// Owner, as far as that is allowed, and mode of the file that is to be replaced.
    fn take_after(&self, old: &Metadata) -> std::io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{fchown, MetadataExt};
            let own = self.file.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                let _ = fchown(&self.file, Some(old.uid()), Some(old.gid()));
            }
        }
        self.file.set_permissions(old.permissions())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // The first error is the one to report.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// `.NAME.sitter-BOOT-PROCESS-NUMBER.tmp`: hidden, and nobody else's.
fn draft_name(target: Option<&OsStr>, number: u64) -> String {
    /// Characters that are kept of the name, so that the whole has the 255 bytes that systems allow.
    const KEPT: usize = 45;
    let name: String = target.unwrap_or_default().to_string_lossy().chars().take(KEPT).collect();
    format!(".{name}.sitter-{:08x}-{}-{number}.tmp", boot(), std::process::id())
}

/// Boot and process in the name of a draft.
fn parse_draft_name(name: &str) -> Option<(u32, u32)> {
    let (_, mark) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once(".sitter-")?;
    let mut parts = mark.split('-');
    let (boot, process, number) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some() || boot.len() != 8 || !digits(process) || !digits(number) {
        return None;
    }
    Some((u32::from_str_radix(boot, 16).ok()?, process.parse().ok()?))
}

/// A number that the processes of one machine have in common until it is started anew; 0 if the system tells none.
fn boot() -> u32 {
    std::fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| crc32fast::hash(&id))
}

/// The folder that was looked through last, and when it may be again: a large one takes a while.
static LAST: Mutex<Option<(PathBuf, Instant)>> = Mutex::new(None);

/// Removes what killed processes left in a folder. Whatever stands in the way is no error: it is tried again.
fn remove_leftovers(folder: &Path) {
    /// One part of the time may go into looking through.
    const SHARE: u32 = 100;
    // In a forked child the lock may be held for ever.
    let Ok(mut last) = LAST.try_lock() else { return };
    let begun = Instant::now();
    if last.as_ref().is_some_and(|(before, next)| before == folder && begun < *next) {
        return;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((of_boot, process)) = name.to_str().and_then(parse_draft_name) else { continue };
        if is_leftover(&entry.path(), of_boot, process) {
            log::info!("removing {}, left by a save that did not end", entry.path().display());
            let _ = std::fs::remove_file(entry.path());
        }
    }
    *last = Some((folder.to_owned(), begun + begun.elapsed() * SHARE));
}

/// Whether nobody will go on with a draft. Its writer holds a lock on it, which the system takes back when the process ends,
/// in whatever container it ran. Folders may be shared by machines with file systems that keep locks to themselves: so
/// the writer must also have been of this machine, and be gone, or have been silent for very long.
#[cfg(unix)]
fn is_leftover(path: &Path, of_boot: u32, process: u32) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    const SILENT: Duration = Duration::from_secs(24 * 3600);
    // Never waits, whatever stands there, and does not follow links.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().write(true).custom_flags(flags).open(path) else { return false };
    let Ok(found) = file.metadata() else { return false };
    let gone = of_boot != 0 && of_boot == boot() && !is_alive(process);
    let silent = || found.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|for_long| for_long > SILENT);
    found.is_file() && (gone || silent()) && file.try_lock().is_ok()
}

#[cfg(unix)]
fn is_alive(process: u32) -> bool {
    let Ok(process) = libc::pid_t::try_from(process) else { return true };
    // SAFETY: signal 0 is not sent; the call only looks whether it could be.
    let known = process > 0 && unsafe { libc::kill(process, 0) } == 0;
    known || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Who is at work cannot be seen here.
#[cfg(not(unix))]
fn is_leftover(_: &Path, _: u32, _: u32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn write(path: &Path, text: &str) -> Result<()> {
        save(path, |file| file.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, "first").unwrap();
        let failed = save(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::Cancelled)
        });
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert!(matches!(write(&folder.path().join("no/a"), ""), Err(Error::NotFound { .. })));
        assert!(matches!(write(Path::new(".."), ""), Err(Error::InvalidArgument { .. })));
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn looking_whether_a_file_can_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("a")).unwrap();
        assert!(check(&folder.path().join("no/a")).is_err() && check(folder.path()).is_err());
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_the_mode_is_kept() {
        use std::os::unix::fs::{symlink, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("other/real"), "old").unwrap();
        for mode in [0o600, 0o664] {
            std::fs::set_permissions(at("other/real"), PermissionsExt::from_mode(mode)).unwrap();
            symlink("other/real", at("link")).unwrap();
            symlink(at("link"), at("link to the link")).unwrap();
            write(&at("link to the link"), "new").unwrap();
            assert_eq!(std::fs::read(at("other/real")).unwrap(), b"new");
            assert_eq!(std::fs::metadata(at("other/real")).unwrap().permissions().mode() & 0o777, mode);
            assert!(at("link").is_symlink() && at("link to the link").is_symlink());
            std::fs::remove_file(at("link")).unwrap();
            std::fs::remove_file(at("link to the link")).unwrap();
        }
        // A link to what is not there yet, and one in a circle.
        symlink("other/later", at("link")).unwrap();
        write(&at("link"), "later").unwrap();
        assert_eq!(std::fs::read(at("other/later")).unwrap(), b"later");
        remove(&at("link")).unwrap();
        assert!(at("link").is_symlink() && !at("other/later").exists());
        symlink("circle", at("circle")).unwrap();
        let error = write(&at("circle"), "").unwrap_err().to_string();
        assert!(error.contains("circle") && error.contains("link"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_and_stays() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: a name that ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        for name in ["pipe", "socket"] {
            let path = folder.path().join(name);
            let error = write(&path, "").unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("only regular files"), "{error}");
        }
        assert!(write(Path::new("/dev/null"), "").is_err() && write(folder.path(), "").is_err());
        let kind = |path: &Path| std::fs::symlink_metadata(path).unwrap().file_type();
        assert!(kind(&pipe).is_fifo() && kind(Path::new("/dev/null")).is_char_device());
        assert_eq!(names(folder.path()), ["pipe", "socket"]);
    }

    #[test]
    fn names_as_long_as_can_be_are_saved() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("\u{1f98a}".repeat(63)), "").unwrap();
        write(&folder.path().join("a".repeat(255)), "").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn leftovers_of_killed_processes_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (dead, boot, own) = (ended.id(), boot(), std::process::id());
        let killed = format!(".a.b.sitter-{boot:08x}-{dead}-7.tmp");
        let other_boot = format!(".a.sitter-{:08x}-{dead}-0.tmp", !boot);
        let forgotten = format!(".a.sitter-{:08x}-{dead}-1.tmp", !boot);
        let at_work = format!(".a.sitter-{boot:08x}-{dead}-8.tmp");
        let of_the_living = format!(".a.sitter-{boot:08x}-{own}-999999.tmp");
        let foreign = [format!(".a.{dead}.7.tmp"), ".a.sitter.tmp".into(), format!("a.sitter-{boot:08x}-{dead}-7.tmp")];
        let mut stay = vec![other_boot.clone(), at_work.clone(), of_the_living.clone()];
        stay.extend(foreign);
        for name in stay.iter().chain([&killed, &forgotten]) {
            std::fs::write(at(name), "half").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
        OpenOptions::new().write(true).open(at(&forgotten)).unwrap().set_modified(long_ago).unwrap();
        // As from a container, where the process has another number.
        let working = OpenOptions::new().write(true).open(at(&at_work)).unwrap();
        working.try_lock().unwrap();
        // Another save of this process may be looking through its folder just now.
        let until_gone = |name: &str| {
            for _ in 0..200 {
                write(&at("new"), "whole").unwrap();
                if !at(name).exists() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        until_gone(&killed);
        stay.push("new".into());
        stay.sort();
        assert_eq!(names(folder.path()), stay);
        // Links are not followed, folders not touched.
        drop(working);
        std::fs::create_dir(at(&killed)).unwrap();
        std::os::unix::fs::symlink(at("new"), at(&forgotten)).unwrap();
        until_gone(&at_work);
        assert!(at(&killed).is_dir() && at(&forgotten).is_symlink() && !at(&at_work).exists());
    }
}
