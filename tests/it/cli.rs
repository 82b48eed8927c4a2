//! The command line: what is printed, and how it ends.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::{FREE_PORTS, Server, flowmesh, wait};

/// Exit code, standard output, standard error.
fn ends(command: &mut Command) -> (i32, String, String) {
    let output = command
        .env("NO_COLOR", "1")
        .output()
        .expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

fn in_dir(dir: &Path, args: &[&str]) -> (i32, String, String) {
    ends(flowmesh().current_dir(dir).args(args))
}

#[test]
fn help_and_version() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, _) = in_dir(dir.path(), &["--help"]);
    assert_eq!(code, 0);
    for word in [
        "--resp-addr",
        "FLOWMESH_RESP_ADDR",
        "Exit codes:",
        "dev",
        "completion",
    ] {
        assert!(out.contains(word), "{word}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        in_dir(dir.path(), &["version"]),
        (0, format!("flowmesh {version}\n"), String::new())
    );
    let (_, out, _) = in_dir(dir.path(), &["version", "-o", "json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&out).unwrap()["version"],
        version
    );
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = in_dir(dir.path(), &["completion", shell]);
        assert!(code == 0 && out.contains("resp-addr"), "{shell}");
    }
    assert_eq!(in_dir(dir.path(), &["--no-such-flag"]).0, 2);
    assert_eq!(in_dir(dir.path(), &["no-such-command"]).0, 2);
}

#[test]
fn configuration_errors_say_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("flowmesh.toml"),
        "resp-adr = '127.0.0.1:1'\n",
    )
    .unwrap();
    for command in [&["config", "validate"][..], &["server"], &[], &["dev"]] {
        let (code, out, err) = in_dir(dir.path(), command);
        assert_eq!((code, out.as_str()), (2, ""), "{command:?}");
        assert_eq!(
            err,
            "error: flowmesh.toml: unknown key `resp-adr` (line 1); did you mean `resp_addr`?\n"
        );
    }
    std::fs::remove_file(dir.path().join("flowmesh.toml")).unwrap();

    let (code, _, err) = in_dir(dir.path(), &["--resp-addr", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("can be reached from other machines") && err.contains("FLOWMESH_PASSWORD"),
        "{err}"
    );
    let (code, _, err) = in_dir(dir.path(), &["--log-level", "info,=="]);
    assert!(code == 2 && err.contains("log-level"), "{err}");
    let (code, _, err) = in_dir(dir.path(), &["--config", "missing.toml"]);
    assert!(code == 2 && err.contains("missing.toml"), "{err}");
    assert_eq!(in_dir(dir.path(), &["config", "validate"]).0, 0);
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}

#[test]
fn config_show_names_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("flowmesh.toml"),
        "[kafka]\npartitions = 3\n",
    )
    .unwrap();
    let (code, out, err) = ends(
        flowmesh()
            .current_dir(dir.path())
            .env("FLOWMESH_LOG_LEVEL", "debug")
            .env("FLOWMESH_PASSWORD", "hunter2")
            .args([
                "config",
                "show",
                "--sources",
                "-o",
                "json",
                "--threads",
                "2",
            ]),
    );
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!out.contains("hunter2"), "{out}");
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    let row = |name: &str| {
        (
            all[name]["value"].as_str().unwrap(),
            all[name]["source"].as_str().unwrap(),
        )
    };
    assert_eq!(row("threads"), ("2", "--threads"));
    assert_eq!(row("log_level"), ("debug", "FLOWMESH_LOG_LEVEL"));
    assert_eq!(row("kafka_partitions"), ("3", "flowmesh.toml"));
    assert_eq!(row("resp_durability"), ("interval", "default"));
    assert_eq!(row("password"), ("(hidden)", "FLOWMESH_PASSWORD"));

    let (_, out, _) = in_dir(dir.path(), &["config", "show", "--dev"]);
    assert!(
        out.lines()
            .any(|line| line.split_whitespace().eq(["data-dir", ".flowmesh"])),
        "{out}"
    );
}

