//! Opening the sockets, before anything else starts: a busy port must stop the process while it has done nothing yet.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, Entrance, Face};
use crate::net::UnixDoor;

/// Connections that the kernel holds until they are accepted; Linux cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Every listening socket, non-blocking.
#[derive(Debug, Default)]
pub struct Sockets {
    tcp: Vec<(Entrance, TcpListener)>,
    /// For Redis clients.
    unix: Option<UnixDoor>,
}

/// A Unix socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {} for resp: {}", path.display(), self.reason())]
pub struct UnixError {
    /// Where.
    pub path: PathBuf,
    /// Why not; part of the message, so not a source of its own.
    pub why: io::Error,
}

impl UnixError {
    fn reason(&self) -> String {
        match self.why.kind() {
            io::ErrorKind::AddrInUse => {
                "a server answers there. Stop it, or choose another path with --resp-unix-socket".into()
            }
            io::ErrorKind::AlreadyExists => {
                "there is something that is not a socket. Remove it, or choose another path with --resp-unix-socket".into()
            }
            _ => self.why.to_string(),
        }
    }
}

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.message())]
pub struct BindError {
    /// For whom.
    pub entrance: Entrance,
    /// Where.
    pub addr: SocketAddr,
    /// Why not; part of the message, so not a source of its own.
    pub why: io::Error,
}

impl BindError {
    fn message(&self) -> String {
        let (face, addr, port) = (self.entrance, self.addr, self.addr.port());
        match self.why.kind() {
            io::ErrorKind::AddrInUse => {
                let holder = match holder(port) {
                    Some(holder) => format!("{holder} has it"),
                    None => format!(
                        "{} is the usual one; `ss -ltnp 'sport = :{port}'` shows who has it",
                        usual(self.entrance.face)
                    ),
                };
                format!(
                    "cannot listen on {addr} for {face}: the port is taken ({holder}). Stop that process, choose another address with \
                     --{face}-addr, or move every port with --port-offset 1000"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!(
                    "cannot listen on {addr} for {face}: not permitted (ports below 1024 need a privilege); choose another with --{face}-addr"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                format!(
                    "cannot listen on {addr} for {face}: this machine does not have that address; choose another with --{face}-addr"
                )
            }
            _ => format!("cannot listen on {addr} for {face}: {}", self.why),
        }
    }
}

/// Whether an address could be listened on.
#[derive(Debug)]
pub enum Taken {
    Free,
    /// This machine has no such family of addresses; the server skips it.
    Absent,
    /// A FlowMesh server has it: `flowmesh (pid 123)`.
    ByUs(String),
    /// By somebody else, or not permitted.
    Refused(BindError),
}

/// Opens the address for a moment. `beside`: another address of the entrance can be, or is, listened on.
pub fn probe(entrance: Entrance, addr: SocketAddr, beside: bool) -> Taken {
    match listen_or_skip(addr, beside) {
        Ok(Some(_)) => Taken::Free,
        Ok(None) => Taken::Absent,
        Err(why) => match holder(addr.port()) {
            Some(holder) if holder.starts_with("flowmesh ") => Taken::ByUs(holder),
            _ => Taken::Refused(BindError {
                entrance,
                addr,
                why,
            }),
        },
    }
}

fn usual(face: Face) -> &'static str {
    match face {
        Face::Resp => "a Redis or Valkey server",
        Face::Amqp => "a RabbitMQ server",
        Face::Kafka => "a Kafka broker",
        Face::Grpc | Face::Http => "another server",
    }
}

/// `redis-server (pid 123)`, if /proc lets us see who holds the port.
fn holder(port: u16) -> Option<String> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            // sl local_address rem_address st … inode: state 0A is LISTEN.
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields.as_slice()
                && local
                    .rsplit_once(':')
                    .is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port))
            {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for file in files.flatten() {
            if let Ok(target) = std::fs::read_link(file.path())
                && inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            {
                let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!("{} (pid {pid})", name.trim()));
            }
        }
    }
    None
}

