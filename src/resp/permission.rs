//! What a command does to which objects, and whether its client may: read from the command's row, before it runs or is queued.
//!
//! The words are those of Redis 7.2's ACL. Keys need `read`, `write`, or for what tells only of their being there `describe`;
//! channels `read` to subscribe and `write` to publish; the server itself is of kind admin or redis, by areas. Whoever has
//! selectors (docs/adr/0009-redis-acl.md) needs one that lets the command pass on all that it names, besides the grants.

use broker::access::{Identity, Kind, Namespace, Rules, Verbs};
use broker::stream_queue;
use protocol_resp::Args;

use super::acl;
use super::acl::log::Reason;
use super::commands::generic::database;
use super::commands::{geo, sort};
use super::fail::{Fail, lossy};
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
    /// The same, where a grant of kind admin does not count: that would be power over the users of Redis' ACL.
    Redis(&'static str, Verbs),
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
    With(fn(&Asking<'_>, &Args<'_>) -> Allowed),
}

/// To read what was there and to change it.
pub(crate) const BOTH: Verbs = Verbs::READ.and(Verbs::WRITE);

/// Who asks, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) node: &'a Node,
    pub(crate) db: usize,
    /// Of one selector, instead of all grants.
    rules: Option<&'a Rules>,
}

/// What may not be: the command, or the key or channel at a place among its arguments. Later ones say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Denied {
    Command,
    Key(usize),
    Channel(usize),
}

impl Denied {
    pub(in crate::resp) const fn reason(self) -> Reason {
        match self {
            Self::Command => Reason::Command,
            Self::Key(_) => Reason::Key,
            Self::Channel(_) => Reason::Channel,
        }
    }

    /// What `ACL LOG` and the audit log name.
    pub(crate) fn object<'a>(self, spec: &'a Spec, args: &Args<'a>) -> &'a [u8] {
        match self {
            Self::Command => spec.name.as_bytes(),
            Self::Key(place) | Self::Channel(place) => args.at(place),
        }
    }

    /// The error that the client gets.
    pub(crate) fn fail(self, identity: &Identity, spec: &Spec) -> Fail {
        match self {
            Self::Command => {
                let user = identity.name().unwrap_or(broker::access::DEFAULT);
                Fail::Owned(format!("NOPERM {}", no_command(user, spec)))
            }
            Self::Key(_) => Fail::Text("NOPERM No permissions to access a key"),
            Self::Channel(_) => Fail::Text("NOPERM No permissions to access a channel"),
        }
    }

    /// What `ACL DRYRUN` says.
    pub(crate) fn tell(self, user: &str, spec: &Spec, args: &Args<'_>) -> String {
        let kind = match self {
            Self::Command => return no_command(user, spec),
            Self::Key(_) => "key",
            Self::Channel(_) => "channel",
        };
        let object = lossy(self.object(spec, args), usize::MAX);
        format!("User {user} has no permissions to access the '{object}' {kind}")
    }
}

fn no_command(user: &str, spec: &Spec) -> String {
    let command = spec.name;
    format!("User {user} has no permissions to run the '{command}' command")
}

pub(crate) type Allowed = Result<(), Denied>;

/// May the client run the command? Who is not restricted does not come here.
pub(crate) fn check(asking: &Asking<'_>, spec: &Spec, args: &Args<'_>) -> Allowed {
    let Some(selectors) = acl::selectors(asking.identity) else {
        return on_objects(asking, spec, args);
    };
    let mut denied = Denied::Command;
    for (place, (commands, rules)) in selectors.enumerate() {
        let one = Asking {
            rules: Some(rules),
            ..*asking
        };
        let passes = spec.flags.has(Flags::NO_AUTH) || commands.pass(spec, args);
        let may = if passes {
            // The first one's rules are of grants alone.
            on_objects(&one, spec, args).and_then(|()| match place {
                0 => Ok(()),
                _ => on_objects(asking, spec, args),
            })
        } else {
            Err(Denied::Command)
        };
        match may {
            Ok(()) => return Ok(()),
            Err(why) => denied = denied.max(why),
        }
    }
    Err(denied)
}

/// By the rules of one selector, or all grants.
fn on_objects(asking: &Asking<'_>, spec: &Spec, args: &Args<'_>) -> Allowed {
    let namespace = Namespace::of_database(asking.db);
    let yes = |yes: bool, denied: Denied| if yes { Ok(()) } else { Err(denied) };
    match spec.rights {
        Rights::Flags => {
            let verb = if spec.flags.has(Flags::WRITE) {
                Verbs::WRITE
            } else {
                Verbs::READ
            };
            asking.keys(spec, args, verb, verb)
        }
        Rights::Keys(verbs) => asking.keys(spec, args, verbs, verbs),
        Rights::Split(first, others) => asking.keys(spec, args, first, others),
        Rights::AllKeys(place) => {
            let glob = if place == 0 { b"*" } else { args.at(place) };
            let may = asking.allows_all(Kind::Key, namespace, glob, Verbs::DESCRIBE);
            yes(may, Denied::Key(place))
        }
        Rights::Channels { from, verb, glob } => {
            let denied = (from..args.len()).find(|place| {
                let name = args.at(*place);
                !asking.channel(name, verb, glob)
            });
            denied.map_or(Ok(()), |place| Err(Denied::Channel(place)))
        }
        Rights::Channel(verb) => yes(asking.channel(args.at(1), verb, false), Denied::Channel(1)),
        Rights::Admin(area, verb) => yes(
            asking.server(Kind::Redis, area, verb) || asking.server(Kind::Admin, area, verb),
            Denied::Command,
        ),
        Rights::Redis(area, verb) => yes(asking.server(Kind::Redis, area, verb), Denied::Command),
        Rights::With(may) => may(asking, args),
    }
}

