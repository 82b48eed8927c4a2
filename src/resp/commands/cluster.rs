//! `CLUSTER` and its kin: this server as a cluster of one node, for clients that speak to clusters only (`resp-cluster-mode`).
//!
//! The node has all slots, and its address is the one that the client came by. There is nothing to fail over to, no bus and no
//! slot that moves, so what would change a cluster is not served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use broker::cache::SlotWalk;
use broker::{Effects, Locked, Millis, ShardSet, Slot};
use protocol_resp::{Args, Encoder, number};
use sha1::{Digest, Sha1};

use super::server::{help, setting};
use crate::config::ClusterMode;
use crate::node::Node;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::int;
use crate::resp::permission::Rights;
use crate::resp::session::Session;
use crate::resp::spec::*;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;
/// A node's bus, where nobody listens here, is at its port and so many.
const BUS: u16 = 10_000;

const INFORM: Flags = LOADING.and(STALE);

pub(crate) const COMMANDS: &[Spec] = &[
    container(
        "cluster",
        "3.0.0",
        "Says which node has which slots.",
        &[
            on_session(
                "cluster|info",
                2,
                INFORM,
                info,
                "3.0.0",
                "Says how the cluster is.",
            ),
            on_session(
                "cluster|myid",
                2,
                INFORM,
                my_id,
                "3.0.0",
                "Returns the node's id.",
            ),
            on_session(
                "cluster|myshardid",
                2,
                INFORM,
                my_shard_id,
                "7.2.0",
                "Returns the id of the node's shard.",
            ),
            on_session(
                "cluster|nodes",
                2,
                INFORM,
                nodes,
                "3.0.0",
                "Lists the nodes as text.",
            ),
            on_session(
                "cluster|slots",
                2,
                INFORM,
                slots,
                "3.0.0",
                "Says which node has which slots.",
            ),
            on_session(
                "cluster|shards",
                2,
                INFORM,
                shards,
                "7.0.0",
                "Lists the shards with their slots and nodes.",
            ),
            on_session(
                "cluster|links",
                2,
                INFORM,
                links,
                "7.0.0",
                "Lists links to other nodes.",
            ),
            on_session(
                "cluster|replicas",
                3,
                INFORM,
                replicas,
                "5.0.0",
                "Lists the replicas of a node.",
            ),
            on_session(
                "cluster|slaves",
                3,
                INFORM,
                replicas,
                "3.0.0",
                "Lists the replicas of a node.",
            ),
            on_session(
                "cluster|count-failure-reports",
                3,
                INFORM,
                failure_reports,
                "3.0.0",
                "Counts those who say that a node has failed.",
            ),
            on_session(
                "cluster|keyslot",
                3,
                INFORM,
                key_slot,
                "3.0.0",
                "Returns the slot of a key.",
            ),
            on_session_held(
                "cluster|countkeysinslot",
                3,
                INFORM,
                count_keys,
                "3.0.0",
                "Counts the keys of a slot.",
            )
            .locking(Locks::With(shard_of_slot))
            .needing(Rights::AllKeys(0)),
            on_session_held(
                "cluster|getkeysinslot",
                4,
                INFORM,
                get_keys,
                "3.0.0",
                "Lists keys of a slot.",
            )
            .locking(Locks::With(shard_of_slot))
            .needing(Rights::AllKeys(0)),
            on_session(
                "cluster|help",
                2,
                INFORM,
                cluster_help,
                "5.0.0",
                "Lists the subcommands.",
            ),
        ],
    ),
    on_session(
        "readonly",
        1,
        INFORM.and(FAST),
        accepted,
        "3.0.0",
        "Allows reads from a replica.",
    ),
    on_session(
        "readwrite",
        1,
        INFORM.and(FAST),
        accepted,
        "3.0.0",
        "Ends what READONLY allowed.",
    ),
    on_session(
        "asking",
        1,
        FAST,
        accepted,
        "3.0.0",
        "Says that a redirection was followed.",
    ),
];

const OFF: Fail = Fail::Text("ERR This instance has cluster support disabled");

pub(in crate::resp) fn is_on(node: &Node) -> bool {
    node.config.resp_cluster_mode == ClusterMode::Emulated
}

/// For what would leave the one database that a cluster has.
pub(super) fn refuse_databases(node: &Node, text: &'static str) -> Done {
    if is_on(node) {
        return Err(Fail::Text(text));
    }
    Ok(())
}

fn ask(node: &Node) -> Done {
    if is_on(node) { Ok(()) } else { Err(OFF) }
}

