//! The Unix socket for Redis clients.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::server::{Server, flowmesh};

fn say(path: &Path, commands: &str, end: &str) -> String {
    let mut socket = UnixStream::connect(path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket.write_all(commands.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.ends_with(end.as_bytes()) {
        let read = socket.read(&mut part).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn redis_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let flags = [
        format!("--resp-unix-socket={}", path.display()),
        "--resp-unix-socket-perm=700".to_owned(),
    ];
    let data = dir.path().join("data");
    let server = Server::start_with(&data, &flags);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    // One address space with TCP, and more than a socket's buffer at once.
    assert_eq!(say(&path, "SET k v\r\n", "\r\n"), "+OK\r\n");
    assert_eq!(server.redis(&["GET", "k"]), "$1\r\nv\r\n");
    let many = "PING\r\n".repeat(20_000);
    let pongs = say(&path, &(many + "ECHO end\r\n"), "$3\r\nend\r\n");
    assert_eq!(pongs.len(), 20_000 * 7 + 9);

    let list = say(&path, "CLIENT LIST\r\n", "\n\r\n");
    let name = format!("addr={0}:0 laddr={0}:0", path.display());
    assert!(list.contains(&name) && list.contains("flags=U"), "{list}");

    // A second server on the same path, and what is not a socket.
    let refused = |path: &Path| {
        let out = flowmesh()
            .args(["server", "--resp-addr=off", "--amqp-addr=off"])
            .args(["--kafka-addr=off", "--grpc-addr=off", "--http-addr=off"])
            .arg(format!("--data-dir={}", dir.path().join("other").display()))
            .arg(format!("--resp-unix-socket={}", path.display()))
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(3));
        String::from_utf8(out.stderr).unwrap()
    };
    assert!(refused(&path).contains("a server answers there"));
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(refused(&file).contains("not a socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");

    // A killed server leaves its file, the next one replaces it, and an orderly stop removes it.
    server.kill();
    assert!(path.exists());
    let server = Server::start_with(&data, &flags);
    assert_eq!(say(&path, "GET k\r\n", "v\r\n"), "$1\r\nv\r\n");
    assert!(server.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_cluster_says_where_it_is_in_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let flags = [
        format!("--resp-unix-socket={}", path.display()),
        "--resp-cluster-mode=emulated".to_owned(),
    ];
    let server = Server::start_with(&dir.path().join("data"), &flags);
    let addr = server.addr("resp");
    let (ip, port) = (addr.ip(), addr.port());
    let nodes = say(&path, "CLUSTER NODES\r\n", "0-16383\n\r\n");
    assert!(nodes.contains(&format!(" {addr}@")), "{nodes}");
    for command in ["CLUSTER SLOTS\r\n", "CLUSTER SHARDS\r\n"] {
        let text = say(&path, &format!("{command}ECHO end\r\n"), "$3\r\nend\r\n");
        assert!(text.contains(&format!("\r\n{ip}\r\n")), "{text}");
        assert!(text.contains(&format!(":{port}\r\n")), "{text}");
    }
    assert!(server.stop().success());
}

#[test]
fn a_password_is_asked_for_there_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let server = Server::start_with(
        &dir.path().join("data"),
        &[
            "--password=s3cret".to_owned(),
            format!("--resp-unix-socket={}", path.display()),
        ],
    );
    assert!(say(&path, "PING\r\n", "\r\n").starts_with("-NOAUTH"));
    assert_eq!(
        say(&path, "AUTH s3cret\r\nPING\r\n", "+PONG\r\n"),
        "+OK\r\n+PONG\r\n"
    );
    assert!(server.stop().success());
}
