//! A connection's TLS, without I/O of its own: bytes of the socket in, bytes of the session out, and back.
//!
//! All that one `read()` of the socket brought is decrypted and handed on at once, so nothing but the start of a record ever
//! waits in here, and "the socket has no more" means the same as without TLS. Of output at most [`BUFFER_MAX`] is encrypted ahead of the
//! socket; the rest stays in the outbox, where its limits count it.

use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rustls::{ServerConfig, ServerConnection};

use crate::tls::Certificate;

/// Output encrypted and not yet taken by the socket; eight records of the largest size.
const BUFFER_MAX: usize = 128 << 10;

/// Why a connection with TLS cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

#[derive(Debug)]
pub(super) struct Tls {
    conn: ServerConnection,
    /// Until the handshake is done: when it must be.
    shakes_until: Option<Instant>,
    /// The peer said that nothing more will come.
    ended: bool,
    said_goodbye: bool,
}

impl Tls {
    pub(super) fn new(
        config: Arc<ServerConfig>,
        shakes_until: Instant,
    ) -> Result<Self, rustls::Error> {
        let mut conn = ServerConnection::new(config)?;
        conn.set_buffer_limit(Some(BUFFER_MAX));
        Ok(Self {
            conn,
            shakes_until: Some(shakes_until),
            ended: false,
            said_goodbye: false,
        })
    }

    /// While the handshake lasts: when it must be done.
    pub(super) fn shakes_until(&self) -> Option<Instant> {
        self.shakes_until
    }

    /// True once, when the handshake is done.
    pub(super) fn finished(&mut self) -> bool {
        self.shakes_until.is_some() && !self.conn.is_handshaking() && {
            self.shakes_until = None;
            true
        }
    }

    /// The names in the client's verified certificate, if it showed one.
    pub(super) fn peer(&self) -> Option<Certificate> {
        Certificate::read(self.conn.peer_certificates()?.first()?)
    }

    /// The peer's orderly end was read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Something waits for the socket.
    pub(super) fn wants_write(&self) -> bool {
        self.conn.wants_write()
    }

    /// Decrypts what the socket brought to the end of `plain`, which grows by less than `raw` is long.
    pub(super) fn decrypt(&mut self, mut raw: &[u8], plain: &mut BytesMut) -> Result<(), Broken> {
        while !raw.is_empty() && !self.ended {
            // Takes a few KiB at a time; an error means a handshake message larger than any real one.
            self.conn.read_tls(&mut raw)?;
            let state = self.conn.process_new_packets()?;
            self.ended = state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 {
                self.drain(plain)?;
            }
        }
        Ok(())
    }

    fn drain(&mut self, plain: &mut BytesMut) -> io::Result<()> {
        let mut reader = self.conn.reader();
        loop {
            let taken = match reader.fill_buf() {
                Ok(bytes) => {
                    plain.extend_from_slice(bytes);
                    bytes.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if taken == 0 {
                return Ok(());
            }
            reader.consume(taken);
        }
    }

    /// Writes what is encrypted. `Ok(false)`: the socket is full.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.conn.wants_write() {
            match self.conn.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more will be sent, so that the peer knows that nothing was cut off.
    pub(super) fn goodbye(&mut self) {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.conn.send_close_notify();
        }
    }

    /// The socket as the outbox writes to it.
    pub(super) fn over<'a, W: Write>(&'a mut self, socket: &'a mut W) -> Over<'a, W> {
        Over { tls: self, socket }
    }
}

/// Encrypts and writes. What was taken may still wait in [`Tls`]; then the next write says [`io::ErrorKind::WouldBlock`].
pub(super) struct Over<'a, W> {
    tls: &'a mut Tls,
    socket: &'a mut W,
}

impl<W: Write> Over<'_, W> {
    fn write_with(
        &mut self,
        encrypt: impl FnOnce(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.tls.flush(self.socket)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = encrypt(&mut self.tls.conn.writer())?;
        self.tls.flush(self.socket)?;
        Ok(taken)
    }
}

impl<W: Write> Write for Over<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(|writer| writer.write(bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(|writer| writer.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
