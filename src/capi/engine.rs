//! The engine: threads for the work, admission of jobs, log.

use super::boundary::guard;
use super::buffer::{copy_text, Out};
use super::error::sitter_error;
use super::failure::Failure;
use super::handle::{self, Noun};
use super::status::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_void, CString};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, Weak};
use std::time::Duration;

/// Log nothing: the default.
pub const SITTER_LOG_OFF: i32 = 0;
pub const SITTER_LOG_ERROR: i32 = 1;
pub const SITTER_LOG_WARN: i32 = 2;
pub const SITTER_LOG_INFO: i32 = 3;
pub const SITTER_LOG_DEBUG: i32 = 4;

/// Receives a log line: UTF-8, no newline at its end, valid during the call. From any thread, several at once.
pub type sitter_log_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, line: *const c_char)>;

/// Called once when the library will not use `user_data` any more.
pub type sitter_drop_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Threads and log that several models share. Shared handle.
pub struct sitter_engine {
    _opaque: [u8; 0],
}

impl Noun for sitter_engine {
    const NAME: &'static str = "sitter_engine";
    type Value = Arc<Engine>;
}

/// How an engine is to be made. Builder handle.
pub struct sitter_engine_options {
    _opaque: [u8; 0],
}

impl Noun for sitter_engine_options {
    const NAME: &'static str = "sitter_engine_options";
    type Value = Arc<Mutex<Settings>>;
}

#[derive(Clone)]
pub struct Settings {
    threads: usize,
    max_jobs: usize,
    log_level: log::LevelFilter,
    log: Option<Arc<LogTarget>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { threads: 0, max_jobs: 1, log_level: log::LevelFilter::Off, log: None }
    }
}

/// Stacks of the threads that compute: the backward pass walks its graph recursively.
const STACK: usize = 64 << 20;
/// Lines kept for `sitter_engine_drain_log`.
const KEPT_LINES: usize = 1000;

pub struct Engine {
    settings: Settings,
    sink: Arc<Sink>,
    /// Each job has a pool of its own: two jobs in one pool would steal each other's work and wait for it.
    slots: Mutex<Slots>,
    freed: Condvar,
}

#[derive(Default)]
struct Slots {
    idle: Vec<ThreadPool>,
    made: usize,
}

/// A panic cannot leave these values half changed, so a poisoned lock is as good as any.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Engine {
    pub fn new(settings: Settings) -> Arc<Engine> {
        let sink = Arc::new(Sink { level: settings.log_level, target: settings.log.clone(), lines: Mutex::default() });
        if settings.log_level != log::LevelFilter::Off {
            install_logger();
        }
        Arc::new(Engine { settings, sink, slots: Mutex::default(), freed: Condvar::new() })
    }

    /// Waits for a free pool; `beat` is called while waiting and may end it.
    pub fn admit(
        self: &Arc<Self>,
        tick: Duration,
        mut beat: impl FnMut() -> Result<(), Failure>,
    ) -> Result<Slot, Failure> {
        loop {
            {
                let mut slots = lock(&self.slots);
                if let Some(pool) = slots.idle.pop() {
                    return Ok(Slot { engine: self.clone(), pool: Some(pool) });
                }
                if slots.made < self.settings.max_jobs {
                    let pool = self.new_pool()?;
                    slots.made = slots.made.saturating_add(1);
                    return Ok(Slot { engine: self.clone(), pool: Some(pool) });
                }
                // The guard is given up while waiting; whether it timed out is seen by looking again.
                drop(self.freed.wait_timeout(slots, tick));
            }
            // No lock is held while calling out.
            beat()?;
        }
    }

    fn new_pool(&self) -> Result<ThreadPool, Failure> {
        let sink = Arc::downgrade(&self.sink);
        ThreadPoolBuilder::new()
            .num_threads(self.settings.threads)
            .stack_size(STACK)
            .thread_name(|i| format!("sitter-{i}"))
            .start_handler(move |_| {
                // Its panics go to the thread that waits for the pool.
                crate::caught::quietly();
                CURRENT.set(Some(sink.clone()));
            })
            .build()
            .map_err(|e| Failure::new(SITTER_E_RESOURCE_EXHAUSTED, format!("cannot start threads: {e}")))
    }

    /// Log lines of the work on this thread go to this engine until the result is dropped.
    pub fn log_here(&self) -> LogHere {
        LogHere(CURRENT.replace(Some(Arc::downgrade(&self.sink))))
    }
}