#[test]
fn a_taken_port_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    // The last of two equal flags counts.
    let (code, _, err) = ends(
        flowmesh()
            .current_dir(dir.path())
            .args(["server", "--data-dir", "d"])
            .args(FREE_PORTS)
            .args(["--amqp-addr", &addr]),
    );
    assert_eq!(code, 3);
    assert!(
        err.contains(&format!(
            "cannot listen on {addr} for amqp: the port is taken"
        )),
        "{err}"
    );
    let holder = format!("(pid {})", std::process::id());
    assert!(
        err.contains(&holder) && err.contains("--port-offset"),
        "{err}"
    );
    assert!(!dir.path().join("d").exists(), "nothing was made");
}

#[test]
fn dev_prints_a_short_banner_and_leaves_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = flowmesh()
        .current_dir(dir.path())
        .arg("dev")
        .args(FREE_PORTS)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let last = line.contains("kcat");
        lines.push(line);
        if last {
            break;
        }
    }
    assert!(lines.len() <= 15, "{lines:#?}");
    let text = lines.join("\n");
    for word in [
        "redis://127.0.0.1:",
        "amqp://guest:guest@127.0.0.1:",
        "http://127.0.0.1:",
        ".flowmesh",
        "redis-cli -p",
        "kcat -P",
    ] {
        assert!(text.contains(word), "{word}\n{text}");
    }
    // Ctrl-C.
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(wait(&mut child, Duration::from_secs(15)).code(), Some(0));
    assert!(dir.path().join(".flowmesh").is_dir());
}

#[test]
fn ephemeral_data_goes_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = flowmesh()
        .current_dir(dir.path())
        .env("TMPDIR", dir.path())
        .args(["dev", "--ephemeral", "-o", "json"])
        .args(FREE_PORTS)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with('{'), "{line}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "its directory is in TMPDIR"
    );
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(wait(&mut child, Duration::from_secs(15)).code(), Some(0));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "and gone"
    );
}

#[test]
fn sigterm_ends_with_0_and_the_data_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let server = Server::start(dir.path());
        assert_eq!(server.stop().code(), Some(0));
    }
    let server = Server::start(dir.path());
    server.kill();
    let server = Server::start(dir.path());
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_idle_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(server.redis(&["SET", "a", "1"]), "+OK\r\n");
    let idle: Vec<TcpStream> = ["resp", "amqp", "kafka", "http", "grpc"]
        .iter()
        .flat_map(|face| [server.addr(face); 3])
        .map(|addr| TcpStream::connect(addr).unwrap())
        .collect();
    let began = Instant::now();
    assert_eq!(server.stop().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    drop(idle);
    let server = Server::start(dir.path());
    assert_eq!(server.redis(&["GET", "a"]), "$1\r\n1\r\n");
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d");
    let server = Server::start(&data);
    let mut second = flowmesh();
    second
        .arg("server")
        .args(FREE_PORTS)
        .arg("--data-dir")
        .arg(&data);
    let (code, _, err) = ends(&mut second);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("is in use by another process"), "{err}");
    assert!(server.stop().success());
}

#[test]
fn backup_of_a_running_and_of_a_stopped_server_then_restore() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d");
    let server = Server::start(&data);
    let http = format!("--http-addr={}", server.addr("http"));
    assert_eq!(server.redis(&["SET", "kept", "safe"]), "+OK\r\n");
    let (code, _, err) = in_dir(dir.path(), &["backup", "online", "--data-dir", "d", &http]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = in_dir(dir.path(), &["backup", "online", "--data-dir", "d", &http]);
    assert_eq!(code, 1, "not empty: {err}");
    let (code, _, err) = in_dir(
        dir.path(),
        &["backup", "elsewhere", "--data-dir", "d", "--http-addr=off"],
    );
    assert!(
        code == 1 && err.contains("http-addr is off"),
        "{code} {err}"
    );
    assert!(server.stop().success());

    let (code, out, err) = in_dir(
        dir.path(),
        &["backup", "offline", "--data-dir", "d", "-o", "json"],
    );
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&out).unwrap()["by"],
        "offline"
    );

    for backup in ["online", "offline"] {
        assert_eq!(in_dir(dir.path(), &["restore", backup, "--check"]).0, 0);
        let target = format!("from-{backup}");
        let (code, _, err) = in_dir(dir.path(), &["restore", backup, "--data-dir", &target]);
        assert_eq!(code, 0, "{err}");
        let (code, _, err) = in_dir(dir.path(), &["restore", backup, "--data-dir", &target]);
        assert!(code == 1 && err.contains("is not empty"), "{code} {err}");
        let restored = Server::start(&dir.path().join(target));
        assert_eq!(restored.redis(&["GET", "kept"]), "$4\r\nsafe\r\n");
        assert!(restored.stop().success());
    }
    let (code, _, err) = in_dir(dir.path(), &["restore", "d", "--data-dir", "e"]);
    assert_ne!(code, 0, "no backup: {err}");
    assert!(!dir.path().join("e").exists());
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn repair_asks_first_and_leaves_sound_data_alone() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Server::start(&dir.path().join("d")).stop().success());
    let (code, _, err) = in_dir(dir.path(), &["repair", "--data-dir", "d"]);
    assert!(code == 2 && err.contains("--yes"), "{code} {err}");
    let (code, out, err) = in_dir(dir.path(), &["repair", "--data-dir", "d", "--yes"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "nothing is damaged, nothing was changed\n"),
        "{err}"
    );
    assert!(Server::start(&dir.path().join("d")).stop().success());
}

