//! The power fails: what was acknowledged as synced is there, in order and whole, whatever else the disk kept. And the
//! same run acknowledged at class `os` must lose something, or the test would prove nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use storage::fault::{Fault, Faults, Step};
use storage::{Durability, Effects, Engine, Options};

use crate::fold_crash::STEPS;
use crate::forgetful::{Cut, Forgetful, Leaves};
use crate::support::{self, Model, Rng, WRITERS};

fn options(dir: &Path) -> Options {
    let mut options = support::small(dir);
    options.fold_bytes = 96 << 10;
    options.batch_bytes = 24 << 10;
    options
}

/// Opens what a cut left. Returns how many records of each writer are there; panics if it is not exactly these.
fn numbers_in(dir: &Path, context: &str) -> Vec<u64> {
    let engine = Engine::open(options(&dir.join("data"))).unwrap_or_else(|e| {
        let files = std::process::Command::new("find")
            .arg(dir)
            .args(["-printf", "%P %s\n"])
            .output();
        panic!(
            "{context}: {e:?}\n{}",
            String::from_utf8_lossy(&files.unwrap().stdout)
        )
    });
    let mut model = Model::default();
    let mut numbers = Vec::new();
    for writer in 0..WRITERS {
        let number = support::number_of(&engine, writer);
        model.replay(writer, 1..=number);
        numbers.push(number);
    }
    model.check(&engine, context);
    numbers
}

/// A cut, and what had been acknowledged before it.
struct Left {
    dir: PathBuf,
    acknowledged: Vec<u64>,
    context: String,
}

struct Run {
    cut: Cut,
    acknowledged: [AtomicU64; WRITERS as usize],
    into: PathBuf,
    left: Mutex<Vec<Left>>,
    /// Steps of a fold at which a cut is still to be made.
    steps: Mutex<Vec<Step>>,
    leaves: Mutex<Rng>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}

impl Run {
    fn cut(&self, context: String, leaves: Leaves) {
        let mut left = self.left.lock().unwrap();
        // Before the cut: what is acknowledged afterwards need not be in it.
        let acknowledged = self
            .acknowledged
            .iter()
            .map(|n| n.load(Ordering::SeqCst))
            .collect();
        let dir = self.into.join(left.len().to_string());
        self.cut.leave(&dir, leaves);
        left.push(Left {
            dir,
            acknowledged,
            context: format!("{context}, {leaves:?}"),
        });
    }
}

/// Cuts at each step of a fold.
#[derive(Debug)]
struct CutAt(Arc<Run>);

impl Fault for CutAt {
    fn at(&self, step: Step) -> io::Result<()> {
        let mut steps = self.0.steps.lock().unwrap();
        if let Some(at) = steps.iter().position(|s| *s == step) {
            steps.remove(at);
            drop(steps);
            self.0.cut(format!("at {step:?}"), Leaves::Nothing);
            let seed = self.0.leaves.lock().unwrap().next();
            self.0.cut(format!("at {step:?}"), Leaves::Some(seed));
        }
        Ok(())
    }
}

/// Writes, acknowledged at `durability`, while the power is cut at random moments and at each step of a fold.
fn run(durability: Durability, cuts: usize, seed: u64) -> (tempfile::TempDir, Vec<Left>) {
    let mut rng = Rng::new(seed);
    let dir = support::dir();
    let at = dir.path().join("mounted");
    std::fs::create_dir(&at).unwrap();
    let disk = Forgetful::mount(&at);
    let run = Arc::new(Run {
        cut: disk.cut(),
        acknowledged: Default::default(),
        into: dir.path().join("left"),
        left: Mutex::default(),
        steps: Mutex::new(STEPS.map(|(_, step)| step).to_vec()),
        leaves: Mutex::new(Rng::new(seed + 1)),
    });
    let mut options = options(&at.join("data"));
    options.faults = Faults::new(Arc::new(CutAt(Arc::clone(&run))));
    if durability == Durability::Os {
        options.sync_interval = None;
    }
    let engine = Engine::open(options).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (engine, run, stop) = (&engine, &run, &stop);
            scope.spawn(move || {
                let mut fx = Effects::new();
                for n in 1.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    support::write_record(engine, writer, n, &mut fx, durability);
                    run.acknowledged[usize::from(writer)].store(n, Ordering::SeqCst);
                    if durability == Durability::Os {
                        // As many records as the other class has, not as many as fit.
                        std::thread::sleep(Duration::from_micros(500));
                    }
                }
            });
        }
        for _ in 0..cuts {
            std::thread::sleep(Duration::from_millis(20 + rng.below(60)));
            run.cut("at random".into(), Leaves::Nothing);
            run.cut("at random".into(), Leaves::Some(rng.next()));
        }
        let waited = std::time::Instant::now();
        while durability == Durability::Sync && !run.steps.lock().unwrap().is_empty() {
            assert!(
                waited.elapsed() < Duration::from_secs(60),
                "not every step of a fold was reached"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::SeqCst);
    });
    engine.close().unwrap();
    run.cut("after close".into(), Leaves::Nothing);
    drop(engine);
    drop(disk);
    let left = std::mem::take(&mut *run.left.lock().unwrap());
    (dir, left)
}

#[test]
fn nothing_synced_is_lost_in_a_power_cut() {
    let seed = support::seed(11);
    let (dir, left) = run(
        Durability::Sync,
        if support::slow() { 200 } else { 4 },
        seed,
    );
    let mut beyond = 0;
    for Left {
        dir,
        acknowledged,
        context,
    } in &left
    {
        let numbers = numbers_in(dir, context);
        for (writer, (there, told)) in numbers.iter().zip(acknowledged).enumerate() {
            assert!(
                there >= told,
                "{context}: writer {writer} was told {told}, there is {there}"
            );
            beyond += there - told;
        }
    }
    eprintln!(
        "{} cuts, {beyond} records more than acknowledged",
        left.len()
    );
    drop(dir);
}

#[test]
fn without_sync_a_power_cut_loses_something() {
    let (dir, left) = run(Durability::Os, 3, support::seed(12));
    let mut lost = 0;
    for Left {
        dir,
        acknowledged,
        context,
    } in &left
    {
        let numbers = numbers_in(dir, context);
        lost += numbers
            .iter()
            .zip(acknowledged)
            .map(|(there, told)| told.saturating_sub(*there))
            .sum::<u64>();
    }
    assert!(lost > 0, "a power cut that loses nothing proves nothing");
    eprintln!("{lost} acknowledged records lost");
    drop(dir);
}