/// Forty hexadecimal digits that stay the same as long as the data directory.
fn id_of(node: &Node, what: &str) -> String {
    let id = node.broker.topics.cluster_id();
    let digest = Sha1::digest(format!("{what} {id}"));
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn node_id(node: &Node) -> String {
    id_of(node, "redis node")
}

/// Where this client reaches the node.
fn address(session: &Session) -> (String, u16) {
    let (config, client) = (&session.node.config, &session.client);
    let told = if client.tls {
        &config.resp_tls_advertised
    } else {
        &config.resp_advertised
    };
    match told {
        Some(address) => (address.host.clone(), address.port),
        None if client.unix.is_some() => first_address(session),
        None => (
            client.local.ip().to_canonical().to_string(),
            client.local.port(),
        ),
    }
}

/// For one that came by a socket of the file system: the first address in the network.
fn first_address(session: &Session) -> (String, u16) {
    let port = |name| setting(&session.hub, name).parse().unwrap_or(0);
    let port = match port("port") {
        0 => port("tls-port"),
        plain => plain,
    };
    let bind = setting(&session.hub, "bind");
    let ip = bind.split(' ').next().and_then(|ip| ip.parse().ok());
    let ip = match ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        // It is on this machine.
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    (ip.to_string(), port)
}

fn accepted(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    super::connection::ok(session, out)
}

fn info(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    let mut text = String::new();
    for (name, value) in [
        ("cluster_state", "ok"),
        ("cluster_slots_assigned", "16384"),
        ("cluster_slots_ok", "16384"),
        ("cluster_slots_pfail", "0"),
        ("cluster_slots_fail", "0"),
        ("cluster_known_nodes", "1"),
        ("cluster_size", "1"),
        ("cluster_current_epoch", "0"),
        ("cluster_my_epoch", "0"),
        ("cluster_stats_messages_sent", "0"),
        ("cluster_stats_messages_received", "0"),
        ("total_cluster_links_buffer_limit_exceeded", "0"),
    ] {
        text.push_str(&format!("{name}:{value}\r\n"));
    }
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}

fn my_id(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    Encoder::new(out, session.version).bulk(node_id(&session.node).as_bytes());
    Ok(())
}

fn my_shard_id(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    let id = id_of(&session.node, "redis shard");
    Encoder::new(out, session.version).bulk(id.as_bytes());
    Ok(())
}

fn nodes(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    let ((host, port), id) = (address(session), node_id(&session.node));
    let bus = port.saturating_add(BUS);
    let last = SLOTS - 1;
    let text = format!("{id} {host}:{port}@{bus} myself,master - 0 0 0 connected 0-{last}\n");
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}

fn slots(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    let ((host, port), id) = (address(session), node_id(&session.node));
    let mut out = Encoder::new(out, session.version);
    out.array(1);
    out.array(3);
    out.integer(0);
    out.integer(i64::from(SLOTS - 1));
    out.array(4);
    out.bulk(host.as_bytes());
    out.integer(i64::from(port));
    out.bulk(id.as_bytes());
    // No further names of the node.
    out.map(0);
    Ok(())
}

fn shards(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    let ((host, port), id) = (address(session), node_id(&session.node));
    let shard = id_of(&session.node, "redis shard");
    let tls = session.client.tls;
    let written = session.node.broker.engine.appended().0;
    let mut out = Encoder::new(out, session.version);
    out.array(1);
    out.map(3);
    out.bulk(b"slots");
    out.array(2);
    out.integer(0);
    out.integer(i64::from(SLOTS - 1));
    out.bulk(b"nodes");
    out.array(1);
    out.map(7);
    out.bulk(b"id");
    out.bulk(id.as_bytes());
    out.bulk(if tls { b"tls-port" } else { b"port" });
    out.integer(i64::from(port));
    for (name, value) in [("ip", &*host), ("endpoint", &*host), ("role", "master")] {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"replication-offset");
    out.integer(i64::try_from(written).unwrap_or(i64::MAX));
    out.bulk(b"health");
    out.bulk(b"online");
    out.bulk(b"id");
    out.bulk(shard.as_bytes());
    Ok(())
}

fn links(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    Encoder::new(out, session.version).array(0);
    Ok(())
}

/// The node that an argument names, which can only be this one.
fn known(session: &Session, id: &[u8]) -> Done {
    if id.eq_ignore_ascii_case(node_id(&session.node).as_bytes()) {
        return Ok(());
    }
    Err(Fail::Owned(format!("ERR Unknown node {}", lossy(id, 128))))
}

fn replicas(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    known(session, args.at(2))?;
    Encoder::new(out, session.version).array(0);
    Ok(())
}

fn failure_reports(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    known(session, args.at(2))?;
    Encoder::new(out, session.version).integer(0);
    Ok(())
}

fn key_slot(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    let slot = Slot::of(args.at(2));
    Encoder::new(out, session.version).integer(i64::from(slot.raw()));
    Ok(())
}

fn slot(text: &[u8]) -> Option<Slot> {
    let raw = u16::try_from(number::parse_i64(text)?).ok();
    // The catalog's is one more.
    Slot::from_raw(raw.filter(|raw| *raw < SLOTS)?)
}

fn shard_of_slot(args: &Args<'_>) -> ShardSet {
    slot(args.at(2)).map_or(ShardSet::EMPTY, |slot| ShardSet::of(slot.shard()))
}

/// Shows at most `count` keys of a slot. The shard has millions perhaps, and an index by slots would cost whoever writes, so it is
/// locked for a step at a time, but within a transaction.
fn keys_of(
    session: &mut Session,
    slot: Slot,
    count: usize,
    held: Option<&mut Locked<'_>>,
    show: &mut dyn FnMut(&[u8]),
) -> Done {
    let (db, mut walk, mut left) = (session.db, SlotWalk::new(slot), count);
    let mut step = |locked: &mut Locked<'_>, now: Millis, fx: &mut Effects| {
        let mut view = locked.shard(slot.shard()).keys(db, now, fx);
        let more = view.walk_slot(&mut walk, &mut |key| {
            left -= 1;
            show(key);
            left > 0
        });
        Ok::<_, Fail>(more?)
    };
    if count == 0 {
        return Ok(());
    }
    if let Some(locked) = held {
        let now = session.ctx.now;
        // Nothing is changed by who only looks.
        let mut fx = Effects::new();
        while step(locked, now, &mut fx)? {}
        return Ok(());
    }
    while session.with_keys(ShardSet::of(slot.shard()), &mut step)? {}
    Ok(())
}

