//! A few threads that hash passwords, with a queue that has an end: hashing is made to be slow, and must not slow the network.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

/// Threads: each holds 19 MiB while it hashes, and half the machine must stay for clients that are in.
const THREADS_MAX: usize = 2;
/// Logins waiting: at about 20 ms each the last one waits less than a second or two.
const QUEUE_MAX: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// See the module. The threads start with the first job.
pub(super) struct Pool {
    shared: Arc<Shared>,
    started: AtomicBool,
}

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    over: bool,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::default(),
            started: AtomicBool::new(false),
        }
    }

    /// False: the queue is full, or there are no threads.
    pub(super) fn run(&self, job: Job) -> bool {
        if !self.started.swap(true, Ordering::Relaxed) && !self.start() {
            self.started.store(false, Ordering::Relaxed);
            return false;
        }
        let mut jobs = self.shared.jobs.lock();
        if jobs.waiting.len() >= QUEUE_MAX {
            return false;
        }
        jobs.waiting.push_back(job);
        self.shared.more.notify_one();
        true
    }

    fn start(&self) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (0..(cores / 2).clamp(1, THREADS_MAX)).all(|_| {
            let shared = Arc::clone(&self.shared);
            std::thread::Builder::new()
                .name("login".into())
                .spawn(move || shared.work())
                .is_ok()
        })
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut jobs = self.jobs.lock();
            let job = loop {
                if jobs.over {
                    return;
                }
                match jobs.waiting.pop_front() {
                    Some(job) => break job,
                    None => self.more.wait(&mut jobs),
                }
            };
            drop(jobs);
            job();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.jobs.lock().over = true;
        self.shared.more.notify_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("waiting", &self.shared.jobs.lock().waiting.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_has_an_end() {
        let (pool, held) = (Pool::new(), Arc::new(Mutex::new(())));
        let (done, holding) = (Arc::new(Mutex::new(0)), held.lock());
        let job = || -> Job {
            let (held, done) = (Arc::clone(&held), Arc::clone(&done));
            Box::new(move || {
                drop(held.lock());
                *done.lock() += 1;
            })
        };
        // As many as wait, and what the threads took already.
        let taken = (0..1000).take_while(|_| pool.run(job())).count();
        assert!(
            (QUEUE_MAX..=QUEUE_MAX + THREADS_MAX).contains(&taken),
            "{taken}"
        );
        drop(holding);
        while *done.lock() < taken {
            std::thread::yield_now();
        }
        assert!(pool.run(job()));
    }
}
