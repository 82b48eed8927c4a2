//! redis-rs, blocking and on tokio, and lapin, as applications use them.

mod lapin_app;
mod redis_rs;

use std::fmt::Debug;
use std::time::Duration;

pub fn step(text: &str) {
    println!("> {text}");
}

pub fn show(value: impl Debug) {
    println!("{value:?}");
}

pub fn address() -> (String, u16) {
    let address = std::env::var("RESP_ADDR").expect("RESP_ADDR is set");
    let (host, port) = address.rsplit_once(':').expect("host and port");
    (host.to_owned(), port.parse().expect("a port"))
}

/// Waits until `condition` says true.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("lapin") => lapin_app::run().await.expect("no step fails"),
        _ => redis_rs::run().await.expect("no step fails"),
    }
}
