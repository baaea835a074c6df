//! The threads that share the work of a kernel.
//!
//! Drawing a token is some hundred pieces of work of a few dozen microseconds each, and waking a thread takes as long as that. So
//! for the time of a pass through the model some threads of the pool form a team ([`together`]): they stay awake and look
//! for the next piece, until the pass is done or there has been none for a while. So whatever else the pool is used for at the same
//! time goes on: no thread waits for another without end.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Runs `task(0)` to `task(count - 1)`, each once, on this thread and those of its team or, without one, of the pool that are
/// idle. `work` is about the number of multiplications in all; little of it stays on this thread.
pub fn parallel(count: usize, work: usize, task: impl Fn(usize) + Sync) {
    /// Waking a thread of the pool costs some ten microseconds.
    const WORTH_WAKING: usize = 1 << 17;
    /// One of the team is awake, but looks at other memory.
    const WORTH_SHARING: usize = 1 << 14;
    let next = AtomicUsize::new(0);
    let drain = || loop {
        match next.fetch_add(1, Ordering::Relaxed) {
            i if i < count => task(i),
            _ => break,
        }
    };
    // SAFETY: `together`, which put it there, is still running on this thread and owns it.
    let team = unsafe { TEAM.get().as_ref() }.filter(|team| team.helpers.load(Ordering::Relaxed) > 0);
    let worth = if team.is_none() { WORTH_WAKING } else { WORTH_SHARING };
    if count < 2 || work < worth {
        return drain();
    }
    if let Some(team) = team {
        return team.run(&drain);
    }
    let helpers = rayon::current_num_threads().min(count) - 1;
    if helpers == 0 {
        return drain();
    }
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| drain());
        }
        drain();
    });
}

/// Does `work` with a team of threads of the pool, as many as there are, that do nothing else meanwhile. To be used for a
/// stretch of kernels with little between them.
pub fn together<R>(work: impl FnOnce() -> R) -> R {
    let helpers = rayon::current_num_threads() - 1;
    let Some(_member) = Member::new().filter(|_| helpers > 0) else { return work() };
    let team = Team::default();
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| team.help());
        }
        let _end = End(&team);
        TEAM.set(&team);
        work()
    })
}

thread_local! {
    /// The team that this thread leads, while it has no job for it.
    static TEAM: Cell<*const Team> = const { Cell::new(std::ptr::null()) };
    /// Whether this thread leads or helps a team.
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// A thread's membership in a team. There is one at most: who waits inside a job for something else of the pool, and is given a
/// helper's part meanwhile, would wait for the end of a team that may be waiting for it.
struct Member;

impl Member {
    fn new() -> Option<Self> {
        (!TAKEN.replace(true)).then_some(Member)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        TAKEN.set(false);
    }
}

/// Lets a team go, also if the work panics.
struct End<'a>(&'a Team);

impl Drop for End<'_> {
    fn drop(&mut self) {
        TEAM.set(std::ptr::null());
        self.0.jobs.store(NO_MORE, Ordering::Release);
    }
}

/// Of [`Team::jobs`]: there will be no more.
const NO_MORE: usize = usize::MAX;
/// Of [`Team::state`]: helpers may take part in the job. Above this bit: how many do.
const OPEN: usize = 1;
const ONE: usize = 2;

/// A thread that hands out jobs, and those that wait for them.
#[derive(Default)]
struct Team {
    /// Those who are looking for jobs or at one.
    helpers: AtomicUsize,
    /// Jobs so far.
    jobs: AtomicUsize,
    state: AtomicUsize,
    /// Written while the state is 0, read by those who take part.
    job: UnsafeCell<Option<&'static (dyn Fn() + Sync)>>,
}

// SAFETY: `job` is the only part that is not atomic. It is written by the leader while the state is 0, when nobody takes part
// and nobody may begin to; it is read by threads between adding themselves to an open state and leaving it.
unsafe impl Sync for Team {}

impl Team {
    /// Runs `job` on this thread and on every helper that comes in time, each once, until all are back.
    fn run(&self, job: &(dyn Fn() + Sync)) {
        // Parts of a job that are shared again are not the team's.
        TEAM.set(std::ptr::null());
        // SAFETY: nobody takes part, since every job before this one was closed. The lifetime ends with `Close`, behind which no
        // helper holds the reference.
        unsafe { *self.job.get() = Some(std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(job)) };
        self.state.store(OPEN, Ordering::Release);
        self.jobs.fetch_add(1, Ordering::Release);
        let _close = Close(self);
        job();
    }

