//! A queue far longer than its memory budget.

use crate::amqp::Client;
use crate::residency::metric;
use crate::server::Server;

const MESSAGES: u64 = 10_000;
/// Published before their confirms are awaited.
const WINDOW: u64 = 250;

fn body(number: u64) -> Vec<u8> {
    // Both keyspaces have a part of the queue.
    let size = if number.is_multiple_of(3) { 700 } else { 1200 };
    let mut body = number.to_le_bytes().to_vec();
    body.resize(size, b'.');
    body
}

fn number(body: &[u8]) -> u64 {
    u64::from_le_bytes(*body.first_chunk().unwrap())
}

#[test]
fn a_queue_of_ten_times_the_budget_is_bounded_in_memory_and_whole_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    // A quarter of the budget is the queues': 1 MiB for 10 MB. Some of it is folded meanwhile, the rest is not.
    let flags = [
        "--memory-limit=4MiB",
        "--fold-size=4MiB",
        "--amqp-durability=os",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let limit = metric(&server, "flowmesh_memory_limit_bytes{domain=\"queue\"}");
    let mut client = Client::connect(&server);
    client.declare("long", true);
    client.confirm_mode();
    for first in (0..MESSAGES).step_by(WINDOW as usize) {
        for index in first..first + WINDOW {
            client.publish("long", &body(index), false);
        }
        client.confirmed(first + WINDOW);
        let used = metric(&server, "flowmesh_memory_used_bytes{domain=\"queue\"}");
        assert!(
            used <= limit * 3 / 2,
            "{used} octets after {first} messages"
        );
    }
    let taken = MESSAGES / 10;
    for index in 0..taken {
        let (body, redelivered) = client.get("long").unwrap();
        assert_eq!((number(&body), redelivered), (index, false));
    }
    server.kill();

    let server = Server::start_with(dir.path(), &flags);
    let mut client = Client::connect(&server);
    let declared = client.declare("long", true);
    let left = format!("message_count: {}", MESSAGES - taken);
    assert!(declared.contains(&left), "{declared}");
    client.consume("long", 500);
    for index in taken..MESSAGES {
        let (got, redelivered) = client.delivery();
        assert!(got == body(index), "{} instead of {index}", number(&got));
        // The mark of what was perhaps delivered is at most a thousand ahead.
        assert!(!redelivered || index < taken + 1000, "{index}");
        let tag = index - taken + 1;
        if tag.is_multiple_of(100) {
            client.ack_until(tag);
        }
    }
    let used = metric(&server, "flowmesh_memory_used_bytes{domain=\"queue\"}");
    assert!(used <= limit * 3 / 2, "{used} octets after draining");
    assert_eq!(client.get("long"), None);
    assert!(server.stop().success());
}
