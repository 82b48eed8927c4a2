//! An ACL file of Redis: `user name rule…`, a user a line; read whole and made users in one record, or not at all.

use std::collections::HashSet;
use std::net::IpAddr;

use broker::access::{DEFAULT, Identity};
use broker::{Lsn, Millis};

use super::draft::is_space;
use super::edit::{self, By, Rules};
use crate::config::Face;
use crate::node::Node;
use crate::resp::fail::Fail;
use crate::resp::parse::is;

/// What became of a file.
#[derive(Debug)]
pub(crate) struct Imported {
    /// Names of users, in the order of the file.
    pub(crate) added: Vec<String>,
    /// Lines that say nothing here, and why.
    pub(crate) skipped: Vec<String>,
    pub(crate) lsn: Lsn,
}

/// Makes the users of a file. An error names the line that it is about.
pub(crate) fn import(
    node: &Node,
    who: &Identity,
    from: IpAddr,
    now: Millis,
    text: &str,
) -> Result<Imported, String> {
    let by = By {
        who,
        from,
        face: Face::Http,
        now,
        all_channels: false,
    };
    let (mut lines, mut users, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = HashSet::new();
    for (line, text) in (1..).zip(text.lines()) {
        let of_line = |why: &str| format!("line {line}: {why}");
        let words: Vec<&[u8]> = text
            .trim()
            .split(' ')
            .map(str::as_bytes)
            .filter(|word| !word.is_empty())
            .collect();
        let rules = match words.as_slice() {
            [] => continue,
            [first, ..] if first.starts_with(b"#") => continue,
            [b"user", _, rules @ ..] => rules,
            _ => {
                return Err(of_line(
                    "a line begins with the word user and the user's name",
                ));
            }
        };
        // It is one of the words, so it is there.
        let name = text.trim().split(' ').filter(|word| !word.is_empty());
        let name = name.into_iter().nth(1).unwrap_or_default();
        if name.bytes().any(is_space) {
            return Err(of_line("a user's name has no spaces"));
        }
        if !names.insert(name) {
            return Err(of_line(&format!("the user '{name}' is there twice")));
        }
        let opens = || rules.iter().any(|rule| is(rule, "nopass"));
        if name == DEFAULT && node.auth.required() && opens() {
            skipped.push(of_line(
                "'default' with nopass is left out: it would let in who does not log in, on every protocol",
            ));
            continue;
        }
        // `default` is always there.
        let reset: &[&[u8]] = if name == DEFAULT { &[b"reset"] } else { &[] };
        let rules = Rules::read(name, &[reset, rules].concat());
        let mut rules = rules.map_err(|fail| of_line(plain(&fail)))?;
        rules.is_new = true;
        lines.push(line);
        users.push(rules);
    }
    if users.is_empty() && skipped.is_empty() {
        return Err("there are no users in it".to_owned());
    }
    let done = edit::set_all(node, &by, "import acl", &users);
    let lsn = done.map_err(|(place, fail)| match place.and_then(|at| lines.get(at)) {
        Some(line) => format!("line {line}: {}", plain(&fail)),
        None => plain(&fail).to_owned(),
    })?;
    Ok(Imported {
        added: users.iter().map(|user| user.name.to_owned()).collect(),
        skipped,
        lsn,
    })
}

/// Without the words that are for Redis clients.
fn plain(fail: &Fail) -> &str {
    let text = fail.text();
    let text = text.strip_prefix("ERR ").unwrap_or(text);
    text.strip_prefix("Error in ACL SETUSER modifier ")
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Config, Mode, Secret, Value};
    use crate::resp::acl::view;

    const ONE: &str = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";

    fn node(dir: &std::path::Path, password: &str) -> Arc<Node> {
        let config = Config {
            data_dir: dir.to_owned(),
            password: Secret::parse(password).unwrap(),
            ..Config::default()
        };
        Node::open(config, Mode::Dev, Vec::new()).unwrap()
    }

    fn import_into(node: &Node, text: &str) -> Result<Imported, String> {
        let who = Identity::configured(&node.broker.access, "root");
        let here = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        import(node, &who, here, Millis(1), text)
    }

    #[test]
    fn whole_lines_become_users() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path(), "s3cret");
        let lines = [
            format!(
                "user alice on #{ONE} ~cart:* %R~stock:* resetchannels &news.* -@all +@read +set -keys (~only:* resetchannels -@all +del) (%W~log:* resetchannels -@all +append)"
            ),
            "user bob off ~* &* +@all -@dangerous +config|get".to_owned(),
            "user carol on nopass ~x -@all +get".to_owned(),
        ];
        let text = format!(
            "# of Redis\r\n\r\nuser default on nopass sanitize-payload ~* &* +@all\n{}\n",
            lines.join("\n")
        );
        let done = import_into(&node, &text).unwrap();
        assert_eq!(done.added, ["alice", "bob", "carol"]);
        assert!(done.skipped[0].starts_with("line 3: 'default'"));
        for (line, name) in lines.iter().zip(done.added) {
            let shown = view::somebody(&node, &name).unwrap().line(&name);
            let shown = String::from_utf8(shown).unwrap();
            let wanted = line.replace("nopass ~x -@all", "nopass ~x resetchannels -@all");
            assert_eq!(shown, wanted);
        }
    }

    #[test]
    fn default_is_as_the_file_says_where_nobody_logs_in_yet() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path(), "");
        let text = format!("user default on #{ONE} ~* &* +@all\nuser a on >b ~* +get");
        let done = import_into(&node, &text).unwrap();
        assert_eq!(done.added, ["default", "a"]);
        assert!(node.auth.required());
        assert!(node.broker.access.principal(DEFAULT).unwrap().superuser);
    }

    #[test]
    fn nothing_of_a_file_that_is_wrong_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path(), "s3cret");
        import_into(&node, "user known on").unwrap();
        for (text, why) in [
            ("", "there are no users"),
            (
                "user a on\nuser b +nothing",
                "line 2: '+nothing': Unknown command",
            ),
            (
                "user a on\n\nuser a on",
                "line 3: the user 'a' is there twice",
            ),
            ("user a on\nrequirepass x", "line 2: a line begins with"),
            ("user", "line 1: a line begins with"),
            ("user a (+get", "line 1: Unmatched parenthesis"),
            ("user a #12", "line 1: '#12': The password hash"),
            (
                "user a db=0",
                "line 1: 'db=0': Databases are not chosen here",
            ),
            ("user a on\nuser known off", "line 2: "),
            (
                "user default on >x",
                "line 1: The user 'default' is of the server's",
            ),
        ] {
            let error = import_into(&node, text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(node.broker.access.principal("a").is_none(), "{text:?}");
        }
        assert!(node.broker.access.principal("known").unwrap().enabled);
    }
}
