//! What a command does to which objects, and whether its client may: read from the command's row, before it runs or is queued.
//!
//! The words are those of Redis 7.2's ACL. Keys need `read`, `write`, or for what tells only of their being there `describe`;
//! channels `read` to subscribe and `write` to publish; the server itself is of kind admin, by areas.

use broker::access::{Identity, Kind, Namespace, Verbs};
use protocol_resp::Args;

use super::commands::generic::database;
use super::commands::{geo, sort};
use super::fail::{Done, Fail};
use super::parse::is;
use super::spec::{Flags, Spec};
use crate::node::Node;

/// Which rights a command needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rights {
    /// Of all its keys what the flags say: `write`, or else `read`.
    Flags,
    /// These of all its keys.
    Keys(Verbs),
    /// These of the first key and those of the others.
    Split(Verbs, Verbs),
    /// `configure`, `read` … of the server, by area.
    Admin(&'static str, Verbs),
    /// `describe` of every key that the glob at this argument matches; 0: of all.
    AllKeys(usize),
    /// This of the channels from this argument on; globs for `PSUBSCRIBE`.
    Channels {
        from: usize,
        verb: Verbs,
        glob: bool,
    },
    /// This of the one channel at argument 1.
    Channel(Verbs),
    With(fn(&Asking<'_>, &Args<'_>) -> bool),
}

/// To read what was there and to change it.
pub(crate) const BOTH: Verbs = Verbs::READ.and(Verbs::WRITE);

/// Who asks, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) node: &'a Node,
    pub(crate) db: usize,
}

const NO_KEY: Fail = Fail::Text("NOPERM No permissions to access a key");
const NO_CHANNEL: Fail = Fail::Text("NOPERM No permissions to access a channel");

/// May the client run the command? Who is not restricted does not come here.
pub(crate) fn check(asking: &Asking<'_>, spec: &Spec, args: &Args<'_>) -> Done {
    let namespace = Namespace::of_database(asking.db);
    let yes = |yes: bool, fail: Fail| if yes { Ok(()) } else { Err(fail) };
    match spec.rights {
        Rights::Flags => {
            let verb = if spec.flags.has(Flags::WRITE) {
                Verbs::WRITE
            } else {
                Verbs::READ
            };
            yes(asking.keys(spec, args, verb, verb), NO_KEY)
        }
        Rights::Keys(verbs) => yes(asking.keys(spec, args, verbs, verbs), NO_KEY),
        Rights::Split(first, others) => yes(asking.keys(spec, args, first, others), NO_KEY),
        Rights::AllKeys(place) => {
            let glob = if place == 0 { b"*" } else { args.at(place) };
            let may = asking
                .identity
                .allows_all(Kind::Key, namespace, glob, Verbs::DESCRIBE);
            yes(may, NO_KEY)
        }
        Rights::Channels { from, verb, glob } => {
            let may = args
                .iter()
                .skip(from)
                .all(|name| asking.channel(name, verb, glob));
            yes(may, NO_CHANNEL)
        }
        Rights::Channel(verb) => yes(asking.channel(args.at(1), verb, false), NO_CHANNEL),
        Rights::Admin(area, verb) => {
            let area = area.as_bytes();
            let may = asking
                .identity
                .allows(Kind::Admin, Namespace::DEFAULT, area, verb);
            if may {
                Ok(())
            } else {
                Err(asking.no_command(spec))
            }
        }
        Rights::With(may) => {
            if may(asking, args) {
                return Ok(());
            }
            Err(match spec.keys {
                super::spec::Keys::None => asking.no_command(spec),
                _ => NO_KEY,
            })
        }
    }
}

