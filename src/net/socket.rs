//! A client's socket and what accepts it: TCP, or a Unix socket of this machine. Both are byte streams; nothing else differs.

use std::fs::Permissions;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::event::Source;
use mio::{Interest, Registry, Token};

/// What clients of a Unix socket are to whatever asks for addresses: this machine, without a port.
pub(super) const UNIX_PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listening socket.
#[derive(Debug)]
pub enum Listening {
    Tcp(TcpListener),
    Unix(UnixDoor),
}

/// A Unix socket that is listened on. Its file goes when this does.
#[derive(Debug)]
pub struct UnixDoor {
    socket: UnixListener,
    file: File,
}

/// The file of a Unix socket, by which it is known that it is still ours.
#[derive(Debug)]
pub(super) struct File {
    path: Arc<Path>,
    id: (u64, u64),
}

impl Drop for File {
    fn drop(&mut self) {
        // Not the file of a server that was started on the same path since.
        if id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

impl UnixDoor {
    /// Listens at `path`. A socket file that nobody listens on any more, as a killed server leaves it, is replaced.
    /// `mode`: permissions of the file; without, the umask decides.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when a server answers there, [`io::ErrorKind::AlreadyExists`] when the path is something
    /// other than a socket, or what the system says.
    pub fn open(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        if let Ok(meta) = std::fs::symlink_metadata(path) {
            if !meta.file_type().is_socket() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        let socket = UnixListener::bind(path)?;
        let path: Arc<Path> = std::path::absolute(path)?.into();
        let file = File {
            id: id(&path)?,
            path,
        };
        if let Some(mode) = mode {
            std::fs::set_permissions(&file.path, Permissions::from_mode(mode))?;
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket, file })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.file.path.to_path_buf()
    }
}

/// A listening socket in the hands of the accept thread.
pub(super) enum Acceptor {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener, File),
}

impl Acceptor {
    pub(super) fn new(listening: Listening) -> io::Result<Self> {
        Ok(match listening {
            Listening::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Self::Tcp(mio::net::TcpListener::from_std(socket))
            }
            Listening::Unix(door) => {
                Self::Unix(mio::net::UnixListener::from_std(door.socket), door.file)
            }
        })
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(socket) => socket,
            Self::Unix(socket, _) => socket,
        }
    }

    /// The next connection, and its peer's address.
    pub(super) fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Unix(socket, _) => Ok((Stream::Unix(socket.accept()?.0), UNIX_PEER)),
        }
    }

    /// The path of a Unix socket.
    pub(super) fn path(&self) -> Option<Arc<Path>> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => Some(Arc::clone(&file.path)),
        }
    }
}

/// A connected socket, non-blocking.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Stream {
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr(),
            Self::Unix(_) => Ok(UNIX_PEER),
        }
    }
}

impl Read for Stream {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Unix(socket) => socket.read(into),
        }
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write_vectored(slices),
            Self::Unix(socket) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.register(registry, token, interests),
            Self::Unix(socket) => socket.register(registry, token, interests),
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.reregister(registry, token, interests),
            Self::Unix(socket) => socket.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.deregister(registry),
            Self::Unix(socket) => socket.deregister(registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_replaced_a_living_one_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a killed server leaves it");
        let door = UnixDoor::open(&path, Some(0o600)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let kind = |path: &Path| UnixDoor::open(path, None).unwrap_err().kind();
        assert_eq!(kind(&path), io::ErrorKind::AddrInUse);
        drop(door);
        assert!(!path.exists(), "removed with its listener");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(kind(&path), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let door = UnixDoor::open(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _successor = UnixDoor::open(&path, None).unwrap();
        drop(door);
        assert!(path.exists());
    }
}
