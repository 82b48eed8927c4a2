//! What the shape of the network loop alone costs: a server that answers PING, on `src/net`, on several tokio
//! `current_thread` runtimes, or on one multi-thread runtime. Figures: docs/adr/0001-network-loop.md, made by bench/net.sh.
//!
//! `net_probe epoll|current-thread|multi-thread ADDRESS THREADS`

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use flowmesh::net::{
    ConnInfo, Flow, Limits, Listener, Listening, Net, NewSession, Outbox, Session,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Counts complete `*1\r\n$4\r\nPING\r\n` requests and drops them.
fn take_pings(input: &mut BytesMut) -> usize {
    const REQUEST: usize = 14;
    let pings = input.len() / REQUEST;
    input.advance(pings * REQUEST);
    pings
}

fn answer(pings: usize, out: &mut Vec<u8>) {
    for _ in 0..pings {
        out.extend_from_slice(b"+PONG\r\n");
    }
}

struct Pong;

impl Session for Pong {
    fn read(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow {
        answer(take_pings(input), out.bytes());
        Flow::Continue
    }
}

async fn serve(mut socket: tokio::net::TcpStream) {
    let _ = socket.set_nodelay(true);
    let (mut input, mut out) = (BytesMut::with_capacity(64 << 10), Vec::new());
    while socket.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        answer(take_pings(&mut input), &mut out);
        if socket.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        input.reserve(64 << 10);
    }
}

fn reuseport(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(shape), Some(addr), Some(threads)) = (args.next(), args.next(), args.next()) else {
        anyhow::bail!("usage: net_probe epoll|current-thread|multi-thread ADDRESS THREADS");
    };
    let (addr, threads): (SocketAddr, usize) = (addr.parse()?, threads.parse()?);
    match shape.as_str() {
        "epoll" => {
            let dir = tempfile::tempdir()?;
            let engine = storage::Engine::open(storage::Options::new(dir.path()))?;
            let sessions: NewSession = Arc::new(|_: ConnInfo| Box::new(Pong));
            let listener = Listener {
                socket: Listening::Tcp(TcpListener::bind(addr)?),
                sessions,
                keyring: None,
                refusal: b"",
                traffic: Default::default(),
                urgent: None,
            };
            let _net = Net::start(threads, &engine, vec![listener], Limits::default())?;
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        "current-thread" => {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    let socket = reuseport(addr)?;
                    Ok(std::thread::spawn(move || -> anyhow::Result<()> {
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()?;
                        runtime.block_on(async move {
                            let listener = tokio::net::TcpListener::from_std(socket)?;
                            loop {
                                tokio::spawn(serve(listener.accept().await?.0));
                            }
                        })
                    }))
                })
                .collect::<anyhow::Result<_>>()?;
            for worker in workers {
                let _ = worker.join();
            }
            Ok(())
        }
        "multi-thread" => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(reuseport(addr)?)?;
                loop {
                    tokio::spawn(serve(listener.accept().await?.0));
                }
            })
        }
        other => anyhow::bail!("no shape {other}"),
    }
}
