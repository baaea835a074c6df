//! Threads for the calls that compute without an engine.

use super::failure::Failure;
use super::status::SITTER_E_RESOURCE_EXHAUSTED;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::atomic::{AtomicPtr, Ordering};

struct Threads {
    process: u32,
    pool: ThreadPool,
}

/// Those of this process, or of the one that it was forked from. Never freed: a child has no threads to take down, and others
/// live as long as the process.
static THREADS: AtomicPtr<Threads> = AtomicPtr::new(std::ptr::null_mut());

/// Does `work` on threads of this process. On the thread that called, it would take the threads that rayon keeps for the whole
/// process: a forked child, in which they are not there, would wait for them for ever.
pub fn on_own_threads<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    Ok(pool()?.install(work))
}

fn pool() -> Result<&'static ThreadPool, Failure> {
    let found = THREADS.load(Ordering::Acquire);
    // SAFETY: null, or made below and never freed.
    match unsafe { found.as_ref() } {
        Some(threads) if threads.process == std::process::id() => return Ok(&threads.pool),
        _ => {}
    }
    let pool = ThreadPoolBuilder::new()
        .thread_name(|i| format!("sitter-call-{i}"))
        .start_handler(|_| crate::caught::quietly())
        .build()
        .map_err(|e| Failure::new(SITTER_E_RESOURCE_EXHAUSTED, format!("cannot start threads: {e}")))?;
    let made = Box::into_raw(Box::new(Threads { process: std::process::id(), pool }));
    let shared = match THREADS.compare_exchange(found, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        Err(faster) => {
            // SAFETY: made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(made) });
            faster
        }
    };
    // SAFETY: as above; another thread of this process put it there if not this one.
    Ok(&unsafe { &*shared }.pool)
}
