//! The memory of the host: how much this process could still have, and taking it so that a refusal is an error.
//!
//! A process ends when it takes more than there is, be that the machine's memory, a limit that was set for the process
//! (`ulimit -v`, `ulimit -d`), or one of the control groups around it, which is how containers are limited. So what counts is
//! the smallest of all of them.

use crate::{Error, Result};
use half::bf16;
use std::path::{Path, PathBuf};

/// Bytes that could still be had, as far as the system tells.
pub fn free() -> Option<u64> {
    free_under(Path::new("/")).into_iter().chain(limits()).min()
}

/// Errors unless so many bytes could be had now. For libraries that take memory without asking: they are called only if what they
/// will take is there. `file` is what the memory is for.
pub fn room(file: &Path, bytes: u64) -> Result<()> {
    /// So little that asking the system for its numbers would take longer than what the memory is for.
    const LITTLE: u64 = 4 << 20;
    let there = bytes <= LITTLE || free().is_none_or(|free| bytes <= free);
    // What the system says may be old by now, or not all there is to say.
    match there && given(bytes) {
        true => Ok(()),
        false => Err(none(file, bytes)),
    }
}

/// Asks for the memory itself, and gives it back untouched.
#[cfg(unix)]
fn given(bytes: u64) -> bool {
    let Ok(length @ 1..) = usize::try_from(bytes) else { return bytes == 0 };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at a place that the system chooses, which nobody else knows and which is given back at once.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0);
        start != libc::MAP_FAILED && libc::munmap(start, length) == 0
    }
}

#[cfg(not(unix))]
fn given(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok())
}

/// An empty vector with room for so many values.
pub fn reserved<T>(file: &Path, count: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    match all.try_reserve_exact(count) {
        Ok(()) => Ok(all),
        Err(_) => Err(none(file, (count as u64).saturating_mul(size_of::<T>() as u64))),
    }
}

/// So many zeros, which take no time to write.
pub fn zeros<T: Zero>(file: &Path, count: usize) -> Result<Vec<T>> {
    let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
    let layout = std::alloc::Layout::array::<T>(count).map_err(|_| none(file, bytes))?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout is not of size 0.
    let start = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<T>();
    if start.is_null() {
        return Err(none(file, bytes));
    }
    // SAFETY: the global allocator gave `start` for an array of `count` values, whose bytes are 0, which is a value of `T`.
    Ok(unsafe { Vec::from_raw_parts(start, count, count) })
}

/// Numbers whose zero has only zero bits.
///
/// # Safety
/// A value of this type may consist of zero bits.
pub unsafe trait Zero: Copy {}

// SAFETY: any bits are a value.
unsafe impl Zero for u8 {}
// SAFETY: zero bits are +0.
unsafe impl Zero for f32 {}
// SAFETY: zero bits are +0.
unsafe impl Zero for bf16 {}

/// The error of memory that could not be had.
pub fn none(file: &Path, bytes: u64) -> Error {
    Error::NoMemory { file: file.to_owned(), bytes }
}

/// What the machine and the control groups leave, by the files of the system under `root`.
fn free_under(root: &Path) -> Option<u64> {
    [machine(root), groups(root)].into_iter().flatten().min()
}

/// Linux's own estimate of what can be had without swapping, which other systems do not make.
fn machine(root: &Path) -> Option<u64> {
    kilobytes(&std::fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemAvailable:")
}

/// A line such as `VmSize:   1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the limits of this process leave: of its addresses, and of its private data.
#[cfg(unix)]
fn limits() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let left = |resource, used: &[&str]| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit is written to a place of this function.
        if unsafe { libc::getrlimit(resource, &mut limit) } != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
            return None;
        }
        let used: u64 = used.iter().filter_map(|name| kilobytes(&status, name)).sum();
        Some(limit.rlim_cur.saturating_sub(used))
    };
    [left(libc::RLIMIT_AS, &["VmSize:"]), left(libc::RLIMIT_DATA, &["VmData:"])].into_iter().flatten().min()
}