    /// What a helper does until the team ends, or it loses patience.
    fn help(&self) {
        let Some(_member) = Member::new() else { return };
        self.helpers.fetch_add(1, Ordering::Relaxed);
        let _gone = Gone(self);
        let mut seen = 0;
        loop {
            let mut wait = Wait::default();
            let mut jobs = self.jobs.load(Ordering::Acquire);
            while jobs == seen {
                if !wait.a_little() {
                    return;
                }
                jobs = self.jobs.load(Ordering::Acquire);
            }
            if jobs == NO_MORE {
                return;
            }
            seen = jobs;
            let enter = |state: usize| (state & OPEN != 0).then_some(state + ONE);
            if self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok() {
                let _leave = Leave(self);
                // SAFETY: this thread takes part.
                if let Some(job) = unsafe { *self.job.get() } {
                    job();
                }
            }
        }
    }
}

struct Gone<'a>(&'a Team);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.helpers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets nobody else into a job, and waits for those who take part.
struct Close<'a>(&'a Team);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut wait = Wait::default();
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::Acquire) & !OPEN;
        while state != 0 {
            // They are at work, however long it takes.
            let _ = wait.a_little();
            state = self.0.state.load(Ordering::Acquire);
        }
        TEAM.set(self.0);
    }
}

struct Leave<'a>(&'a Team);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(ONE, Ordering::Release);
    }
}

/// Waiting without going to sleep.
#[derive(Default)]
struct Wait {
    looks: u32,
    since: Option<Instant>,
}

impl Wait {
    /// After some ten microseconds others get the processor if they want it. Returns whether to go on waiting.
    fn a_little(&mut self) -> bool {
        const SPINS: u32 = 1000;
        const LIMIT: Duration = Duration::from_millis(2);
        if self.looks < SPINS {
            self.looks += 1;
            std::hint::spin_loop();
            return true;
        }
        std::thread::yield_now();
        self.since.get_or_insert_with(Instant::now).elapsed() < LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::sync::atomic::AtomicU32;

    /// Whether every task of many jobs ran once.
    fn all_ran(jobs: usize) -> bool {
        (0..jobs).all(|job| {
            let count = 1 + job % 7;
            let ran: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
            parallel(count, usize::MAX, |i| {
                ran[i].fetch_add(1, Ordering::Relaxed);
            });
            ran.iter().all(|ran| ran.load(Ordering::Relaxed) == 1)
        })
    }

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_task_runs_once_with_and_without_a_team() {
        for threads in [1, 2, 5] {
            assert!(pool(threads).install(|| all_ran(200)));
            assert!(pool(threads).install(|| together(|| all_ran(20_000))));
            assert!(pool(threads).install(|| together(|| together(|| all_ran(200)))));
        }
        assert!(together(|| all_ran(200)), "from a thread outside the pool");
    }

    #[test]
    fn tasks_may_have_parts_that_are_shared_again() {
        let sum = AtomicUsize::new(0);
        pool(3).install(|| {
            together(|| {
                parallel(8, usize::MAX, |i| {
                    parallel(5, usize::MAX, |j| {
                        sum.fetch_add(10 * i + j, Ordering::Relaxed);
                    })
                })
            })
        });
        assert_eq!(sum.into_inner(), 10 * 28 * 5 + 8 * 10);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_ends_the_team() {
        let pool = pool(3);
        for job in 0..100 {
            let failed = catch_unwind(AssertUnwindSafe(|| {
                pool.install(|| together(|| parallel(6, usize::MAX, |i| assert!(i != job % 6, "task {i}"))))
            }));
            assert!(failed.is_err());
            assert!(pool.install(|| together(|| all_ran(10))));
        }
    }

    #[test]
    fn teams_that_need_the_pool_for_something_else_do_not_wait_for_each_other() {
        use rayon::prelude::*;
        // More leaders than the pool has threads; outside it, so that what they share goes through the threads that help.
        let leader = || {
            for _ in 0..50 {
                together(|| {
                    assert!(all_ran(10));
                    assert_eq!((0..1000u32).into_par_iter().map(|i| i % 7).sum::<u32>(), 2997);
                    assert!(all_ran(10));
                });
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(leader))));
    }
}
