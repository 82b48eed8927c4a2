//! A process that writes is killed at random moments: what it had been told is there, in order, and nothing half.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use storage::{Durability, Effects, Engine, Keyspace, Need, Options, Outcome};

use crate::support::{self, Change, Model, Rng};

const WRITERS: u8 = 2;

fn options(dir: &Path) -> Options {
    let mut options = support::small(dir);
    options.fold_bytes = 48 << 10;
    options.batch_bytes = 16 << 10;
    options.retain_bytes = 100 << 10;
    options
}

fn number_key(writer: u8) -> Vec<u8> {
    vec![writer * 32, b'n']
}

/// Record `n` of a writer, which owns one shard. Always the same.
fn record(writer: u8, n: u64, change: &mut Change<'_>) {
    let mut rng = Rng::new(u64::from(writer) << 56 | n);
    let key = |kind: u8, n: u64| [&[writer * 32, kind][..], &n.to_be_bytes()].concat();
    change.put(writer, &number_key(writer), &n.to_be_bytes());
    // A message is published, and acknowledged 20 records later.
    let len = 200 + rng.below(6000);
    change.put(writer, &key(b'm', n), b"message");
    change.put_body(
        writer,
        &key(b'm', n),
        b"head",
        &Bytes::from(vec![n as u8; len as usize]),
    );
    if n > 20 {
        change.del(writer, &key(b'm', n - 20));
        change.del_body(writer, &key(b'm', n - 20));
    }
    let len = rng.below(200);
    change.put(writer, &key(b'h', rng.below(40)), &rng.bytes(len));
    change.add(writer, &key(b'c', 0), rng.below(9) as i64 - 4);
}

fn number_of(engine: &Engine, writer: u8) -> u64 {
    let row = engine.get(Keyspace::Rows, &number_key(writer)).unwrap();
    row.map_or(0, |row| {
        u64::from_be_bytes(row.as_ref().try_into().unwrap())
    })
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
                let (mut fx, mut model) = (Effects::new(), Model::default());
                for n in number_of(engine, writer) + 1.. {
                    record(
                        writer,
                        n,
                        &mut Change {
                            fx: &mut fx,
                            model: &mut model,
                        },
                    );
                    model = Model::default();
                    let lsn = engine.append(n, &fx);
                    fx.clear();
                    let durability = if n % 16 == 0 {
                        Durability::Sync
                    } else {
                        Durability::Os
                    };
                    assert_eq!(engine.wait(Need::of(lsn, durability)), Outcome::Durable);
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
    let kills = if support::slow() { 10_000 } else { 200 };
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
            let (old, last) = (numbers[usize::from(writer)], number_of(&engine, writer));
            let told = acknowledged[usize::from(writer)];
            assert!(
                last >= told,
                "kill {kill}: writer {writer} was told {told}, there is {last}"
            );
            let mut fx = Effects::new();
            for n in old + 1..=last {
                record(
                    writer,
                    n,
                    &mut Change {
                        fx: &mut fx,
                        model: &mut model,
                    },
                );
                fx.clear();
            }
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