/// A pool in use by one job.
pub struct Slot {
    engine: Arc<Engine>,
    pool: Option<ThreadPool>,
}

impl Slot {
    /// Starts work on the pool and returns at once.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(pool) = &self.pool {
            pool.spawn(work);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.engine.slots).idle.extend(self.pool.take());
        self.engine.freed.notify_one();
    }
}

pub struct LogTarget {
    call: sitter_log_fn,
    user_data: *mut c_void,
    drop: sitter_drop_fn,
}

// SAFETY: the host promises that its log function may be called from any thread with its user data.
unsafe impl Send for LogTarget {}
// SAFETY: as above, and several at once.
unsafe impl Sync for LogTarget {}

impl Drop for LogTarget {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the host gave both together, and this is the only call.
            unsafe { drop(self.user_data) };
        }
    }
}

/// Where an engine's log lines go.
struct Sink {
    level: log::LevelFilter,
    target: Option<Arc<LogTarget>>,
    lines: Mutex<VecDeque<String>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Weak<Sink>>> = const { RefCell::new(None) };
}

pub struct LogHere(Option<Weak<Sink>>);

impl Drop for LogHere {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// Hands log records to the engine whose work the thread does. Each shared library has a `log` crate of its own, so this
/// disturbs nobody; in a Rust program that has a logger already, that one stays.
struct Bridge;

impl Bridge {
    fn sink() -> Option<Arc<Sink>> {
        CURRENT.try_with(|c| c.try_borrow().ok()?.as_ref()?.upgrade()).ok()?
    }
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        Self::sink().is_some_and(|s| metadata.level() <= s.level)
    }

    fn log(&self, record: &log::Record) {
        let Some(sink) = Self::sink() else { return };
        if record.level() > sink.level {
            return;
        }
        let line = format!("{}: {}", record.target(), record.args()).replace(['\n', '\0'], " ");
        match &sink.target {
            Some(target) => {
                let (Ok(line), Some(call)) = (CString::new(line), target.call) else { return };
                let level = match record.level() {
                    log::Level::Error => SITTER_LOG_ERROR,
                    log::Level::Warn => SITTER_LOG_WARN,
                    log::Level::Info => SITTER_LOG_INFO,
                    _ => SITTER_LOG_DEBUG,
                };
                // SAFETY: the host's function, its user data, and a line that lives through the call.
                super::boundary::calling_out(|| unsafe { call(target.user_data, level, line.as_ptr()) });
            }
            None => {
                let mut lines = lock(&sink.lines);
                if lines.len() >= KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        }
    }

    fn flush(&self) {}
}

fn install_logger() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&Bridge).is_ok() {
            log::set_max_level(log::LevelFilter::Debug);
        }
    });
}

/// Options for an engine: all cores, one job at a time, no log. Free them with `sitter_engine_options_free`. Any thread.
/// Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_options_new(
    out: *mut *mut sitter_engine_options,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        out.set(handle::new(Arc::new(Mutex::new(Settings::default()))));
        Ok(())
    })
}

/// Frees options. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_options_free(options: *mut sitter_engine_options) {
    handle::free(options);
}

/// Threads of each job; 0, the default, takes one per core. At most 1024. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_options_set_threads(
    options: *mut sitter_engine_options,
    threads: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let settings = handle::get(options)?;
        if threads > 1024 {
            return Err(Failure::invalid("threads", format!("is {threads}; allowed are 0 to 1024")));
        }
        lock(&settings).threads = threads as usize;
        Ok(())
    })
}