impl<'a> Asking<'a> {
    pub(crate) const fn new(identity: &'a Identity, node: &'a Node, db: usize) -> Self {
        Self {
            identity,
            node,
            db,
            rules: None,
        }
    }

    #[inline]
    fn allows(&self, kind: Kind, namespace: Namespace, name: &[u8], verbs: Verbs) -> bool {
        match self.rules {
            Some(rules) => rules.allows(kind, namespace, name, verbs),
            None => self.identity.allows(kind, namespace, name, verbs),
        }
    }

    fn allows_all(&self, kind: Kind, namespace: Namespace, glob: &[u8], verbs: Verbs) -> bool {
        match self.rules {
            Some(rules) => rules.allows_all(kind, namespace, glob, verbs),
            None => self.identity.allows_all(kind, namespace, glob, verbs),
        }
    }

    fn server(&self, kind: Kind, area: &str, verb: Verbs) -> bool {
        self.allows(kind, Namespace::DEFAULT, area.as_bytes(), verb)
    }

    /// The same question by the rules of any selector, if there are some, and by all grants.
    fn by_any(&self, ask: impl Fn(&Self) -> bool) -> bool {
        let Some(mut selectors) = acl::selectors(self.identity) else {
            return ask(self);
        };
        let any = selectors.any(|(_, rules)| {
            ask(&Self {
                rules: Some(rules),
                ..*self
            })
        });
        any && ask(self)
    }

    /// May it go on listening to a channel, or a pattern?
    pub(crate) fn listens(&self, name: &[u8], glob: bool) -> bool {
        self.by_any(|asking| asking.channel(name, Verbs::READ, glob))
    }

    /// May it go on hearing of keys that begin so?
    pub(crate) fn hears(&self, prefix: &[u8]) -> bool {
        self.by_any(|asking| asking.prefix(prefix))
    }

    fn keys(&self, spec: &Spec, args: &Args<'_>, first: Verbs, others: Verbs) -> Allowed {
        let namespace = Namespace::of_database(self.db);
        let (mut denied, mut verbs) = (None, first);
        spec.each_key(args, &mut |place| {
            if denied.is_none() && !self.allows(Kind::Key, namespace, args.at(place), verbs) {
                denied = Some(place);
            }
            verbs = others;
        });
        denied.map_or(Ok(()), |place| Err(Denied::Key(place)))
    }

    /// The key at a place of the arguments, in a database.
    fn key_at(&self, db: usize, args: &Args<'_>, place: usize, verbs: Verbs) -> Allowed {
        let namespace = Namespace::of_database(db);
        if self.allows(Kind::Key, namespace, args.at(place), verbs) {
            Ok(())
        } else {
            Err(Denied::Key(place))
        }
    }

    /// May it know of every key that begins so, in all databases?
    fn prefix(&self, prefix: &[u8]) -> bool {
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
            self.allows_all(Kind::Key, namespace, &glob, Verbs::DESCRIBE)
        })
    }

    /// Channels are not of a database.
    fn channel(&self, name: &[u8], verb: Verbs, glob: bool) -> bool {
        let (kind, namespace) = (Kind::Channel, Namespace::DEFAULT);
        if glob {
            self.allows_all(kind, namespace, name, verb)
        } else {
            self.allows(kind, namespace, name, verb)
        }
    }
}

/// What no place can be named for.
fn unless(denied: Denied, may: bool) -> Allowed {
    if may { Ok(()) } else { Err(denied) }
}

/// `SET key value … GET` tells the old value.
pub(crate) fn set(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    write_that_tells(
        asking,
        args,
        args.iter().skip(3).any(|word| is(word, "GET")),
    )
}

/// `ZADD key … INCR …` tells the new score.
pub(crate) fn zadd(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    const OPTIONS: [&str; 5] = ["NX", "XX", "GT", "LT", "CH"];
    let mut words = args.iter().skip(2);
    let word = words.find(|word| !OPTIONS.iter().any(|option| is(word, option)));
    write_that_tells(asking, args, word.is_some_and(|word| is(word, "INCR")))
}

/// `BITFIELD key … SET|INCRBY …` writes, and tells what was there.
pub(crate) fn bitfield(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    let writes = (args.iter().skip(2)).any(|word| is(word, "SET") || is(word, "INCRBY"));
    let verbs = if writes { BOTH } else { Verbs::READ };
    asking.key_at(asking.db, args, 1, verbs)
}

