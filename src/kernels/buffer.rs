//! Memory for results.

/// `n` zeros. Of a large buffer the system is asked to hand out large pages: the first touch of each page costs as much as
/// some thousand multiplications, and a pass through a model touches gigabytes of fresh ones.
pub fn zeros(n: usize) -> Vec<f32> {
    let zeros = vec![0f32; n];
    #[cfg(target_os = "linux")]
    large_pages(&zeros);
    zeros
}

/// `n` bytes that are zero; none if the system has no room for them.
pub fn try_zeroed(n: usize) -> Option<Vec<u8>> {
    let layout = std::alloc::Layout::array::<u8>(n).ok().filter(|_| n > 0);
    let Some(layout) = layout else { return (n == 0).then(Vec::new) };
    // SAFETY: the layout has bytes.
    let start = unsafe { std::alloc::alloc_zeroed(layout) };
    if start.is_null() {
        return None;
    }
    // SAFETY: the global allocator gave these n bytes with the layout of n bytes, and all are set.
    let zeroed = unsafe { Vec::from_raw_parts(start, n, n) };
    #[cfg(target_os = "linux")]
    large_pages(&zeroed);
    Some(zeroed)
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