impl Asking<'_> {
    fn keys(&self, spec: &Spec, args: &Args<'_>, first: Verbs, others: Verbs) -> bool {
        let namespace = Namespace::of_database(self.db);
        let (mut may, mut verbs) = (true, first);
        spec.each_key(args, &mut |place| {
            may = may
                && self
                    .identity
                    .allows(Kind::Key, namespace, args.at(place), verbs);
            verbs = others;
        });
        may
    }

    fn key_in(&self, db: usize, key: &[u8], verbs: Verbs) -> bool {
        let namespace = Namespace::of_database(db);
        self.identity.allows(Kind::Key, namespace, key, verbs)
    }

    /// May it know of every key that begins so, in all databases?
    pub(crate) fn prefix(&self, prefix: &[u8]) -> bool {
        let mut glob = Vec::with_capacity(prefix.len() + 1);
        for byte in prefix {
            if b"*?[]\\^-".contains(byte) {
                glob.push(b'\\');
            }
            glob.push(*byte);
        }
        glob.push(b'*');
        (0..usize::from(self.node.config.resp_databases)).all(|db| {
            let namespace = Namespace::of_database(db);
            self.identity
                .allows_all(Kind::Key, namespace, &glob, Verbs::DESCRIBE)
        })
    }

    /// Channels are not of a database.
    pub(crate) fn channel(&self, name: &[u8], verb: Verbs, glob: bool) -> bool {
        let (kind, namespace) = (Kind::Channel, Namespace::DEFAULT);
        if glob {
            self.identity.allows_all(kind, namespace, name, verb)
        } else {
            self.identity.allows(kind, namespace, name, verb)
        }
    }

    fn no_command(&self, spec: &Spec) -> Fail {
        let user = self.identity.name().unwrap_or("default");
        Fail::Owned(format!(
            "NOPERM User {user} has no permissions to run the '{}' command",
            spec.name
        ))
    }
}

/// `SET key value … GET` tells the old value.
pub(crate) fn set(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    write_that_tells(
        asking,
        args,
        args.iter().skip(3).any(|word| is(word, "GET")),
    )
}

/// `ZADD key … INCR …` tells the new score.
pub(crate) fn zadd(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    const OPTIONS: [&str; 5] = ["NX", "XX", "GT", "LT", "CH"];
    let mut words = args.iter().skip(2);
    let word = words.find(|word| !OPTIONS.iter().any(|option| is(word, option)));
    write_that_tells(asking, args, word.is_some_and(|word| is(word, "INCR")))
}

/// `BITFIELD key … SET|INCRBY …` writes, and tells what was there.
pub(crate) fn bitfield(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    let writes = (args.iter().skip(2)).any(|word| is(word, "SET") || is(word, "INCRBY"));
    let verbs = if writes { BOTH } else { Verbs::READ };
    asking.key_in(asking.db, args.at(1), verbs)
}

/// `GEORADIUS key … STORE key`.
pub(crate) fn georadius(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    let stores = |place: usize| asking.key_in(asking.db, args.at(place), Verbs::WRITE);
    asking.key_in(asking.db, args.at(1), Verbs::READ) && geo::target(args).is_none_or(stores)
}

/// `SORT key … BY pattern GET pattern STORE key`: whose patterns may name any key must be allowed to read all.
pub(crate) fn sort(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    let namespace = Namespace::of_database(asking.db);
    let Ok(options) = sort::Options::of(args) else {
        // The handler refuses it before it looks at any key but this one.
        return asking.key_in(asking.db, args.at(1), Verbs::READ);
    };
    let everywhere = || {
        let identity = asking.identity;
        identity.allows_all(Kind::Key, namespace, b"*", Verbs::READ)
    };
    let stores = |place: usize| asking.key_in(asking.db, args.at(place), Verbs::WRITE);
    asking.key_in(asking.db, args.at(1), Verbs::READ)
        && (!options.looks_elsewhere() || everywhere())
        && options.store.is_none_or(stores)
}

fn write_that_tells(asking: &Asking<'_>, args: &Args<'_>, tells: bool) -> bool {
    let verbs = if tells { BOTH } else { Verbs::WRITE };
    asking.key_in(asking.db, args.at(1), verbs)
}

/// A database that is not one is refused by the handler.
fn database_of(asking: &Asking<'_>, text: &[u8]) -> usize {
    database(text, usize::from(asking.node.config.resp_databases)).unwrap_or(asking.db)
}

/// `COPY from to [DB n]`.
pub(crate) fn copy(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    // The handler takes the last one.
    let place = (3..args.len()).rfind(|place| is(args.at(*place), "DB"));
    let to = place
        .and_then(|place| args.get(place + 1))
        .map_or(asking.db, |text| database_of(asking, text));
    asking.key_in(asking.db, args.at(1), Verbs::READ) && asking.key_in(to, args.at(2), Verbs::WRITE)
}