/// `GEORADIUS key … STORE key`.
pub(crate) fn georadius(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    asking.key_at(asking.db, args, 1, Verbs::READ)?;
    match geo::target(args) {
        Some(place) => asking.key_at(asking.db, args, place, Verbs::WRITE),
        None => Ok(()),
    }
}

/// `SORT key … BY pattern GET pattern STORE key`: whose patterns may name any key must be allowed to read all.
pub(crate) fn sort(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    let namespace = Namespace::of_database(asking.db);
    asking.key_at(asking.db, args, 1, Verbs::READ)?;
    let Ok(options) = sort::Options::of(args) else {
        // The handler refuses it before it looks at any key but this one.
        return Ok(());
    };
    if options.looks_elsewhere() {
        let may = asking.allows_all(Kind::Key, namespace, b"*", Verbs::READ);
        unless(Denied::Key(1), may)?;
    }
    match options.store {
        Some(place) => asking.key_at(asking.db, args, place, Verbs::WRITE),
        None => Ok(()),
    }
}

fn write_that_tells(asking: &Asking<'_>, args: &Args<'_>, tells: bool) -> Allowed {
    let verbs = if tells { BOTH } else { Verbs::WRITE };
    asking.key_at(asking.db, args, 1, verbs)
}

/// A database that is not one is refused by the handler.
fn database_of(asking: &Asking<'_>, text: &[u8]) -> usize {
    database(text, usize::from(asking.node.config.resp_databases)).unwrap_or(asking.db)
}

/// `COPY from to [DB n]`.
pub(crate) fn copy(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    // The handler takes the last one.
    let place = (3..args.len()).rfind(|place| is(args.at(*place), "DB"));
    let to = place
        .and_then(|place| args.get(place + 1))
        .map_or(asking.db, |text| database_of(asking, text));
    asking.key_at(asking.db, args, 1, Verbs::READ)?;
    asking.key_at(to, args, 2, Verbs::WRITE)
}

/// `MOVE key db`.
pub(crate) fn move_(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    let to = database_of(asking, args.at(2));
    asking.key_at(asking.db, args, 1, BOTH)?;
    asking.key_at(to, args, 1, Verbs::WRITE)
}

/// `SCAN cursor … MATCH glob`.
pub(crate) fn scan(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    // The handler takes the last one.
    let mut words = (2..args.len()).step_by(2);
    let place = words.rfind(|place| is(args.at(*place), "MATCH"));
    let glob = place.and_then(|place| args.get(place + 1)).unwrap_or(b"*");
    let namespace = Namespace::of_database(asking.db);
    let may = asking.allows_all(Kind::Key, namespace, glob, Verbs::DESCRIBE);
    unless(Denied::Command, may)
}

/// `PUBSUB CHANNELS [glob]`.
pub(crate) fn channels(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    let may = asking.channel(args.get(2).unwrap_or(b"*"), Verbs::DESCRIBE, true);
    unless(Denied::Command, may)
}

/// `CLIENT TRACKING on BCAST PREFIX …` tells of keys that were not read, whatever their database.
pub(crate) fn tracking(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    let words = || args.iter().skip(3);
    if !words().any(|word| is(word, "BCAST")) {
        return Ok(());
    }
    let mut prefixes = words()
        .zip(words().skip(1))
        .filter(|(word, _)| is(word, "PREFIX"))
        .map(|(_, prefix)| prefix)
        .peekable();
    let may = if prefixes.peek().is_none() {
        asking.prefix(b"")
    } else {
        prefixes.all(|prefix| asking.prefix(prefix))
    };
    unless(Denied::Command, may)
}

/// `FM.PUBLISH exchange …`; for the topics that it leads to see `Plan::permit`.
pub(crate) fn publish(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    let exchange = match args.at(1) {
        // As RabbitMQ names the default exchange in permissions.
        b"" => b"amq.default",
        named => named,
    };
    let (kind, namespace) = (Kind::Exchange, Namespace::DEFAULT);
    unless(
        Denied::Command,
        asking.allows(kind, namespace, exchange, Verbs::WRITE),
    )
}

/// `FM.PRODUCE topic …`, which makes a topic that is not there; one that is a queue of the AMQP face, too, asks for both.
pub(crate) fn produce(asking: &Asking<'_>, args: &Args<'_>) -> Allowed {
    let topic = args.at(1);
    let there =
        std::str::from_utf8(topic).is_ok_and(|name| asking.node.broker.topics.get(name).is_some());
    let verbs = if there {
        Verbs::WRITE
    } else {
        Verbs::WRITE.and(Verbs::CONFIGURE)
    };
    let may = |kind| asking.allows(kind, Namespace::DEFAULT, topic, verbs);
    let is_stream = stream_queue::is_stream(&asking.node.broker, topic);
    unless(
        Denied::Command,
        may(Kind::Topic) && (!is_stream || may(Kind::Queue)),
    )
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
            "acl|cat",
            "acl|genpass",
            "acl|whoami",
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