fn count_keys(
    session: &mut Session,
    args: &Args<'_>,
    held: Option<&mut Locked<'_>>,
    out: &mut Vec<u8>,
) -> Done {
    ask(&session.node)?;
    int(args.at(2))?;
    let slot = slot(args.at(2)).ok_or(Fail::Text("ERR Invalid slot"))?;
    let mut count = 0;
    keys_of(session, slot, usize::MAX, held, &mut |_| count += 1)?;
    Encoder::new(out, session.version).count(count);
    Ok(())
}

fn get_keys(
    session: &mut Session,
    args: &Args<'_>,
    held: Option<&mut Locked<'_>>,
    out: &mut Vec<u8>,
) -> Done {
    const INVALID: Fail = Fail::Text("ERR Invalid slot or number of keys");
    ask(&session.node)?;
    int(args.at(2))?;
    let count = int(args.at(3))?;
    let slot = slot(args.at(2)).ok_or(INVALID)?;
    let count = usize::try_from(count).map_err(|_| INVALID)?;
    let mut keys = Vec::new();
    keys_of(session, slot, count, held, &mut |key| {
        keys.push(key.to_vec())
    })?;
    let mut out = Encoder::new(out, session.version);
    out.array(keys.len());
    keys.iter().for_each(|key| out.bulk(key));
    Ok(())
}

fn cluster_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    ask(&session.node)?;
    let mut out = Encoder::new(out, session.version);
    help(
        &mut out,
        "CLUSTER",
        &[
            (
                "COUNTKEYSINSLOT <slot>",
                "Return the number of keys in <slot>.",
            ),
            (
                "COUNT-FAILURE-REPORTS <node-id>",
                "Return how many say that <node-id> has failed: 0.",
            ),
            (
                "GETKEYSINSLOT <slot> <count>",
                "Return up to <count> keys of <slot>.",
            ),
            ("INFO", "Return the state of the cluster."),
            ("KEYSLOT <key>", "Return the hash slot for <key>."),
            ("LINKS", "Return the links to other nodes: there are none."),
            ("MYID", "Return the node id."),
            ("MYSHARDID", "Return the id of the node's shard."),
            ("NODES", "Return the node as a line of text."),
            (
                "REPLICAS <node-id>",
                "Return the replicas of <node-id>: there are none.",
            ),
            ("SHARDS", "Return the shard with its slots and its node."),
            ("SLOTS", "Return the range of slots with its node."),
        ],
    );
    Ok(())
}
