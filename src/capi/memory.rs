//! Memory that goes back to the system.
//!
//! glibc keeps freed blocks of up to 32 MiB for later, apart for each thread. A model consists of many such blocks, which are
//! taken on threads that come and go, so that about its size would stay with a process that has closed it.

/// Gives all free memory back when it is dropped: to be dropped after what holds the memory.
pub struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
        {
            extern "C" {
                fn malloc_trim(pad: usize) -> std::ffi::c_int;
            }
            // SAFETY: glibc lets any thread call it at any time.
            unsafe { malloc_trim(0) };
        }
    }
}
