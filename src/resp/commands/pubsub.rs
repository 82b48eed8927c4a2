//! Publish and subscribe: channels, patterns, shard channels.

use bytes::Bytes;
use protocol_resp::{Args, Encoder};

use crate::resp::fail::{Done, wrong_arity};
use crate::resp::hub::Topic;
use crate::resp::permission::{self, Rights};
use crate::resp::session::Session;
use crate::resp::spec::*;
use broker::access::Verbs;

const SUBSCRIBE: Flags = PUBSUB.and(NOSCRIPT).and(LOADING).and(STALE);

pub(crate) const COMMANDS: &[Spec] = &[
    on_session(
        "publish",
        3,
        PUBSUB.and(LOADING).and(STALE).and(FAST),
        publish,
        "2.0.0",
        "Sends a message to a channel.",
    )
    .needing(Rights::Channel(Verbs::WRITE)),
    on_session(
        "spublish",
        3,
        PUBSUB.and(LOADING).and(STALE).and(FAST),
        spublish,
        "7.0.0",
        "Sends a message to a shard channel.",
    )
    .needing(Rights::Channel(Verbs::WRITE)),
    on_session(
        "subscribe",
        -2,
        SUBSCRIBE,
        subscribe,
        "2.0.0",
        "Listens to channels.",
    )
    .needing(Rights::Channels {
        from: 1,
        verb: Verbs::READ,
        glob: false,
    }),
    on_session(
        "unsubscribe",
        -1,
        SUBSCRIBE,
        unsubscribe,
        "2.0.0",
        "Stops listening to channels.",
    ),
    on_session(
        "psubscribe",
        -2,
        SUBSCRIBE,
        psubscribe,
        "2.0.0",
        "Listens to channels that match patterns.",
    )
    .needing(Rights::Channels {
        from: 1,
        verb: Verbs::READ,
        glob: true,
    }),
    on_session(
        "punsubscribe",
        -1,
        SUBSCRIBE,
        punsubscribe,
        "2.0.0",
        "Stops listening to patterns.",
    ),
    on_session(
        "ssubscribe",
        -2,
        SUBSCRIBE,
        ssubscribe,
        "7.0.0",
        "Listens to shard channels.",
    )
    .needing(Rights::Channels {
        from: 1,
        verb: Verbs::READ,
        glob: false,
    }),
    on_session(
        "sunsubscribe",
        -1,
        SUBSCRIBE,
        sunsubscribe,
        "7.0.0",
        "Stops listening to shard channels.",
    ),
    container(
        "pubsub",
        "2.8.0",
        "Looks at subscriptions.",
        &[
            on_session(
                "pubsub|channels",
                -2,
                PUBSUB.and(LOADING).and(STALE),
                channels,
                "2.8.0",
                "Lists channels that have listeners.",
            )
            .needing(Rights::With(permission::channels)),
            on_session(
                "pubsub|numpat",
                2,
                PUBSUB.and(LOADING).and(STALE),
                numpat,
                "2.8.0",
                "Counts the patterns.",
            ),
            on_session(
                "pubsub|numsub",
                -2,
                PUBSUB.and(LOADING).and(STALE),
                numsub,
                "2.8.0",
                "Counts the listeners of channels.",
            )
            .needing(Rights::Channels {
                from: 2,
                verb: Verbs::DESCRIBE,
                glob: false,
            }),
            on_session(
                "pubsub|shardchannels",
                -2,
                PUBSUB.and(LOADING).and(STALE),
                shardchannels,
                "7.0.0",
                "Lists shard channels that have listeners.",
            )
            .needing(Rights::With(permission::channels)),
            on_session(
                "pubsub|shardnumsub",
                -2,
                PUBSUB.and(LOADING).and(STALE),
                shardnumsub,
                "7.0.0",
                "Counts the listeners of shard channels.",
            )
            .needing(Rights::Channels {
                from: 2,
                verb: Verbs::DESCRIBE,
                glob: false,
            }),
            on_session(
                "pubsub|help",
                2,
                LOADING.and(STALE),
                help,
                "6.2.0",
                "Explains the subcommands.",
            ),
        ],
    ),
];

fn publish(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let count = session.hub.publish(Topic::Channel, args.at(1), args.at(2));
    Encoder::new(out, session.version).count(count);
    Ok(())
}

fn spublish(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let count = session.hub.publish(Topic::Shard, args.at(1), args.at(2));
    Encoder::new(out, session.version).count(count);
    Ok(())
}

