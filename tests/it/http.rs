//! The HTTP face.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::server::{Server, http};

#[test]
fn health_metrics_info_and_landing_page() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(server.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(server.get("/readyz"), (200, "ready\n".into()));

    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "flowmesh_connections{face=\"resp\"} 0",
        "process_resident_memory_bytes ",
        "flowmesh_build_info{version=",
        "flowmesh_keys{db=\"0\"} 0",
        "flowmesh_queues 0",
        "flowmesh_commands_total{face=\"http\"} 2",
        "flowmesh_log_records_total ",
    ] {
        assert!(text.contains(name), "{name}\n{text}");
    }

    // Prometheus refuses a page that has a family twice.
    let mut families: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    let all = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), all, "{text}");

    let (status, text) = server.get("/api/v1/info");
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &info["name"], &info["phase"]),
        (200, &"flowmesh".into(), &"ready".into())
    );
    assert_eq!(info["objects"]["keys"], 0);
    assert_eq!(
        info["faces"]["http"]["addresses"][0],
        server.addr("http").to_string()
    );

    let (status, page) = server.get("/");
    assert_eq!(status, 200);
    assert!(
        page.contains(&format!("redis://{}", server.addr("resp"))) && !page.contains("{resp}"),
        "{page}"
    );

    assert_eq!(server.get("/nowhere").0, 404);
    assert!(server.stop().success());
}

#[test]
fn the_api_asks_for_the_password_and_probes_need_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--password=s3cret"]);
    assert_eq!(server.get("/healthz").0, 200);
    assert_eq!(server.get("/api/v1/info").0, 401);
    let with = |encoded: &str| {
        let request = format!(
            "GET /api/v1/info HTTP/1.1\r\nhost: x\r\nauthorization: Basic {encoded}\r\nconnection: close\r\n\r\n"
        );
        http(server.addr("http"), &request).0
    };
    // flowmesh:s3cret and flowmesh:wrong
    assert_eq!(
        (with("Zmxvd21lc2g6czNjcmV0"), with("Zmxvd21lc2g6d3Jvbmc=")),
        (200, 401)
    );
}

#[test]
fn a_backup_needs_json_and_an_absolute_path() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(
        server.post("/api/v1/backup", r#"{"dir":"relative"}"#).0,
        400
    );
    assert_eq!(
        server
            .post("/api/v1/backup", r#"{"dir":"/tmp/x","typo":1}"#)
            .0,
        422
    );
    let form = "POST /api/v1/backup HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\nconnection: close\r\n\r\n{\"dir\":\"/tmp\"}";
    assert_eq!(
        http(server.addr("http"), form).0,
        415,
        "what a web page could send"
    );
    assert_eq!(server.get("/api/v1/backup").0, 405);
}

#[test]
fn profiles_of_cpu_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (status, text) = server.get("/api/v1/profile/heap");
    let heap: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert!(
        heap["allocator"]["allocated"].as_u64().unwrap() > 1 << 20,
        "{text}"
    );
    assert!(heap["keys"]["limit"].as_u64().unwrap() > 1 << 20, "{text}");
    let (status, text) = server.get("/api/v1/profile/heap?format=text");
    assert!(status == 200 && text.contains("Allocated"), "{text}");

    for (query, code) in [
        ("seconds=0", 400),
        ("seconds=61", 400),
        ("hz=1000", 400),
        ("seconds=-1", 400),
        ("typo=1", 400),
    ] {
        assert_eq!(
            server.get(&format!("/api/v1/profile/cpu?{query}")).0,
            code,
            "{query}"
        );
    }
    // Samples come with CPU time, so something must run.
    let stop = AtomicBool::new(false);
    let (mut both, next) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut socket = TcpStream::connect(server.addr("resp")).unwrap();
            let many = "INCR counter\r\n".repeat(1000);
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let mut line = String::new();
            while !stop.load(Ordering::SeqCst) {
                socket.write_all(many.as_bytes()).unwrap();
                for _ in 0..1000 {
                    line.clear();
                    assert!(reader.read_line(&mut line).unwrap() > 2);
                }
            }
        });
        let path = "/api/v1/profile/cpu?seconds=2&hz=499&format=folded";
        let other = scope.spawn(|| server.get(path));
        let both = [server.get(path), other.join().unwrap_or_default()];
        let next = server.get("/api/v1/profile/cpu?seconds=1&hz=9&format=folded");
        stop.store(true, Ordering::SeqCst);
        (both, next)
    });
    both.sort();
    let [(status, text), (busy, _)] = &both;
    assert_eq!((*status, *busy), (200, 409), "one at a time: {both:?}");
    let of_the_face = |line: &str| line.starts_with("net-") && line.contains("flowmesh::resp");
    assert!(text.lines().any(of_the_face), "{text}");
    assert_eq!(next.0, 200, "{}", next.1);
    assert!(server.stop().success(), "it goes on, and stops");
}

#[test]
fn a_profile_asks_for_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--password=s3cret"]);
    assert_eq!(server.get("/api/v1/profile/cpu?seconds=1").0, 401);
    assert_eq!(server.get("/api/v1/profile/heap").0, 401);
}
