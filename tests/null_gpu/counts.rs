//! What the pretended GPU was asked for, see gpu.c.

use std::ffi::{c_char, c_void, CStr};
use std::ops::Sub;

/// Calls, or bytes where it says so, since the program began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    pub launches: u64,
    pub products: u64,
    /// Arithmetic of the products.
    pub operations: u64,
    pub uploads: u64,
    pub uploaded_bytes: u64,
    pub downloads: u64,
    pub downloaded_bytes: u64,
    /// From memory of the device to memory of the device.
    pub copies: u64,
    pub copied_bytes: u64,
    pub fills: u64,
    pub allocations: u64,
    pub synchronisations: u64,
    /// Bytes copied from or to memory of the host that the system may move: whoever asks for it waits.
    pub movable_bytes: u64,
    pub live_bytes: u64,
    /// The most that was live since this was read last.
    pub peak_bytes: u64,
    pub reserved_bytes: u64,
}

impl Sub for Counts {
    type Output = Counts;

    /// What came between; live, peak and reserved memory are those at the end.
    fn sub(self, before: Counts) -> Counts {
        Counts {
            launches: self.launches - before.launches,
            products: self.products - before.products,
            operations: self.operations - before.operations,
            uploads: self.uploads - before.uploads,
            uploaded_bytes: self.uploaded_bytes - before.uploaded_bytes,
            downloads: self.downloads - before.downloads,
            downloaded_bytes: self.downloaded_bytes - before.downloaded_bytes,
            copies: self.copies - before.copies,
            copied_bytes: self.copied_bytes - before.copied_bytes,
            fills: self.fills - before.fills,
            allocations: self.allocations - before.allocations,
            synchronisations: self.synchronisations - before.synchronisations,
            movable_bytes: self.movable_bytes - before.movable_bytes,
            ..self
        }
    }
}

fn function(name: &CStr) -> *mut c_void {
    // SAFETY: both are NUL-terminated; the library was loaded when the GPU was opened and stays.
    let found = unsafe {
        let gpu = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY);
        assert!(!gpu.is_null(), "run this by tools/cuda/null.sh");
        libc::dlsym(gpu, name.as_ptr())
    };
    assert!(!found.is_null(), "{name:?}: the GPU is not the pretended one; run this by tools/cuda/null.sh");
    found
}

/// The counts so far; the peak begins anew.
pub fn counts() -> Counts {
    let mut counts = Counts::default();
    // SAFETY: gpu.c declares the function so, and writes numbers of 64 bits in the order of the fields.
    unsafe {
        let read: extern "C" fn(*mut Counts) = std::mem::transmute(function(c"null_gpu_counts"));
        read(&mut counts);
    }
    counts
}

/// Launches since this was asked last, the most frequent kernel first.
pub fn launches() -> Vec<(u64, String)> {
    let mut text = vec![0 as c_char; 1 << 16];
    // SAFETY: gpu.c declares the function so; it writes at most that many bytes, with a NUL at their end.
    let text = unsafe {
        let read: extern "C" fn(*mut c_char, usize) = std::mem::transmute(function(c"null_gpu_launches"));
        read(text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr())
    };
    let line = |line: &str| line.split_once(' ').map(|(n, name)| (n.parse().unwrap(), name.to_string()));
    let mut all: Vec<(u64, String)> = text.to_str().unwrap().lines().filter_map(line).collect();
    all.sort_by(|a, b| b.cmp(a));
    all
}
