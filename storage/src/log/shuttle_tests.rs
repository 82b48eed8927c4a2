//! The combiner and the waiters under shuttle: every flush that returned early was done by somebody, everybody wakes.

#![allow(
    dead_code,
    reason = "the same sources as in the parent, of which the tests use a part"
)]

#[path = "combine.rs"]
mod combine;
#[path = "waiters.rs"]
mod waiters;

mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

use std::io;
use std::sync::Arc;
use std::task::{Wake, Waker};

use combine::{Combiner, Sink};

use super::group::Group;
use crate::{Effects, Lsn, Need, Outcome, ShardId};

/// Takes what it is given, and fails at the position it is told.
#[derive(Debug, Default)]
struct Memory {
    end: u64,
    fail_behind: Option<u64>,
}

impl Sink for Memory {
    fn write(&mut self, group: &mut Group, _synced: u64) -> io::Result<()> {
        shuttle::thread::yield_now();
        if self.fail_behind.is_some_and(|limit| group.end() > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert_eq!(
            group.first(),
            self.end,
            "groups come in order, without holes"
        );
        self.end = group.end();
        Ok(())
    }

    fn wrote(&mut self, _synced: u64) {}
}

struct Unpark(shuttle::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait(combiner: &Combiner<Memory>, need: Need) -> Outcome {
    let waker = Waker::from(Arc::new(Unpark(shuttle::thread::current())));
    while !combiner.notify(need, &waker) {
        shuttle::thread::park();
    }
    combiner.outcome(need)
}

fn append(combiner: &Combiner<Memory>) -> Lsn {
    let mut fx = Effects::new();
    fx.put(ShardId(0), b"key", b"value");
    Lsn(combiner.append(fx.size(), |group| group.append(0, &fx, 1, |_| 1)))
}

#[test]
fn everything_appended_is_written_and_everybody_wakes() {
    shuttle::check_random(
        || {
            let combiner = Arc::new(Combiner::new(0, Memory::default()));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let combiner = Arc::clone(&combiner);
                    shuttle::thread::spawn(move || {
                        for _ in 0..2 {
                            let lsn = append(&combiner);
                            combiner.flush().unwrap();
                            let need = Need {
                                written: lsn,
                                synced: Lsn(0),
                            };
                            assert_eq!(wait(&combiner, need), Outcome::Durable);
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(combiner.written(), combiner.appended());
        },
        500,
    );
}

#[test]
fn waiters_for_a_sync_wake_at_their_position() {
    shuttle::check_random(
        || {
            let combiner = Arc::new(Combiner::new(0, Memory::default()));
            let done = Arc::new(sync::AtomicU64::new(0));
            let waiting: Vec<_> = (0..2)
                .map(|_| {
                    let (combiner, done) = (Arc::clone(&combiner), Arc::clone(&done));
                    shuttle::thread::spawn(move || {
                        let lsn = append(&combiner);
                        combiner.flush().unwrap();
                        assert_eq!(
                            wait(
                                &combiner,
                                Need {
                                    written: lsn,
                                    synced: lsn
                                }
                            ),
                            Outcome::Durable
                        );
                        done.fetch_add(1, sync::Ordering::SeqCst);
                    })
                })
                .collect();
            let syncing = shuttle::thread::spawn({
                let combiner = Arc::clone(&combiner);
                move || {
                    while done.load(sync::Ordering::SeqCst) < 2 {
                        combiner.set_synced(combiner.written());
                        shuttle::thread::yield_now();
                    }
                }
            });
            for thread in waiting {
                thread.join().unwrap();
            }
            syncing.join().unwrap();
        },
        300,
    );
}

#[test]
fn a_failed_write_wakes_everybody() {
    shuttle::check_random(
        || {
            let combiner = Arc::new(Combiner::new(
                0,
                Memory {
                    end: 0,
                    fail_behind: Some(0),
                },
            ));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let combiner = Arc::clone(&combiner);
                    shuttle::thread::spawn(move || {
                        let lsn = append(&combiner);
                        let _ = combiner.flush();
                        let need = Need {
                            written: lsn,
                            synced: Lsn(0),
                        };
                        assert_eq!(wait(&combiner, need), Outcome::Unknown);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(combiner.failed());
        },
        300,
    );
}
