//! `flowmesh user` and `flowmesh grant`: principals and what they may do, in a running server.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::ask::{ask, segment};
use super::{Exit, Output, fail, output, say, settings};
use crate::config::{Config, Mode};

const WHY: &str = "users and grants are the running server's";

type Said = Result<Value, String>;

fn arg(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).value_name(value).help(help)
}

fn flag(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).action(ArgAction::SetTrue).help(help)
}

pub(super) fn commands(server: &dyn Fn(Command) -> Command) -> [Command; 3] {
    let name = || arg("name", "NAME", "The user's name").required(true);
    let password = || {
        arg(
            "new-password-file",
            "FILE",
            "A file whose first line is the user's password; without it the password is asked for, or read from standard input",
        )
        .long("new-password-file")
        .value_parser(clap::value_parser!(PathBuf))
    };
    let certificate = || {
        arg(
            "certificate",
            "SUBJECT",
            "A name in a client certificate that logs in as this user; may be given several times",
        )
        .long("certificate")
        .action(ArgAction::Append)
    };
    let plain = |command: &'static str, about: &'static str| {
        server(Command::new(command).about(about).arg(name()))
    };
    let user = Command::new("user")
        .about("Who may log in; asks the running server")
        .subcommand_required(true)
        .subcommand(server(
            Command::new("add")
                .about("Add a user")
                .arg(name())
                .arg(flag("superuser", "It may do everything; the first user must"))
                .arg(flag("no-password", "It logs in with a certificate only"))
                .arg(password())
                .arg(certificate()),
        ))
        .subcommand(server(
            Command::new("passwd")
                .about("Change a user's password")
                .arg(name())
                .arg(password()),
        ))
        .subcommand(plain("disable", "Refuse a user's logins and close its connections"))
        .subcommand(plain("enable", "Take a user's logins again"))
        .subcommand(plain("remove", "Remove a user with its grants and close its connections"))
        .subcommand(server(Command::new("list").about("Show all users")))
        .subcommand(server(
            Command::new("import")
                .about("Add the users of a RabbitMQ definitions file (JSON) with their password hashes and without permissions, or those of a Redis ACL file with all that it says")
                .arg(
                    arg("file", "FILE", "The file")
                        .required(true)
                        .value_parser(clap::value_parser!(PathBuf)),
                ),
        ));
    let about = |command: Command| {
        server(
            command
                .arg(arg("whose", "USER", "Whose grant").required(true))
                .arg(arg("kind", "KIND", "key, channel, queue, exchange, topic, group, transactional-id, schema, admin or redis").required(true))
                .arg(arg("pattern", "PATTERN", "Names, with * and ? as in Redis' KEYS").required(true))
                .arg(arg("verbs", "VERBS", "read, write, configure, delete, describe, admin, all; several with commas").required(true))
                .arg(arg("namespace", "NAMESPACE", "default, db1, db2, … or * for all").long("namespace").default_value("default"))
                .arg(flag("literal", "The pattern is a name, whatever letters it has"))
                .arg(flag("deny", "Deny it: a denial wins over all that is allowed")),
        )
    };
    let grant = Command::new("grant")
        .about("What users may do; asks the running server")
        .subcommand_required(true)
        .subcommand(about(
            Command::new("add").about("Allow (or deny) verbs on names"),
        ))
        .subcommand(about(
            Command::new("remove").about("Take verbs on names back"),
        ))
        .subcommand(server(
            Command::new("list").about("Show the grants").arg(arg(
                "whose",
                "USER",
                "Only this user's",
            )),
        ));
    let audit = Command::new("audit")
        .about("Who logged in, was denied, or changed users and grants; asks the running server")
        .subcommand_required(true)
        .subcommand(server(
            Command::new("show")
                .about("Show the rows, oldest first")
                .arg(
                    arg("after", "SEQ", "Only rows behind this number")
                        .long("after")
                        .default_value("0")
                        .value_parser(clap::value_parser!(u64)),
                ),
        ))
        .subcommand(server(Command::new("verify").about(
            "Check that no row was changed or taken out; note the seal to know later that none was cut off",
        )));
    [user, grant, audit]
}

/// Runs `flowmesh user …` or `flowmesh grant …`.
pub(super) fn run(root: &ArgMatches, noun: &str, matches: &ArgMatches) -> Exit {
    let Some((verb, inner)) = matches.subcommand() else {
        return fail(Exit::Usage, "say what to do");
    };
    let (config, _) = match settings::load(&[root, inner], Mode::Server) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let said = match noun {
        "user" => user(&config, verb, inner),
        "audit" => audit(&config, verb, inner),
        _ => grant(&config, verb, inner),
    };
    match (said, output(inner)) {
        (Err(message), _) => fail(Exit::Failed, message),
        (Ok(value), Output::Json) => say(&value.to_string()),
        (Ok(value), Output::Table) => say(&table(noun, verb, &value)),
    }
}