#[cfg(not(unix))]
fn limits() -> Option<u64> {
    None
}

/// What the tightest control group around this process leaves.
fn groups(root: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let (groups, mounts) = (read("proc/self/cgroup")?, read("proc/self/mountinfo")?);
    let mut free = None;
    for line in groups.lines() {
        // `0::/path` in version 2, `4:cpu,memory:/path` in version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => &V2,
            _ if controllers.split(',').any(|c| c == "memory") => &V1,
            _ => continue,
        };
        let Some((mount, top)) = mounts.lines().find_map(|mount| version.mounted(mount)) else { continue };
        let mount = root.join(mount.strip_prefix("/").unwrap_or(&mount));
        // In a container the top of what is mounted may be its own group, or the path may lead out of it.
        let inside = Path::new(path).strip_prefix(&top).unwrap_or(Path::new(""));
        let inside: PathBuf =
            inside.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
        // A group has no more than those around it.
        let left = inside.ancestors().filter_map(|group| version.left(&mount.join(group)));
        free = free.into_iter().chain(left).min();
    }
    free
}

/// How one of the two versions of control groups names things.
struct Version {
    filesystem: &'static str,
    /// Among the options of what is mounted.
    option: Option<&'static str>,
    limits: &'static [&'static str],
    usage: &'static str,
    /// Parts of the usage that are copies of files, which the system drops when memory is needed.
    cache: [&'static str; 2],
}

const V2: Version = Version {
    filesystem: "cgroup2",
    option: None,
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    cache: ["inactive_file ", "active_file "],
};

const V1: Version = Version {
    filesystem: "cgroup",
    option: Some("memory"),
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    cache: ["total_inactive_file ", "total_active_file "],
};

impl Version {
    /// Where a line of `mountinfo` has it mounted, and which group is at the top there.
    fn mounted(&self, line: &str) -> Option<(PathBuf, PathBuf)> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let filesystem = kind.next()?;
        let options = kind.nth(1).unwrap_or_default();
        let fits = self.option.is_none_or(|wanted| options.split(',').any(|option| option == wanted));
        if filesystem != self.filesystem || !fits {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (top, place) = (fields.next()?, fields.next()?);
        Some((place.into(), top.into()))
    }