#[test]
fn the_configuration_reference_is_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let (_, page, _) = in_dir(dir.path(), &["config", "reference"]);
    let stored = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/CONFIGURATION.md"
    ))
    .unwrap_or_default();
    assert!(
        page == stored,
        "docs/CONFIGURATION.md is stale: `cargo run -- config reference > docs/CONFIGURATION.md`"
    );
}

#[test]
fn doctor_looks_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let offs = [
        "--amqp-addr=off",
        "--kafka-addr=off",
        "--grpc-addr=off",
        "--http-addr=off",
    ];
    let doctor = |more: &[&str]| {
        let mut args = vec!["doctor", "--data-dir=data"];
        args.extend(offs);
        args.extend(more);
        in_dir(dir.path(), &args)
    };

    let (code, out, err) = doctor(&["--resp-addr=127.0.0.1:0", "-o", "json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let checks: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let state = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("{name} in {out}"))["state"].clone()
    };
    for name in [
        "cores",
        "open files",
        "memory",
        "clock",
        "file system",
        "fsync",
    ] {
        assert_ne!(state(name), "fail", "{name}");
    }
    assert_eq!(state("resp"), "ok");
    assert!(!dir.path().join("data").exists(), "nothing is made");

    let (code, out, err) = doctor(&["--resp-addr", &taken]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains(&format!("{taken} cannot be used")) && out.contains("-> "),
        "{out}"
    );
    assert!(err.starts_with("error: 1 of "), "{err}");
}

#[test]
fn systemd_is_told_when_clients_can_connect() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let mut server = flowmesh()
        .args(["server", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(FREE_PORTS)
        .env("NOTIFY_SOCKET", &path)
        .spawn()
        .unwrap();
    assert_eq!(told(), "READY=1");
    let term = Command::new("kill").arg(server.id().to_string()).status();
    assert!(term.unwrap().success());
    assert_eq!(told(), "STOPPING=1");
    assert!(wait(&mut server, Duration::from_secs(60)).success());
}

#[test]
fn a_log_file_that_is_moved_away_gets_a_successor_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let (log, old) = (dir.path().join("log"), dir.path().join("log.1"));
    let flags = [
        format!("--log-file={}", log.display()),
        "--log-format=json".to_owned(),
    ];
    let server = Server::start_with(&dir.path().join("d"), &flags);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    assert!(read(&log).contains("\"ready\""), "{}", read(&log));
    std::fs::rename(&log, &old).unwrap();
    server.signal("HUP");
    let until = Instant::now() + Duration::from_secs(10);
    while !read(&log).contains("opened again") {
        assert!(Instant::now() < until, "{}", read(&log));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.redis(&["PING"]), "+PONG\r\n", "SIGHUP ends nothing");
    assert!(server.stop().success());
    assert!(read(&log).contains("\"stopped\""), "{}", read(&log));
    assert!(!read(&old).contains("\"stopped\""));
    for line in (read(&old) + &read(&log)).lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }

    let file = format!("--log-file={}", dir.path().join("no/log").display());
    let (code, _, err) = in_dir(dir.path(), &["server", "--data-dir=d", &file]);
    assert!(code == 2 && err.contains("log-file"), "{code} {err}");
}
