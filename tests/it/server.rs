//! A running `flowmesh` process.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The binary under test, told nothing by this process' environment.
pub(crate) fn flowmesh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowmesh"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FLOWMESH_") {
            command.env_remove(name);
        }
    }
    command
}

/// Every face on a free port of this machine.
pub(crate) const FREE_PORTS: [&str; 5] = [
    "--resp-addr=127.0.0.1:0",
    "--amqp-addr=127.0.0.1:0",
    "--kafka-addr=127.0.0.1:0",
    "--grpc-addr=127.0.0.1:0",
    "--http-addr=127.0.0.1:0",
];

/// Stops (SIGKILL) when dropped; [`Server::stop`] is the polite way.
pub(crate) struct Server {
    child: Child,
    addresses: BTreeMap<String, Vec<SocketAddr>>,
}

impl Server {
    /// Starts `flowmesh server` on `data_dir` and returns when clients can connect.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[] as &[&str])
    }

    /// The same with more flags.
    pub(crate) fn start_with(data_dir: &Path, flags: &[impl AsRef<OsStr>]) -> Self {
        Self::run("server", data_dir, flags)
    }

    /// The same for another subcommand that serves.
    pub(crate) fn run(command: &str, data_dir: &Path, flags: &[impl AsRef<OsStr>]) -> Self {
        Self::launch(flowmesh(), command, data_dir, flags)
    }

    /// `flowmesh server` with its data directory on a file system of so many MiB, which goes with the process. Only the
    /// process sees it there; for others it is at [`Server::inside`].
    pub(crate) fn start_on_disk_of(mib: u32, data_dir: &Path, flags: &[impl AsRef<OsStr>]) -> Self {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
        let mut small = Command::new("unshare");
        small
            // Who is not root may mount in a namespace of its own users.
            .arg(if is_root { "-m" } else { "-rm" })
            .args(["sh", "-c"])
            .arg("mount -t tmpfs -o size=${0}m none \"$1\" && shift && exec \"$@\"")
            .arg(mib.to_string())
            .arg(data_dir);
        let bare = flowmesh();
        small.arg(bare.get_program());
        for (name, _) in bare.get_envs() {
            small.env_remove(name);
        }
        Self::launch(small, "server", data_dir, flags)
    }

    /// `path` as the server's process sees it.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    fn launch(
        mut binary: Command,
        command: &str,
        data_dir: &Path,
        flags: &[impl AsRef<OsStr>],
    ) -> Self {
        let mut child = binary
            .args([command, "-o", "json", "--check-law=true"])
            .args(FREE_PORTS)
            .arg("--data-dir")
            .arg(data_dir)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        // Blocks until the server is ready or gone.
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("stdout can be read");
        let told: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the server was not ready: {error} in {line:?}"));
        let addresses = told
            .into_iter()
            .filter_map(|(face, list)| {
                let list = list
                    .as_array()?
                    .iter()
                    .filter_map(|addr| addr.as_str()?.parse().ok());
                Some((face, list.collect()))
            })
            .collect();
        Self { child, addresses }
    }

    /// Where `resp`, `amqp`, `kafka`, `grpc` or `http` listens.
    pub(crate) fn addr(&self, face: &str) -> SocketAddr {
        self.addresses[face][0]
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success(), "kill -s {name}");
    }

    /// Waits for an end that somebody else has asked for.
    pub(crate) fn ended(mut self) -> ExitStatus {
        wait(&mut self.child, Duration::from_secs(15))
    }

    /// SIGTERM, then the end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        wait(&mut self.child, Duration::from_secs(15))
    }

    /// SIGKILL, then the end.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The answer to one Redis command, as it came; at most 4 KiB that arrive together.
    pub(crate) fn redis(&self, command: &[&str]) -> String {
        let mut socket = TcpStream::connect(self.addr("resp")).expect("the Redis port is open");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout can be set");
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        socket
            .write_all(request.as_bytes())
            .expect("the command is taken");
        let mut answer = [0; 4096];
        let read = socket.read(&mut answer).expect("an answer comes");
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    /// `POST path` with a JSON body.
    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        http(self.addr("http"), &request)
    }

    /// The status and body of `GET path`.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http(
            self.addr("http"),
            &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of one HTTP/1.1 exchange; `request` asks the server to close.
pub(crate) fn http(addr: SocketAddr, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(addr).expect("the HTTP port is open");
    socket
        .write_all(request.as_bytes())
        .expect("the request is taken");
    let mut answer = String::new();
    socket
        .read_to_string(&mut answer)
        .expect("the answer is text");
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    (status, body.to_owned())
}

/// Waits for the end of `child`, at most so long.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
