//! A connection of the admin side: plain, or TLS. The handshake is made by whoever reads or writes first, so that a slow one
//! holds up nobody but itself.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::config::Face;
use crate::net::Traffic;
use crate::node::Node;
use crate::tls::{Certificate, Configs, Keyring};

/// The verified certificate of a client, once its handshake is done.
pub(super) type Shown = Arc<OnceLock<Certificate>>;

/// What makes connections out of sockets.
#[derive(Clone, Debug)]
pub(super) struct Wiring {
    keyring: Option<Arc<Keyring>>,
    config: fn(&Configs) -> &Arc<ServerConfig>,
    traffic: Arc<Traffic>,
    handshake_timeout: Duration,
}

impl Wiring {
    /// For one face, with TLS or without. `config`: the one that says what the face speaks.
    pub(super) fn new(
        node: &Node,
        face: Face,
        tls: bool,
        config: fn(&Configs) -> &Arc<ServerConfig>,
    ) -> Self {
        Self {
            keyring: node.keyring.clone().filter(|_| tls),
            config,
            traffic: Arc::clone(node.traffic.of(face)),
            handshake_timeout: node.config.handshake_timeout,
        }
    }

    /// Without TLS, for nobody's account.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self {
            keyring: None,
            config: |configs| &configs.http,
            traffic: Arc::default(),
            handshake_timeout: Duration::ZERO,
        }
    }

    /// Must be called inside the runtime.
    pub(super) fn connect(&self, socket: TcpStream) -> (Wire, Shown) {
        let shown = Shown::default();
        let Some(keyring) = &self.keyring else {
            return (Wire::Plain(socket), shown);
        };
        let config = Arc::clone((self.config)(&keyring.current()));
        let secure = Secure {
            stage: Stage::Shaking(
                TlsAcceptor::from(config).accept(socket),
                Box::pin(tokio::time::sleep(self.handshake_timeout)),
            ),
            traffic: Arc::clone(&self.traffic),
            shown: Arc::clone(&shown),
        };
        (Wire::Tls(Box::new(secure)), shown)
    }
}

/// A connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<Secure>),
}

/// One with TLS.
pub(super) struct Secure {
    stage: Stage,
    traffic: Arc<Traffic>,
    shown: Shown,
}

enum Stage {
    /// Until then.
    Shaking(Accept<TcpStream>, Pin<Box<Sleep>>),
    Done(TlsStream<TcpStream>),
    Failed,
}

impl Drop for Secure {
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Done(_)) {
            self.traffic.handshakes_failed.inc();
        }
    }
}

impl Secure {
    /// The stream, when the handshake is done.
    fn poll_done(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let Stage::Shaking(accept, until) = &mut self.stage {
            let shaken = match Pin::new(accept).poll(cx) {
                Poll::Ready(shaken) => shaken,
                Poll::Pending => {
                    ready!(until.as_mut().poll(cx));
                    Err(io::ErrorKind::TimedOut.into())
                }
            };
            match shaken {
                Ok(stream) => {
                    self.traffic.handshakes.inc();
                    let chain = stream.get_ref().1.peer_certificates();
                    if let Some(peer) = chain.and_then(|c| Certificate::read(c.first()?)) {
                        let _ = self.shown.set(peer);
                    }
                    self.stage = Stage::Done(stream);
                }
                Err(error) => {
                    tracing::debug!(%error, "TLS handshake");
                    self.stage = Stage::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.stage {
            Stage::Done(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => ready!(tls.poll_done(cx))?.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(tls) => ready!(tls.poll_done(cx))?.poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
            Self::Tls(tls) => ready!(tls.poll_done(cx))?.poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(tls) => ready!(tls.poll_done(cx))?.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => match &mut tls.stage {
                Stage::Done(stream) => Pin::new(stream).poll_shutdown(cx),
                _ => Poll::Ready(Ok(())),
            },
        }
    }
}