/// `MOVE key db`.
pub(crate) fn move_(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    let to = database_of(asking, args.at(2));
    asking.key_in(asking.db, args.at(1), BOTH) && asking.key_in(to, args.at(1), Verbs::WRITE)
}

/// `SCAN cursor … MATCH glob`.
pub(crate) fn scan(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    // The handler takes the last one.
    let mut words = (2..args.len()).step_by(2);
    let place = words.rfind(|place| is(args.at(*place), "MATCH"));
    let glob = place.and_then(|place| args.get(place + 1)).unwrap_or(b"*");
    let namespace = Namespace::of_database(asking.db);
    asking
        .identity
        .allows_all(Kind::Key, namespace, glob, Verbs::DESCRIBE)
}

/// `PUBSUB CHANNELS [glob]`.
pub(crate) fn channels(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    asking.channel(args.get(2).unwrap_or(b"*"), Verbs::DESCRIBE, true)
}

/// `CLIENT TRACKING on BCAST PREFIX …` tells of keys that were not read, whatever their database.
pub(crate) fn tracking(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    let words = || args.iter().skip(3);
    if !words().any(|word| is(word, "BCAST")) {
        return true;
    }
    let mut prefixes = words()
        .zip(words().skip(1))
        .filter(|(word, _)| is(word, "PREFIX"))
        .map(|(_, prefix)| prefix)
        .peekable();
    if prefixes.peek().is_none() {
        return asking.prefix(b"");
    }
    prefixes.all(|prefix| asking.prefix(prefix))
}

/// `FM.PUBLISH exchange …`.
pub(crate) fn publish(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    let exchange = match args.at(1) {
        // As RabbitMQ names the default exchange in permissions.
        b"" => b"amq.default",
        named => named,
    };
    let (kind, namespace) = (Kind::Exchange, Namespace::DEFAULT);
    asking
        .identity
        .allows(kind, namespace, exchange, Verbs::WRITE)
}

/// `FM.PRODUCE topic …`, which makes a topic that is not there.
pub(crate) fn produce(asking: &Asking<'_>, args: &Args<'_>) -> bool {
    let topic = args.at(1);
    let there =
        std::str::from_utf8(topic).is_ok_and(|name| asking.node.broker.topics.get(name).is_some());
    let verbs = if there {
        Verbs::WRITE
    } else {
        Verbs::WRITE.and(Verbs::CONFIGURE)
    };
    asking
        .identity
        .allows(Kind::Topic, Namespace::DEFAULT, topic, verbs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::commands;
    use crate::resp::spec::Run;

    /// A command that is not about keys must say what it is about, or be listed here: nobody else's affair.
    #[test]
    fn every_command_has_its_rights() {
        const FREE: &[&str] = &[
            "ping",
            "echo",
            "select",
            "auth",
            "hello",
            "quit",
            "reset",
            "time",
            "lastsave",
            "role",
            "wait",
            "waitaof",
            "lolwut",
            "multi",
            "exec",
            "discard",
            "unwatch",
            "unsubscribe",
            "punsubscribe",
            "sunsubscribe",
            "client|id",
            "client|setname",
            "client|getname",
            "client|setinfo",
            "client|info",
            "client|no-evict",
            "client|no-touch",
            "client|reply",
            "client|caching",
            "client|trackinginfo",
            "client|getredir",
            "pubsub|numpat",
            "command",
            "readonly",
            "readwrite",
            "asking",
        ];
        for (_, spec) in commands::all() {
            for spec in std::iter::once(spec).chain(spec.sub) {
                let free = FREE.contains(&spec.name)
                    || spec.name.ends_with("|help")
                    || spec.name.starts_with("command|")
                    || (spec.name.starts_with("cluster|") && !spec.name.contains("keysinslot"))
                    || matches!(spec.run, Run::Container);
                let unsaid = matches!(spec.rights, Rights::Flags)
                    && matches!(spec.keys, crate::resp::spec::Keys::None);
                assert_eq!(free, unsaid, "{}", spec.name);
            }
        }
    }
}
