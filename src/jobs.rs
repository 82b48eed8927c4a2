//! What happens without a client: the clock's correction, expiry, sweeping, retention. All on one thread, each in turn, so that
//! no job runs beside itself and none of them slows the start of another for long.

pub mod pressure;
mod queues;
mod upkeep;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::node::{Node, Phase};

/// What a job does each time: one bounded step.
pub type Step = Box<dyn FnMut(&Arc<Node>) -> Next + Send>;

/// When a job wants to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do: after the others had their turn.
    Now,
    /// After its interval.
    Later,
    /// It is done for good.
    Never,
}

impl Next {
    /// `Now` if there is more to do.
    fn more(more: bool) -> Self {
        if more { Self::Now } else { Self::Later }
    }
}

/// Something done again and again.
pub struct Job {
    /// For logs and the thread's metrics.
    pub name: &'static str,
    /// From the end of one run to the start of the next.
    pub every: Duration,
    /// One step.
    pub run: Step,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.name)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// A job of that name, first run after `every`.
    pub fn new(
        name: &'static str,
        every: Duration,
        run: impl FnMut(&Arc<Node>) -> Next + Send + 'static,
    ) -> Self {
        Self {
            name,
            every,
            run: Box::new(run),
        }
    }
}

/// How often the clock is compared with the wall, and the engine asked whether it failed.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// How long logins and denials are gathered, and what of them a crash may lose.
const AUDIT_EVERY: Duration = Duration::from_secs(1);

/// Jobs that are due within this time of each other run together.
const TOGETHER: Duration = Duration::from_millis(20);
/// A step that takes longer holds up the others, and is worth a line when somebody looks.
const LONG: Duration = Duration::from_millis(250);

/// Every job of a node.
pub fn all() -> Vec<Job> {
    let mut jobs = vec![Job::new("watch", WATCH_EVERY, watch)];
    jobs.push(Job::new("audit", AUDIT_EVERY, |node| {
        node.audit.write(node);
        Next::Later
    }));
    jobs.extend(queues::jobs());
    jobs.extend(upkeep::jobs());
    jobs
}

fn watch(node: &Arc<Node>) -> Next {
    node.clock.correct(WATCH_EVERY);
    if node.broker.engine.failed() && node.phase() != Phase::Stopping {
        tracing::error!("the engine failed; stopping");
        node.stop();
    }
    Next::Later
}

/// The running thread.
#[derive(Debug)]
pub struct Jobs {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Jobs {
    /// Starts the thread.
    pub fn start(node: &Arc<Node>, name: &'static str, jobs: Vec<Job>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let node = Arc::clone(node);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&node, jobs, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Returns when the job that runs now is done.
    pub fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the jobs thread panicked");
        }
    }
}

fn run(node: &Arc<Node>, jobs: Vec<Job>, stopped: &Receiver<()>) {
    let start = Instant::now();
    let mut jobs: Vec<(Instant, Job)> = jobs
        .into_iter()
        .map(|job| (start + job.every, job))
        .collect();
    loop {
        let Some(next) = jobs.iter().map(|(at, _)| *at).min() else {
            let _ = stopped.recv();
            return;
        };
        match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        // Whoever is nearly due runs with the rest: fewer wake-ups of an idle process.
        let due = Instant::now() + TOGETHER;
        jobs.retain_mut(|(at, job)| {
            if *at > due {
                return true;
            }
            let began = Instant::now();
            let next = (job.run)(node);
            let ended = Instant::now();
            node.metrics.job_seconds.observe(ended - began);
            if ended - began > LONG {
                tracing::debug!(
                    job = job.name,
                    took_ms = (ended - began).as_millis(),
                    "long job"
                );
            }
            *at = if next == Next::Now {
                ended
            } else {
                ended + job.every
            };
            next != Next::Never
        });
    }
}
