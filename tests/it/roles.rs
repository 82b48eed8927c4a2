//! Every path of the admin API against every role (RabbitMQ CVE-2024-51988: one path that did not ask).

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::access::{PASSWORD, add_user, api, api_as, grant, start};
use crate::server::{Server, http};

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    /// Of kind admin: the area and the verb.
    Grant(&'static str, &'static str),
    Superuser,
}

/// The path as the router has it, a path to ask for, and for each method who may.
type Row = (&'static str, &'static str, &'static [(&'static str, Who)]);

const SUPER_GET: &[(&str, Who)] = &[("GET", Who::Superuser)];
const ROWS: &[Row] = &[
    ("/", "/", &[("GET", Who::Anybody)]),
    ("/healthz", "/healthz", &[("GET", Who::Anybody)]),
    ("/readyz", "/readyz", &[("GET", Who::Anybody)]),
    ("/metrics", "/metrics", &[("GET", Who::Anybody)]),
    (
        "/info",
        "/api/v1/info",
        &[("GET", Who::Grant("server", "describe"))],
    ),
    (
        "/backup",
        "/api/v1/backup",
        &[("POST", Who::Grant("backup", "admin"))],
    ),
    (
        "/profile/cpu",
        "/api/v1/profile/cpu?seconds=0",
        &[("GET", Who::Grant("server", "admin"))],
    ),
    (
        "/profile/heap",
        "/api/v1/profile/heap",
        &[("GET", Who::Grant("server", "describe"))],
    ),
    (
        "/users",
        "/api/v1/users",
        &[("GET", Who::Superuser), ("POST", Who::Superuser)],
    ),
    (
        "/users/{name}",
        "/api/v1/users/victim",
        &[
            ("GET", Who::Superuser),
            ("PATCH", Who::Superuser),
            ("DELETE", Who::Superuser),
        ],
    ),
    (
        "/redis-acl",
        "/api/v1/redis-acl",
        &[("POST", Who::Superuser)],
    ),
    (
        "/grants",
        "/api/v1/grants",
        &[
            ("GET", Who::Superuser),
            ("POST", Who::Superuser),
            ("DELETE", Who::Superuser),
        ],
    ),
    (
        "/amqp/trace",
        "/api/v1/amqp/trace",
        &[("GET", Who::Superuser), ("POST", Who::Superuser)],
    ),
    ("/audit", "/api/v1/audit", SUPER_GET),
    ("/audit/verify", "/api/v1/audit/verify", SUPER_GET),
];

/// Every `.route("…` in the source of the API.
fn routes() -> BTreeSet<String> {
    fn look(dir: &Path, found: &mut BTreeSet<String>) {
        for file in std::fs::read_dir(dir).unwrap().flatten() {
            let path = file.path();
            if path.is_dir() {
                look(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for rest in text.split(".route(").skip(1) {
                    let name = rest.trim_start().strip_prefix('"').expect("a literal path");
                    found.insert(name.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    look(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api"),
        &mut found,
    );
    found
}

fn ask(server: &Server, login: Option<&str>, method: &str, path: &str) -> u16 {
    let login = login.map_or_else(String::new, |login| {
        format!("authorization: Basic {login}\r\n")
    });
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{login}content-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
    );
    http(server.addr("http"), &request).0
}

#[test]
fn every_path_asks_who_it_is() {
    let known: BTreeSet<String> = ROWS.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(routes(), known, "each path has its row here");
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    // Base64 of their names with `a password of theirs`.
    let (nothing, data, admin) = (
        "bm90aGluZzphIHBhc3N3b3JkIG9mIHRoZWlycw==",
        "ZGF0YTphIHBhc3N3b3JkIG9mIHRoZWlycw==",
        "YWRtaW46YSBwYXNzd29yZCBvZiB0aGVpcnM=",
    );
    for user in ["nothing", "data", "admin", "victim"] {
        add_user(&server, user);
    }
    let all = ["read", "write", "configure", "delete", "describe", "admin"];
    for kind in ["key", "channel", "queue", "exchange", "topic", "group"] {
        grant(&server, "POST", "data", kind, "*", &all, false);
    }
    grant(&server, "POST", "admin", "admin", "*", &all, false);
    for (_, path, methods) in ROWS {
        for (method, who) in *methods {
            for (role, login) in [
                ("nobody", None),
                ("a wrong password", Some("bm90aGluZzp4")),
                ("nothing", Some(nothing)),
                ("data", Some(data)),
                ("admin", Some(admin)),
            ] {
                let status = ask(&server, login, method, path);
                let refused = match (who, role) {
                    (Who::Anybody, _) | (Who::Grant(..), "admin") => None,
                    (_, "nobody" | "a wrong password") => Some(401),
                    _ => Some(403),
                };
                match refused {
                    Some(want) => assert_eq!(status, want, "{method} {path} as {role}"),
                    None => assert!(
                        !matches!(status, 401 | 403),
                        "{method} {path} as {role}: {status}"
                    ),
                }
            }
        }
        // Methods that there are not, and paths that only look alike, let nobody further.
        for path in [
            format!("{path}/"),
            format!("/{path}"),
            format!("{path}/../users"),
            path.to_uppercase(),
        ] {
            for method in ["GET", "POST", "DELETE", "PUT", "OPTIONS", "TRACE"] {
                let status = ask(&server, Some(data), method, &path);
                let open = matches!(path.as_str(), "/" | "//");
                assert!(
                    open || matches!(status, 400 | 403..=405),
                    "{method} {path}: {status}"
                );
            }
        }
    }
    // A grant of one area or verb is none of another.
    for (_, path, methods) in ROWS {
        for (method, who) in *methods {
            let Who::Grant(area, verb) = who else {
                continue;
            };
            let other = if *verb == "admin" {
                "describe"
            } else {
                "admin"
            };
            grant(&server, "POST", "nothing", "admin", area, &[other], false);
            grant(
                &server,
                "POST",
                "nothing",
                "admin",
                "elsewhere",
                &all,
                false,
            );
            let describes = *verb == "describe";
            let status = ask(&server, Some(nothing), method, path);
            assert!(status == 403 || describes, "{method} {path}: {status}");
            grant(&server, "DELETE", "nothing", "admin", area, &[other], false);
        }
    }
    // Nothing of all this has changed anything.
    let (_, users) = api(&server, "GET", "/users", &Value::Null);
    let names: Vec<_> = users["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["name"].clone())
        .collect();
    assert_eq!(
        names,
        [
            json!("admin"),
            json!("data"),
            json!("nothing"),
            json!("victim")
        ]
    );
    assert_eq!(
        api_as(&server, nothing, "GET", "/users", &Value::Null).0,
        403
    );
    assert_eq!(PASSWORD, "a password of theirs");
    assert!(server.stop().success());
}