/// Jobs that may run at once, 1 to 64; others wait in stage WAITING. Default 1. Each takes threads of its own. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_options_set_max_jobs(
    options: *mut sitter_engine_options,
    max_jobs: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let settings = handle::get(options)?;
        if !(1..=64).contains(&max_jobs) {
            return Err(Failure::invalid("max_jobs", format!("is {max_jobs}; allowed are 1 to 64")));
        }
        lock(&settings).max_jobs = max_jobs as usize;
        Ok(())
    })
}

/// What is logged: SITTER_LOG_OFF (default) to SITTER_LOG_DEBUG. Lines are kept for `sitter_engine_drain_log` unless there
/// is a log function. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_options_set_log_level(
    options: *mut sitter_engine_options,
    level: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let settings = handle::get(options)?;
        lock(&settings).log_level = match level {
            SITTER_LOG_OFF => log::LevelFilter::Off,
            SITTER_LOG_ERROR => log::LevelFilter::Error,
            SITTER_LOG_WARN => log::LevelFilter::Warn,
            SITTER_LOG_INFO => log::LevelFilter::Info,
            SITTER_LOG_DEBUG => log::LevelFilter::Debug,
            _ => return Err(Failure::invalid("level", format!("is {level}; allowed are 0 to 4"))),
        };
        Ok(())
    })
}

/// The function that gets the log lines; NULL for none. `drop_user_data`, which may be NULL, is called once, on any thread,
/// when the engine and its last job are gone; at once if this call fails, if `log` is NULL, or when the function is
/// replaced. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_options_set_log(
    options: *mut sitter_engine_options,
    log: sitter_log_fn,
    user_data: *mut c_void,
    drop_user_data: sitter_drop_fn,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        // Made first: whatever happens next, the user data is given back.
        let target = Arc::new(LogTarget { call: log, user_data, drop: drop_user_data });
        let settings = handle::get(options)?;
        let target = log.is_some().then_some(target);
        let before = std::mem::replace(&mut lock(&settings).log, target);
        // Without the lock: its drop function may call in here.
        drop(before);
        Ok(())
    })
}

/// Makes an engine. `options` may be NULL for the defaults. Threads start with the first job. The caller owns the result;
/// free it with `sitter_engine_free`. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_new(
    options: *const sitter_engine_options,
    out: *mut *mut sitter_engine,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let settings = match handle::get_optional(options)? {
            Some(settings) => lock(&settings).clone(),
            None => Settings::default(),
        };
        out.set(handle::new(Engine::new(settings)));
        Ok(())
    })
}

/// One more reference to the same engine; returns it. NULL gives NULL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_ref(engine: *const sitter_engine) -> *mut sitter_engine {
    handle::add_reference(engine)
}

/// Gives a reference back. Models keep their engine alive. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_free(engine: *mut sitter_engine) {
    handle::free(engine);
}

/// Takes the log lines that have gathered, a line each, UTF-8: copies them to `buffer` of `capacity` bytes, the NUL
/// included, and forgets them. `(NULL, 0)` asks for the size, in `needed`, and forgets nothing. SITTER_E_BUFFER_TOO_SMALL.
/// Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_engine_drain_log(
    engine: *const sitter_engine,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let engine = handle::get(engine)?;
        let mut lines = lock(&engine.sink.lines);
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        copy_text(&text, buffer, capacity, needed)?;
        if !buffer.is_null() {
            lines.clear();
        }
        Ok(())
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::device::memory::tests::with_memory;

    #[test]
    fn threads_that_find_no_memory_are_resources_that_are_exhausted() {
        let name = "threads_that_find_no_memory_are_resources_that_are_exhausted";
        let refused = with_memory(name, |_| {
            let engine = Engine::new(Settings { threads: 4, ..Settings::default() });
            match engine.admit(Duration::from_millis(1), || Ok(())) {
                Ok(_) => 0,
                Err(failure) if failure.status == SITTER_E_RESOURCE_EXHAUSTED => 1,
                Err(failure) => panic!("{failure:?}"),
            }
        });
        let Some(refused) = refused else { return };
        assert!(refused.first() == Some(&1) && refused.last() == Some(&0), "{refused:?}");
    }
}