fn text<'m>(matches: &'m ArgMatches, id: &str) -> &'m str {
    matches.get_one::<String>(id).map_or("", String::as_str)
}

fn user(config: &Config, verb: &str, matches: &ArgMatches) -> Said {
    let ask = |method: &str, path: &str, body: &Value| {
        ask(config, method, &format!("/api/v1/users{path}"), body, WHY)
    };
    let own = || format!("/{}", segment(text(matches, "name")));
    match verb {
        "add" => {
            let mut body = json!({
                "name": text(matches, "name"),
                "superuser": matches.get_flag("superuser"),
            });
            let certificates: Vec<_> = matches
                .get_many::<String>("certificate")
                .into_iter()
                .flatten()
                .collect();
            body["certificates"] = json!(certificates);
            if !matches.get_flag("no-password") {
                body["password"] = json!(password(matches)?);
            }
            ask("POST", "", &body)
        }
        "passwd" => ask("PATCH", &own(), &json!({ "password": password(matches)? })),
        "disable" => ask("PATCH", &own(), &json!({ "enabled": false })),
        "enable" => ask("PATCH", &own(), &json!({ "enabled": true })),
        "remove" => ask("DELETE", &own(), &Value::Null),
        "import" => import(
            config,
            matches.get_one::<PathBuf>("file").ok_or("name a file")?,
        ),
        _ => ask("GET", "", &Value::Null),
    }
}

fn grant(config: &Config, verb: &str, matches: &ArgMatches) -> Said {
    let ask = |method: &str, path: &str, body: &Value| ask(config, method, path, body, WHY);
    if verb == "list" {
        let path = match matches.get_one::<String>("whose") {
            Some(user) => format!("/api/v1/grants?user={}", segment(user)),
            None => "/api/v1/grants".to_owned(),
        };
        return ask("GET", &path, &Value::Null);
    }
    let verbs: Vec<_> = text(matches, "verbs").split(',').map(str::trim).collect();
    let body = json!({
        "user": text(matches, "whose"),
        "namespace": text(matches, "namespace"),
        "kind": text(matches, "kind"),
        "pattern_kind": if matches.get_flag("literal") { "literal" } else { "glob" },
        "pattern": text(matches, "pattern"),
        "verbs": verbs,
        "deny": matches.get_flag("deny"),
    });
    let method = if verb == "add" { "POST" } else { "DELETE" };
    ask(method, "/api/v1/grants", &body)
}

fn audit(config: &Config, verb: &str, matches: &ArgMatches) -> Said {
    let ask = |path: &str| ask(config, "GET", path, &Value::Null, WHY);
    if verb == "show" {
        let after = matches.get_one::<u64>("after").copied().unwrap_or(0);
        return ask(&format!("/api/v1/audit?after={after}"));
    }
    let said = ask("/api/v1/audit/verify")?;
    match said["broken"].as_u64() {
        None => Ok(said),
        Some(row) => Err(format!(
            "the chain breaks at row {row}: it or one before it was changed or taken out"
        )),
    }
}

/// From the file, from a person, or from standard input.
fn password(matches: &ArgMatches) -> Result<String, String> {
    let given = if let Some(file) = matches.get_one::<PathBuf>("new-password-file") {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        text.lines().next().unwrap_or_default().to_owned()
    } else if std::io::stdin().is_terminal() {
        let once = prompted("Password: ")?;
        if prompted("Again: ")? != once {
            return Err("the two passwords differ".into());
        }
        once
    } else {
        line()?
    };
    if given.is_empty() {
        return Err("the password is empty".into());
    }
    Ok(given)
}

fn line() -> Result<String, String> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| format!("standard input: {error}"))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Without showing what is typed.
fn prompted(prompt: &str) -> Result<String, String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let mut err = std::io::stderr();
    let _ = write!(err, "{prompt}");
    let stdin = std::io::stdin();
    let told = |error| format!("terminal: {error}");
    let shown = tcgetattr(&stdin).map_err(told)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &hidden).map_err(told)?;
    let line = line();
    let _ = tcsetattr(&stdin, OptionalActions::Now, &shown);
    let _ = writeln!(err);
    line
}

