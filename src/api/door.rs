//! Accepts HTTP connections, at most so many, and ends those that say nothing: the admin side must stay reachable whatever
//! a peer does.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::wire::{Shown, Wire, Wiring};

/// A peer that neither sends nor takes a byte for so long is gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A listening socket with these limits.
pub(super) struct Door {
    listener: TcpListener,
    wiring: Wiring,
    places: Arc<Semaphore>,
    silence_max: Duration,
}

impl Door {
    /// At most `connections` at once; each ends after `silence_max` without a byte in either direction.
    pub(super) fn new(
        listener: std::net::TcpListener,
        wiring: Wiring,
        connections: usize,
        silence_max: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            wiring,
            places: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
            silence_max,
        })
    }

    /// Its connections, for servers that want a stream of them.
    pub(super) fn guests(mut self) -> impl Stream<Item = io::Result<Guest>> {
        let (give, take) = tokio::sync::mpsc::channel(1);
        // Ends with the server, which drops the stream.
        tokio::spawn(async move {
            while let Ok(place) = give.reserve().await {
                let (guest, _) = self.accept().await;
                place.send(Ok(guest));
            }
        });
        ReceiverStream::new(take)
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        // Never closed, so it is always given in the end; the kernel's queue holds who waits.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (socket, peer) = Listener::accept(&mut self.listener).await;
        let (stream, shown) = self.wiring.connect(socket);
        let silence = Box::pin(tokio::time::sleep(self.silence_max));
        (
            Guest {
                stream,
                shown,
                silence,
                silence_max: self.silence_max,
                _place: place,
            },
            peer,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// Set before the first request, if there is one.
    pub(super) certificate: Shown,
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self {
            addr: *stream.remote_addr(),
            certificate: Arc::clone(&stream.io().shown),
        }
    }
}

/// A connection that holds its place and ends when its peer is silent.
pub(super) struct Guest {
    stream: Wire,
    shown: Shown,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    _place: Option<OwnedSemaphorePermit>,
}

impl Guest {
    /// Passes on what an operation says, and ends one that waits in silence.
    fn heard<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            let silence_max = self.silence_max;
            self.silence.as_mut().reset(Instant::now() + silence_max);
            return said;
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl tonic::transport::server::Connected for Guest {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard(cx, read)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.heard(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.heard(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn silence_ends_a_connection_and_frees_its_place() {
        let mut door = Door::new(
            std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.set_nonblocking(true).map(|()| l))
                .unwrap(),
            Wiring::plain(),
            3,
            Duration::from_millis(30),
        )
        .unwrap();
        let mut client = TcpStream::connect(door.local_addr().unwrap())
            .await
            .unwrap();
        let (mut guest, _) = door.accept().await;
        assert_eq!(door.places.available_permits(), 2);
        client.write_all(b"a").await.unwrap();
        let mut byte = [0];
        guest.read_exact(&mut byte).await.unwrap();
        // Nothing more comes.
        let error = guest.read_exact(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(guest);
        assert_eq!(door.places.available_permits(), 3);
    }
}
