//! A process that writes is killed at random moments: what it had been told is there, in order, and nothing half.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use storage::{Durability, Effects, Engine, Options};

use crate::support::{self, Model, Rng, WRITERS};

fn options(dir: &Path) -> Options {
    let mut options = support::small(dir);
    options.fold_bytes = 48 << 10;
    options.batch_bytes = 16 << 10;
    options.retain_bytes = 100 << 10;
    options
}

/// Child: goes on after what it finds, and tells each record that is durable: "writer n".
#[test]
fn child_writes_until_killed() {
    let Ok(dir) = std::env::var("KILL_DIR") else {
        return;
    };
    let engine = Engine::open(options(Path::new(&dir))).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let engine = &engine;
            scope.spawn(move || {
                let mut fx = Effects::new();
                for n in support::number_of(engine, writer) + 1.. {
                    let durability = if n % 16 == 0 {
                        Durability::Sync
                    } else {
                        Durability::Os
                    };
                    support::write_record(engine, writer, n, &mut fx, durability);
                    // One write: lines of two threads do not mix.
                    std::io::stderr()
                        .write_all(format!("{writer} {n}\n").as_bytes())
                        .unwrap();
                }
            });
        }
    });
}

#[test]
fn killed_at_random_moments() {
    let mut rng = Rng::new(support::seed(3));
    let kills = if support::slow() {
        support::count("KILLS", 10_000)
    } else {
        200
    };
    let dir = support::dir();
    let mut model = Model::default();
    let mut numbers = [0u64; WRITERS as usize];
    let mut total = 0;
    for kill in 0..kills {
        let mut child = support::child(
            "kill::child_writes_until_killed",
            &[("KILL_DIR", dir.path().to_str().unwrap())],
        );
        let mut child = child
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut acknowledged = numbers;
        let mut note = |line: &str| {
            let mut words = line.split(' ');
            if let (Some(Ok(writer)), Some(Ok(n))) = (
                words.next().map(str::parse::<usize>),
                words.next().map(str::parse),
            ) {
                acknowledged[writer] = n;
            }
        };
        // Some die in recovery, before the first acknowledgement.
        if !rng.chance(6) {
            note(&lines.next().unwrap().unwrap());
        }
        std::thread::sleep(Duration::from_micros(rng.below(8_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(|line| note(&line));

        let engine = Engine::open(options(dir.path())).unwrap();
        for writer in 0..WRITERS {
            let (old, last) = (
                numbers[usize::from(writer)],
                support::number_of(&engine, writer),
            );
            let told = acknowledged[usize::from(writer)];
            assert!(
                last >= told,
                "kill {kill}: writer {writer} was told {told}, there is {last}"
            );
            model.replay(writer, old + 1..=last);
            total += last - old;
            numbers[usize::from(writer)] = last;
        }
        model.check(&engine, &format!("kill {kill}"));
        if rng.chance(3) {
            engine.close().unwrap();
        }
    }
    assert!(total > kills, "{total} records in {kills} kills");
    eprintln!("{kills} kills, {total} records");
}
