//! Ctrl-C: a training ends with what it has learned, everything else stops. The second one ends the program at once.

use sitter::run::Flow;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether the program was asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// What an event handler answers: `stop` once the program was asked to stop.
pub fn answer(stop: Flow) -> Flow {
    match asked() {
        true => stop,
        false => Flow::Continue,
    }
}

/// From now on the first Ctrl-C, or SIGTERM, is only noted.
#[cfg(unix)]
pub fn listen() {
    extern "C" fn note(_: libc::c_int) {
        ASKED.store(true, Ordering::Relaxed);
        let text = "\nstopping after this step; once more stops at once\n";
        // SAFETY: the text is that long. That it cannot be written is no matter.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: both structs are valid when zeroed, and live through the calls; the handler does no more than an atomic
        // store and a write, which are allowed in one.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut before);
            // A program started in the background goes on ignoring it.
            if before.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Elsewhere Ctrl-C ends the program.
#[cfg(not(unix))]
pub fn listen() {}

/// As if nobody had asked.
#[cfg(all(test, unix))]
pub fn forget() {
    ASKED.store(false, Ordering::Relaxed);
}