impl Sockets {
    /// Opens every configured address.
    pub fn open(config: &Config) -> Result<Self, BindError> {
        let mut all = Vec::new();
        for (entrance, addrs) in config.entrances() {
            let addrs = addrs.shifted(config.port_offset).unwrap_or_default();
            let mut opened = 0;
            for addr in &addrs.0 {
                match listen_or_skip(*addr, opened > 0) {
                    Ok(Some(listener)) => {
                        all.push((entrance, listener));
                        opened += 1;
                    }
                    Ok(None) => tracing::debug!(%entrance, %addr, "no IPv6 here, address skipped"),
                    Err(why) => {
                        return Err(BindError {
                            entrance,
                            addr: *addr,
                            why,
                        });
                    }
                }
            }
        }
        Ok(Self {
            tcp: all,
            unix: None,
        })
    }

    /// Opens the Unix socket, if one is configured.
    ///
    /// # Errors
    /// A server answers there, something else is there, or the directory cannot be written.
    pub fn open_unix(&mut self, config: &Config) -> Result<(), UnixError> {
        if let Some(path) = &config.resp_unix_socket {
            let mode = config.resp_unix_socket_perm.map(|mode| mode.0);
            let opened = UnixDoor::open(path, mode).map_err(|why| UnixError {
                path: path.clone(),
                why,
            });
            self.unix = Some(opened?);
        }
        Ok(())
    }

    /// Where the Unix socket is.
    pub fn unix_path(&self) -> Option<PathBuf> {
        self.unix.as_ref().map(UnixDoor::path)
    }

    /// Hands the Unix socket to whoever serves it.
    pub fn take_unix(&mut self) -> Option<UnixDoor> {
        self.unix.take()
    }

    /// Where we really listen: ports that were 0 have their number.
    pub fn addresses(&self) -> Vec<(Entrance, SocketAddr)> {
        self.tcp
            .iter()
            .filter_map(|(entrance, listener)| Some((*entrance, listener.local_addr().ok()?)))
            .collect()
    }

    /// Hands the sockets of one entrance to whoever serves it.
    pub fn take(&mut self, wanted: Entrance) -> Vec<TcpListener> {
        let (taken, rest) = std::mem::take(&mut self.tcp)
            .into_iter()
            .partition::<Vec<_>, _>(|(entrance, _)| *entrance == wanted);
        self.tcp = rest;
        taken.into_iter().map(|(_, listener)| listener).collect()
    }
}

/// `None`: containers and some machines have no IPv6; the IPv4 address `beside` it is what counts then.
fn listen_or_skip(addr: SocketAddr, beside: bool) -> io::Result<Option<TcpListener>> {
    let local = addr.is_ipv6() && (addr.ip().is_loopback() || addr.ip().is_unspecified());
    match listen(addr) {
        Err(error) if beside && local && no_such_family(&error) => Ok(None),
        listening => listening.map(Some),
    }
}

fn no_such_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restart within a minute would find the port taken by its own closed connections. SO_REUSEPORT is left out on
    // purpose: with it a second server would share the port silently.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Addrs, Value};

    fn only_http(addr: &str) -> Config {
        let off = Addrs::default();
        Config {
            resp_addr: off.clone(),
            amqp_addr: off.clone(),
            kafka_addr: off.clone(),
            grpc_addr: off,
            http_addr: Addrs::parse(addr).unwrap(),
            ..Config::default()
        }
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder() {
        let mut sockets = Sockets::open(&only_http("127.0.0.1:0")).unwrap();
        let (entrance, addr) = sockets.addresses()[0];
        assert_eq!(entrance, Entrance::plain(Face::Http));
        let error = Sockets::open(&only_http(&addr.to_string()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!(
                "cannot listen on {addr} for http: the port is taken"
            )),
            "{error}"
        );
        assert!(
            error.contains(&format!("(pid {})", std::process::id()))
                && error.contains("--port-offset"),
            "{error}"
        );
        assert_eq!(sockets.take(entrance).len(), 1);
        assert!(sockets.take(entrance).is_empty());
    }
}
