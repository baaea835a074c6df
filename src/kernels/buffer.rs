//! Memory for results, and for what is forgotten at the end of a piece of work.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};

/// Numbers with no meaning, from the beginning of a line of the cache on: what this thread used for an earlier piece of work, so that
/// memory is not asked for, cleared and given back with each.
pub struct Scratch {
    numbers: Vec<f32>,
    range: Range<usize>,
}

thread_local! {
    /// Last used, first taken: pieces of work inside each other find the sizes that they had before.
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    pub fn of(n: usize) -> Self {
        let mut numbers = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        if numbers.len() < n + LINE {
            numbers = zeros(n + LINE);
        }
        let start = line(&numbers);
        Scratch { numbers, range: start..start + n }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[self.range.clone()]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.range.clone()]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A large one would stay as long as the thread does.
        const KEPT: usize = 1 << 20;
        if self.numbers.len() <= KEPT {
            FREE.with_borrow_mut(|free| free.push(std::mem::take(&mut self.numbers)));
        }
    }
}

/// Zeros, `n` of them from an address on that is the beginning of a line of the cache: vectors across two cost twice as much.
pub fn aligned(n: usize) -> (Vec<f32>, usize) {
    let zeros = zeros(n + LINE);
    let start = line(&zeros);
    (zeros, start)
}

/// Numbers in a line of the cache.
const LINE: usize = 16;

/// Numbers before the first line that begins in there.
fn line(numbers: &[f32]) -> usize {
    numbers.as_ptr().align_offset(4 * LINE).min(LINE)
}

/// `n` zeros. Of a large buffer the system is asked to hand out large pages: the first touch of each page costs as much as
/// some thousand multiplications, and a pass through a model touches gigabytes of fresh ones.
pub fn zeros(n: usize) -> Vec<f32> {
    blank(n)
}

/// The same for the bits of numbers in bf16.
pub fn zero_bits(n: usize) -> Vec<u16> {
    blank(n)
}

fn blank<T: Copy + Default>(n: usize) -> Vec<T> {
    let zeros = vec![T::default(); n];
    #[cfg(target_os = "linux")]
    large_pages(&zeros);
    zeros
}

#[cfg(target_os = "linux")]
fn large_pages<T>(buffer: &[T]) {
    const PAGE: usize = 2 << 20;
    let range = buffer.as_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(PAGE), range.end as usize / PAGE * PAGE);
    if start < end {
        // SAFETY: whole pages inside a living buffer; the advice changes neither their content nor who may use them. A system
        // that does not know it says no, which changes nothing.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}
