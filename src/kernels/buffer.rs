//! Memory for results.

/// `n` zeros. Of a large buffer the system is asked to hand out large pages: the first touch of each page costs as much as
/// some thousand multiplications, and a pass through a model touches gigabytes of fresh ones.
pub fn zeros(n: usize) -> Vec<f32> {
    let zeros = vec![0f32; n];
    #[cfg(target_os = "linux")]
    large_pages(&zeros);
    zeros
}

#[cfg(target_os = "linux")]
fn large_pages(buffer: &[f32]) {
    const PAGE: usize = 2 << 20;
    let range = buffer.as_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(PAGE), range.end as usize / PAGE * PAGE);
    if start < end {
        // SAFETY: whole pages inside a living buffer; the advice changes neither their content nor who may use them. A system
        // that does not know it says no, which changes nothing.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}