/// The users of a RabbitMQ definitions file, or those of a Redis ACL file with all that it says of them.
fn import(config: &Config, file: &Path) -> Said {
    let shown = file.display();
    let told = |error: &dyn std::fmt::Display| format!("{shown}: {error}");
    let text = std::fs::read_to_string(file).map_err(|error| told(&error))?;
    if !text.trim_start().starts_with('{') {
        let said = ask(
            config,
            "POST",
            "/api/v1/redis-acl",
            &json!({ "text": text }),
            WHY,
        );
        return said.map_err(|error| told(&error));
    }
    let mut added = Vec::new();
    for user in rabbit_users(&text).map_err(|error| told(&error))? {
        let said = ask(config, "POST", "/api/v1/users", &user, WHY).map_err(|error| {
            let name = user["name"].as_str().unwrap_or_default();
            format!("{name}: {error} ({} were added before it)", added.len())
        })?;
        added.push(said["name"].clone());
    }
    Ok(json!({ "added": added }))
}

/// As the API takes them.
fn rabbit_users(text: &str) -> Result<Vec<Value>, String> {
    let all: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let users = all["users"]
        .as_array()
        .ok_or("there is no list of users in it")?;
    if users.is_empty() {
        return Err("there are no users in it".into());
    }
    users.iter().map(of_rabbit).collect()
}

fn of_rabbit(user: &Value) -> Said {
    let name = user["name"].as_str().ok_or("a user without a name")?;
    let kind = match user["hashing_algorithm"].as_str() {
        None | Some("rabbit_password_hashing_sha256") => "rabbitmq-sha256",
        Some("rabbit_password_hashing_sha512") => "rabbitmq-sha512",
        Some(other) => return Err(format!("{name}: hashes of {other} cannot be taken over")),
    };
    let hash = user["password_hash"].as_str().unwrap_or_default();
    let mut made = json!({ "name": name });
    // An empty hash is a user without a password.
    if !hash.is_empty() {
        made["hash"] = json!({ "kind": kind, "value": hash });
    }
    Ok(made)
}

fn table(noun: &str, verb: &str, value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |value: &Value| {
        let words = value.as_array().into_iter().flatten().map(text);
        words.collect::<Vec<_>>().join(",")
    };
    let mut out = String::new();
    match (noun, verb) {
        ("user", "list") => {
            for user in value["users"].as_array().into_iter().flatten() {
                let state = if user["enabled"] == true {
                    "enabled"
                } else {
                    "disabled"
                };
                let rank = if user["superuser"] == true {
                    " superuser"
                } else {
                    ""
                };
                out.push_str(&format!(
                    "{}\t{state}{rank}\t{}\n",
                    text(&user["name"]),
                    words(&user["credentials"])
                ));
            }
        }
        ("grant", "list") => {
            for grant in value["grants"].as_array().into_iter().flatten() {
                let effect = if grant["deny"] == true {
                    "deny"
                } else {
                    "allow"
                };
                out.push_str(&format!(
                    "{}\t{effect}\t{}\t{}\t{} {}\t{}\n",
                    text(&grant["user"]),
                    words(&grant["verbs"]),
                    text(&grant["kind"]),
                    text(&grant["pattern_kind"]),
                    text(&grant["pattern"]),
                    text(&grant["namespace"])
                ));
            }
        }
        ("audit", "show") => {
            for row in value["rows"].as_array().into_iter().flatten() {
                out.push_str(&format!(
                    "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\tx{}\n",
                    row["seq"],
                    row["time_ms"],
                    text(&row["face"]),
                    text(&row["who"]),
                    text(&row["from"]),
                    text(&row["outcome"]),
                    text(&row["what"]),
                    text(&row["object"]),
                    row["times"]
                ));
            }
        }
        ("audit", _) => {
            out = format!(
                "{} rows, the last is {} with seal {}",
                value["rows"],
                value["last"],
                text(&value["seal"])
            );
        }
        ("user", "import") => {
            out = format!("added: {}", words(&value["added"]));
            for line in value["skipped"].as_array().into_iter().flatten() {
                out.push_str(&format!("\n{}", text(line)));
            }
        }
        _ => out.push_str("done"),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_other_servers() {
        let rabbit = json!({ "name": "carol", "password_hash": "aGk=", "hashing_algorithm": "rabbit_password_hashing_sha512", "tags": [] });
        assert_eq!(
            of_rabbit(&rabbit).unwrap()["hash"]["kind"],
            "rabbitmq-sha512"
        );
        assert_eq!(segment("a b/ü"), "a%20b%2F%C3%BC");
    }
}