    /// What the group in a folder leaves; none if it is not limited.
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = self.limits.iter().filter_map(|name| number(name)).min()?;
        let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = |name: &str| stat.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
        let cache = self.cache.iter().filter_map(|name| cached(name)).sum();
        Some(limit.saturating_sub(number(self.usage).unwrap_or(0).saturating_sub(cache)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tempfile::TempDir;

    /// Calls `work` in processes that may take some megabytes more than they have, from few to many, and gives what it counted in
    /// each; None inside such a process, which is this program again with the test `name` alone. A process that is ended by
    /// what it does is a failure.
    #[cfg(unix)]
    pub(crate) fn with_memory(name: &str, work: impl Fn(u64) -> usize) -> Option<Vec<usize>> {
        const MEGABYTES: [u64; 10] = [4, 16, 40, 64, 90, 128, 180, 256, 400, 1024];
        const VARIABLE: &str = "SITTER_TEST_MEGABYTES";
        if let Ok(megabytes) = std::env::var(VARIABLE) {
            let megabytes: u64 = megabytes.parse().unwrap();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let bytes = kilobytes(&status, "VmSize:").unwrap() + (megabytes << 20);
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            // SAFETY: the limit lives through the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            println!("counted {}.", work(megabytes));
            return None;
        }
        if !cfg!(target_os = "linux") {
            return None;
        }
        let run = |megabytes: u64| {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args([name, "--nocapture", "--test-threads=1"]).env(VARIABLE, megabytes.to_string());
            let output = child.output().unwrap();
            let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "with {megabytes} MB: {:?}\n{said}\n{complaint}", output.status);
            let count = said.split_once("counted ").and_then(|(_, rest)| rest.split_once('.'));
            count.unwrap_or_else(|| panic!("{name} did not run: {said}")).0.parse().unwrap()
        };
        Some(MEGABYTES.into_iter().map(run).collect())
    }

    /// A system of which only these files are there.
    fn system(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
    const MOUNT2: (&str, &str) = (
        "proc/self/mountinfo",
        "21 1 0:2 / / rw - ext4 /dev/x rw\n30 21 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
    );

    #[test]
    fn without_limits_it_is_what_the_machine_has() {
        let root = system(&[MEMINFO, ("proc/self/cgroup", "0::/a\n"), MOUNT2, ("sys/fs/cgroup/a/memory.max", "max\n")]);
        assert_eq!(free_under(root.path()), Some(8000 << 10));
        assert_eq!(free_under(system(&[]).path()), None);
    }

    #[test]
    fn the_tightest_group_around_the_process_counts() {
        let root = system(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            MOUNT2,
            ("sys/fs/cgroup/a/b/memory.max", "max"),
            ("sys/fs/cgroup/a/memory.max", "5000000\n"),
            ("sys/fs/cgroup/a/memory.current", "3000000\n"),
            // Of which these are copies of files.
            ("sys/fs/cgroup/a/memory.stat", "anon 1\nactive_file 400000\ninactive_file 600000\nunevictable 7\n"),
        ]);
        assert_eq!(free_under(root.path()), Some(3_000_000));
        std::fs::write(root.path().join("sys/fs/cgroup/a/b/memory.high"), "1000000").unwrap();
        assert_eq!(free_under(root.path()), Some(1_000_000));
        std::fs::write(root.path().join("sys/fs/cgroup/a/b/memory.current"), "2000000").unwrap();
        assert_eq!(free_under(root.path()), Some(0), "over its limit already");
    }

    #[test]
    fn groups_of_the_first_version_count_too_also_those_of_a_container() {
        let mounts = "30 21 0:26 /docker/x /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 21 0:27 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let root = system(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu:/docker/x\n4:memory:/docker/x/job\n"),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "500"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000000"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500000"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 500000\n"),
        ]);
        assert_eq!(free_under(root.path()), Some(3_000_000));
        // A path that leads out of what is mounted.
        std::fs::write(root.path().join("proc/self/cgroup"), "4:memory:/../elsewhere\n").unwrap();
        assert_eq!(free_under(root.path()), Some(3_000_000));
    }

    #[cfg(unix)]
    #[test]
    fn a_limit_of_the_process_counts() {
        // What was given back since the limit was set may be a little.
        let counts = |megabytes: u64| usize::from(free().is_some_and(|free| free <= (megabytes + 1) << 20));
        let Some(counted) = with_memory("a_limit_of_the_process_counts", counts) else { return };
        assert_eq!(counted, vec![1; counted.len()]);
    }

    #[test]
    fn what_cannot_be_had_is_an_error_that_names_file_and_bytes() {
        let file = Path::new("picture.png");
        assert_eq!(zeros::<f32>(file, 5).unwrap(), [0.0; 5]);
        assert!(zeros::<u8>(file, 0).unwrap().is_empty());
        assert!(reserved::<u64>(file, 9).unwrap().capacity() >= 9);
        assert!(room(file, 1 << 20).is_ok());
        let refused =
            [room(file, 1 << 60), zeros::<f32>(file, 1 << 58).map(drop), reserved::<u16>(file, 1 << 59).map(drop)];
        for error in refused.map(Result::unwrap_err) {
            let said = error.to_string();
            assert!(matches!(error, Error::NoMemory { .. }), "{said}");
            assert!(said.contains("picture.png") && said.contains("1152921504606846976"), "{said}");
        }
        assert!(zeros::<f32>(file, usize::MAX).is_err());
    }
}
