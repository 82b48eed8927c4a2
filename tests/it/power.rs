//! The power fails under a server with AMQP clients: what was confirmed is there, in order and once, what was delivered says so, and what was
//! acknowledged in a committed transaction does not come back, whatever else the disk kept.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::amqp::Client;
use crate::forgetful::{Forgetful, Leaves};
use crate::rng::Rng;
use crate::server::Server;

/// Waits for the disk before it is confirmed; always waits.
const QUEUES: [&str; 2] = ["power.classic", "power.quorum"];
const FLAGS: [&str; 2] = ["--amqp-durability=sync", "--disk-free-limit=0"];

/// What clients did and heard, of one queue.
#[derive(Debug, Clone, Default)]
struct Told {
    confirmed: BTreeSet<u64>,
    tried: BTreeSet<u64>,
    seen: BTreeSet<u64>,
    acking: BTreeSet<u64>,
    acked: BTreeSet<u64>,
}

type Shared = Arc<Mutex<[Told; 2]>>;

#[test]
fn nothing_that_was_confirmed_is_lost_when_the_power_fails() {
    let slow = std::env::var_os("RUN_SLOW_TESTS").is_some();
    let cuts = if slow { 100 } else { 5 };
    // CI does not depend on luck.
    let fixed = if slow { std::process::id() } else { 6 };
    let seed = std::env::var("SEED").map_or(fixed.into(), |seed| seed.parse().expect("a number"));
    let mut rng = Rng::new(seed);
    let base = tempfile::tempdir().unwrap();
    let mount = base.path().join("disk");
    std::fs::create_dir(&mount).unwrap();
    let disk = Forgetful::mount(&mount);
    // The server makes its directory, and its name durable, before it is ready; so does this, for what is above it.
    std::fs::create_dir(mount.join("data")).unwrap();
    std::fs::File::open(&mount).unwrap().sync_all().unwrap();
    let server = Server::start_with(&mount.join("data"), &FLAGS);
    let mut client = Client::connect(&server);
    for queue in QUEUES {
        client.declare_as(queue, queue.ends_with("quorum"));
    }
    let (told, stop) = (Shared::default(), Arc::new(AtomicBool::new(false)));
    let threads = [
        load(&server, &told, &stop, rng.next(), publish),
        load(&server, &told, &stop, rng.next(), consume),
    ];
    let mut left = Vec::new();
    for cut in 0..cuts {
        std::thread::sleep(Duration::from_millis(20 + rng.below(400)));
        let leaves = if rng.chance(3) {
            Leaves::Nothing
        } else {
            Leaves::Some(rng.next())
        };
        // Before the cut: what is heard afterwards need not be in it. What is only tried by then may be.
        let before = told.lock().unwrap().clone();
        let to = base.path().join(format!("cut{cut}"));
        std::fs::create_dir(&to).unwrap();
        disk.cut().leave(&to, leaves);
        let after = told.lock().unwrap().clone();
        left.push((to, before, after, leaves));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    drop(client);
    server.kill();
    drop(disk);
    for (number, (dir, before, after, leaves)) in left.into_iter().enumerate() {
        let context = format!("SEED={seed}, cut {number}, {leaves:?}");
        check(&dir.join("data"), &before, &after, &context);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

fn load(
    server: &Server,
    told: &Shared,
    stop: &Arc<AtomicBool>,
    seed: u64,
    run: fn(Client, &Mutex<[Told; 2]>, &AtomicBool, Rng),
) -> std::thread::JoinHandle<()> {
    let (client, told, stop) = (Client::connect(server), Arc::clone(told), Arc::clone(stop));
    std::thread::spawn(move || run(client, &told, &stop, Rng::new(seed)))
}

/// Both queues in turn, up to twenty messages before their confirms.
fn publish(mut client: Client, told: &Mutex<[Told; 2]>, stop: &AtomicBool, mut rng: Rng) {
    client.confirm_mode();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let first = number;
        for _ in 0..=rng.below(20) {
            told.lock().unwrap()[side(number)].tried.insert(number);
            let large = if rng.chance(8) { 3000 } else { 100 };
            let mut body = number.to_be_bytes().to_vec();
            body.extend(rng.bytes(large));
            client.publish(QUEUES[side(number)], &body, false);
            number += 1;
        }
        client.confirmed(number);
        for number in first..number {
            told.lock().unwrap()[side(number)].confirmed.insert(number);
        }
    }
}

/// A few messages in each transaction; of three, one is kept and one is given back.
fn consume(mut client: Client, told: &Mutex<[Told; 2]>, stop: &AtomicBool, mut rng: Rng) {
    client.tx_select();
    while !stop.load(Ordering::Relaxed) {
        let mut acked = Vec::new();
        for _ in 0..=rng.below(6) {
            let queue = usize::from(rng.chance(2));
            let Some((tag, body, _)) = client.take(QUEUES[queue]) else {
                continue;
            };
            let number = number_of(&body);
            told.lock().unwrap()[queue].seen.insert(number);
            match rng.below(3) {
                0 => {}
                1 => client.give_back(tag),
                _ => {
                    told.lock().unwrap()[queue].acking.insert(number);
                    client.ack_one(tag);
                    acked.push((queue, number));
                }
            }
        }
        client.tx_commit();
        for (queue, number) in acked {
            told.lock().unwrap()[queue].acked.insert(number);
        }
    }
}

fn side(number: u64) -> usize {
    usize::from(!number.is_multiple_of(2))
}

fn number_of(body: &[u8]) -> u64 {
    u64::from_be_bytes(*body.first_chunk().expect("a number"))
}

fn check(data: &Path, before: &[Told; 2], after: &[Told; 2], context: &str) {
    let server = Server::start_with(data, &FLAGS);
    let mut client = Client::connect(&server);
    for ((queue, before), after) in QUEUES.iter().zip(before).zip(after) {
        client.declare_as(queue, queue.ends_with("quorum"));
        let found: Vec<(u64, bool)> = std::iter::from_fn(|| client.get(queue))
            .map(|(body, redelivered)| (number_of(&body), redelivered))
            .collect();
        let unmarked: Vec<_> = found
            .iter()
            .filter(|(number, redelivered)| !redelivered && before.seen.contains(number))
            .collect();
        assert!(
            unmarked.is_empty(),
            "{context}: {queue} does not say that it delivered {unmarked:?}"
        );
        let found: Vec<u64> = found.into_iter().map(|(number, _)| number).collect();
        assert!(
            found.is_sorted_by(|one, next| one < next),
            "{context}: {queue} is not in order: {found:?}"
        );
        let there: BTreeSet<u64> = found.into_iter().collect();
        let lost: Vec<_> = before
            .confirmed
            .iter()
            .filter(|number| !there.contains(number) && !after.acking.contains(number))
            .collect();
        assert!(lost.is_empty(), "{context}: {queue} lost {lost:?}");
        let back: Vec<_> = before.acked.intersection(&there).collect();
        assert!(back.is_empty(), "{context}: {queue} has again {back:?}");
        let strange: Vec<_> = there.difference(&after.tried).collect();
        assert!(strange.is_empty(), "{context}: {queue} has {strange:?}");
    }
    drop(client);
    assert!(server.stop().success(), "{context}");
}
