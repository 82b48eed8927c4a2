//! Which connections `CLIENT LIST` and `CLIENT KILL` mean. All that is said must be true of one.

use std::sync::atomic::Ordering;

use protocol_resp::{Args, number};

use super::flags;
use crate::resp::client::Client;
use crate::resp::fail::{Fail, lossy};
use crate::resp::parse::is;
use crate::resp::session::Session;

/// `TYPE`. There are no replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Normal,
    PubSub,
    None,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Filter {
    ids: Vec<u64>,
    kind: Option<Type>,
    addr: Option<String>,
    laddr: Option<String>,
    ip: Option<String>,
    user: Option<String>,
    name: Option<String>,
    lib_name: Option<String>,
    lib_ver: Option<String>,
    flags: Option<String>,
    db: Option<usize>,
    idle_s: Option<u64>,
    age_s: Option<u64>,
    /// Not the one who asks.
    pub(super) skip_me: Option<bool>,
}

/// Seconds of `IDLE` and `MAXAGE`.
fn seconds(text: &[u8], option: &str) -> Result<Option<u64>, Fail> {
    match number::parse_i64(text) {
        None => Err(Fail::Owned(format!(
            "ERR {option} is not an integer or out of range"
        ))),
        Some(seconds) if seconds <= 0 => Err(Fail::Owned(format!(
            "ERR {option} should be greater than 0"
        ))),
        Some(seconds) => Ok(u64::try_from(seconds).ok()),
    }
}

fn type_of(word: &[u8]) -> Result<Type, Fail> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(Type::Normal),
        b"pubsub" => Ok(Type::PubSub),
        b"master" | b"primary" | b"replica" | b"slave" => Ok(Type::None),
        _ => Err(Fail::Owned(format!(
            "ERR Unknown client type '{}'",
            lossy(word, 128)
        ))),
    }
}

impl Filter {
    /// Reads options and their values.
    pub(super) fn parse(session: &Session, args: &Args<'_>) -> Result<Self, Fail> {
        /// All letters that `flags=` can have.
        const LETTERS: &str = "AbBcdeiMNOPrRStTuUxI";
        let mut filter = Self::default();
        let mut at = 0;
        while let Some(option) = args.get(at) {
            let value = args.get(at + 1).ok_or(Fail::Syntax)?;
            let text = || Some(lossy(value, 512));
            at += 2;
            if is(option, "ID") {
                let mut value = Some(value);
                while let Some(id) = value.and_then(number::parse_i64) {
                    let id = u64::try_from(id).ok().filter(|id| *id > 0);
                    let id = id.ok_or(Fail::Text("ERR client-id should be greater than 0"))?;
                    filter.ids.push(id);
                    value = args.get(at);
                    at += 1;
                }
                at -= 1;
                if filter.ids.is_empty() {
                    return Err(Fail::Syntax);
                }
            } else if is(option, "TYPE") {
                filter.kind = Some(type_of(value)?);
            } else if is(option, "ADDR") {
                filter.addr = text();
            } else if is(option, "LADDR") {
                filter.laddr = text();
            } else if is(option, "IP") {
                filter.ip = text();
            } else if is(option, "NAME") {
                filter.name = text();
            } else if is(option, "LIB-NAME") {
                filter.lib_name = text();
            } else if is(option, "LIB-VER") {
                filter.lib_ver = text();
            } else if is(option, "FLAGS") {
                let letters = lossy(value, 64);
                if !letters.chars().all(|letter| LETTERS.contains(letter)) {
                    return Err(Fail::Owned(format!(
                        "ERR Unknown flags found in the provided filter: {letters}"
                    )));
                }
                filter.flags = Some(letters);
            } else if is(option, "USER") {
                let auth = &session.node.auth;
                let user = lossy(value, 512);
                let known = user == "default"
                    || auth.user() == Some(&user)
                    || auth.access().principal(&user).is_some();
                if !known {
                    return Err(Fail::Owned(format!("ERR No such user '{user}'")));
                }
                filter.user = Some(user);
            } else if is(option, "DB") {
                let databases = session.node.config.resp_databases;
                let db = number::parse_i64(value);
                let db = db.ok_or(Fail::Text("ERR DB is not an integer or out of range"))?;
                let db = usize::try_from(db).ok();
                let db = db.filter(|db| *db < usize::from(databases));
                if db.is_none() {
                    return Err(Fail::Owned(format!(
                        "ERR DB number should be between 0 and {}",
                        databases.saturating_sub(1)
                    )));
                }
                filter.db = db;
            } else if is(option, "IDLE") {
                filter.idle_s = seconds(value, "idle")?;
            } else if is(option, "MAXAGE") {
                filter.age_s = seconds(value, "maxage")?;
            } else if is(option, "SKIPME") {
                filter.skip_me = if is(value, "yes") {
                    Some(true)
                } else if is(value, "no") {
                    Some(false)
                } else {
                    return Err(Fail::Syntax);
                };
            } else {
                return Err(Fail::Syntax);
            }
        }
        Ok(filter)
    }

    pub(super) fn takes(&self, client: &Client, now_ms: u64) -> bool {
        let facts = client.facts.lock().clone();
        let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|of| of == is);
        let kind = if client.seen.subscriptions() > 0 {
            Type::PubSub
        } else {
            Type::Normal
        };
        let user = if facts.user.is_empty() {
            "default"
        } else {
            &facts.user
        };
        let used_ms = client.used_ms.load(Ordering::Relaxed);
        let db = client.seen.db.load(Ordering::Relaxed);
        (self.ids.is_empty() || self.ids.contains(&client.id))
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self.db.is_none_or(|wanted| wanted == db)
            && self.age_s.is_none_or(|age| seconds(client.since_ms) >= age)
            && self.idle_s.is_none_or(|idle| seconds(used_ms) >= idle)
            && same(&self.user, user)
            && same(&self.name, &facts.name)
            && same(&self.lib_name, &facts.lib_name)
            && same(&self.lib_ver, &facts.lib_ver)
            && (self.ip.is_none() || same(&self.ip, &client.peer.ip().to_string()))
            && (self.addr.is_none() || same(&self.addr, &client.peer_name()))
            && (self.laddr.is_none() || same(&self.laddr, &client.local_name()))
            && self.flags.as_ref().is_none_or(|wanted| {
                let has = flags(client);
                wanted.chars().all(|letter| has.contains(letter))
            })
    }
}