/// What the count in a confirmation counts: shard channels on their own, the others together.
fn count(session: &Session, topic: Topic) -> usize {
    match topic {
        Topic::Shard => session.shard_channels.len(),
        Topic::Channel | Topic::Pattern => session.channels.len() + session.patterns.len(),
    }
}

fn add(
    session: &mut Session,
    args: &Args<'_>,
    out: &mut Vec<u8>,
    topic: Topic,
    word: &str,
) -> Done {
    let known = session.known(topic);
    session.may_listen_to_more(args, |name| known.contains(name))?;
    for name in args.iter().skip(1) {
        let name = Bytes::copy_from_slice(name);
        if session.names(topic).insert(name.clone()) {
            session.names_len += name.len();
            session.hub.subscribe(topic, &name, &session.client);
        }
        let count = count(session, topic);
        confirm(
            &mut Encoder::new(out, session.version),
            word,
            Some(&name),
            count,
        );
    }
    Ok(())
}

fn confirm(out: &mut Encoder<'_>, word: &str, name: Option<&[u8]>, count: usize) {
    out.push(3);
    out.bulk(word.as_bytes());
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.count(count);
}

fn remove(
    session: &mut Session,
    args: &Args<'_>,
    out: &mut Vec<u8>,
    topic: Topic,
    word: &str,
) -> Done {
    let names: Vec<Bytes> = if args.len() == 1 {
        session.names(topic).iter().cloned().collect()
    } else {
        args.iter().skip(1).map(Bytes::copy_from_slice).collect()
    };
    if names.is_empty() {
        let count = count(session, topic);
        confirm(&mut Encoder::new(out, session.version), word, None, count);
    }
    for name in names {
        if session.names(topic).shift_remove(&name) {
            session.names_len -= name.len();
            session.hub.unsubscribe(topic, &name, &session.client);
        }
        let count = count(session, topic);
        confirm(
            &mut Encoder::new(out, session.version),
            word,
            Some(&name),
            count,
        );
    }
    Ok(())
}

fn subscribe(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    add(session, args, out, Topic::Channel, "subscribe")
}

fn psubscribe(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    add(session, args, out, Topic::Pattern, "psubscribe")
}

fn ssubscribe(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    add(session, args, out, Topic::Shard, "ssubscribe")
}

fn unsubscribe(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    remove(session, args, out, Topic::Channel, "unsubscribe")
}

fn punsubscribe(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    remove(session, args, out, Topic::Pattern, "punsubscribe")
}

fn sunsubscribe(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    remove(session, args, out, Topic::Shard, "sunsubscribe")
}

fn list(
    session: &mut Session,
    args: &Args<'_>,
    out: &mut Vec<u8>,
    topic: Topic,
    command: &str,
) -> Done {
    if args.len() > 3 {
        return Err(wrong_arity(command));
    }
    let mut names = session.hub.names(topic);
    if let Some(pattern) = args.get(2) {
        names.retain(|name| broker::cache::matches(pattern, name));
    }
    let mut out = Encoder::new(out, session.version);
    out.array(names.len());
    names.iter().for_each(|name| out.bulk(name));
    Ok(())
}

fn channels(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    list(session, args, out, Topic::Channel, "pubsub|channels")
}

fn shardchannels(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    list(session, args, out, Topic::Shard, "pubsub|shardchannels")
}

fn listeners(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>, topic: Topic) -> Done {
    let mut out = Encoder::new(out, session.version);
    out.array((args.len() - 2) * 2);
    for name in args.iter().skip(2) {
        out.bulk(name);
        out.count(session.hub.subscriber_count(topic, name));
    }
    Ok(())
}

fn numsub(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    listeners(session, args, out, Topic::Channel)
}

fn shardnumsub(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    listeners(session, args, out, Topic::Shard)
}

fn numpat(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let count = session.hub.names(Topic::Pattern).len();
    Encoder::new(out, session.version).count(count);
    Ok(())
}

fn help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    super::server::help(
        &mut Encoder::new(out, session.version),
        "PUBSUB",
        &[
            (
                "CHANNELS [<pattern>]",
                "Return the currently active channels matching a <pattern> (default: '*').",
            ),
            ("NUMPAT", "Return number of subscriptions to patterns."),
            (
                "NUMSUB [<channel> ...]",
                "Return the number of subscribers for the specified channels, excluding pattern subscriptions (default: no channels).",
            ),
            (
                "SHARDCHANNELS [<pattern>]",
                "Return the currently active shard level channels matching a <pattern> (default: '*').",
            ),
            (
                "SHARDNUMSUB [<shardchannel> ...]",
                "Return the number of subscribers for the specified shard level channel(s).",
            ),
        ],
    );
    Ok(())
}
