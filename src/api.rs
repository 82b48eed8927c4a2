//! The admin side: HTTP and gRPC, on a thread and runtime of their own, so that health and metrics answer while every other
//! thread is busy.

mod amqp;
pub(crate) mod base64;
mod door;
mod gate;
mod grpc;
mod http;
mod profile;
mod users;
mod wire;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{Entrance, Face};
use crate::listen::Sockets;
use crate::node::Node;

/// How long requests in flight may take when the node stops.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// The running thread.
#[derive(Debug)]
pub struct Api {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// Becomes true when the thread must end.
type Stopped = watch::Receiver<bool>;

async fn stopped(mut stop: Stopped) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Api {
    /// Serves both until [`Api::stop`].
    pub fn start(node: &Arc<Node>, sockets: &mut Sockets) -> std::io::Result<Self> {
        let http = listeners(sockets, Face::Http);
        let grpc = listeners(sockets, Face::Grpc);
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let node = Arc::clone(node);
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || {
                runtime.block_on(async {
                    let serving = async {
                        tokio::join!(
                            http::serve(&node, http, &stopped),
                            grpc::serve(&node, grpc, &stopped)
                        )
                    };
                    let late = async {
                        self::stopped(stopped.clone()).await;
                        tokio::time::sleep(LAST_REQUESTS).await;
                    };
                    tokio::select! {
                        _ = serving => {}
                        () = late => {}
                    }
                });
                runtime.shutdown_background();
            })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread; requests in flight get a moment.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the admin thread panicked");
        }
    }
}

/// The sockets of a face, each with whether it speaks TLS.
fn listeners(sockets: &mut Sockets, face: Face) -> Vec<(TcpListener, bool)> {
    [Entrance::plain(face), Entrance::tls(face)]
        .into_iter()
        .flat_map(|entrance| {
            let taken = sockets.take(entrance).into_iter();
            taken.map(move |socket| (socket, entrance.tls))
        })
        .collect()
}
