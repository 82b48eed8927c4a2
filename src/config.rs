//! Every knob of the server, in one table: its name, meaning, default and the reason for it. Flags, environment variables,
//! file keys, `docs/CONFIGURATION.md` and `config show` are all read from here.
//!
//! A value comes from, strongest first: a flag, `FLOWMESH_<NAME>`, the `[dev]` table of the file (only `flowmesh dev`),
//! the file, the default of the mode.

mod layers;
mod reference;
mod rules;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use broker::cache::{Bounds, LimitSettings, Policy, Rule};
use storage::Durability;

use crate::telemetry::process;

pub use layers::{ConfigError, Layers, Problem, Source};
pub use reference::markdown;
pub use rules::MemoryRules;
pub use value::{
    Addrs, ClientAuth, ClusterMode, Databases, DebugCommand, FileMode, HostPort, LogFormat, Secret,
    Size, StorageKind, Value,
};

/// Production or a developer's machine: only defaults differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `flowmesh server`.
    Server,
    /// `flowmesh dev`.
    Dev,
}

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Knob {
    /// `resp_addr`; the flag is `--resp-addr`, the variable `FLOWMESH_RESP_ADDR`, the file key either form.
    pub name: &'static str,
    /// Heading in the documentation.
    pub group: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What may be written.
    pub kind: &'static str,
    /// The default, as a person would write it.
    pub default: &'static str,
    /// The default of `flowmesh dev` where it differs.
    pub dev_default: Option<&'static str>,
    /// Why this default.
    pub why: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
    get: fn(&Config) -> String,
}

impl std::fmt::Debug for Knob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knob")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Knob {
    /// `resp-addr`.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// `FLOWMESH_RESP_ADDR`.
    pub fn env(&self) -> String {
        format!("FLOWMESH_{}", self.name.to_ascii_uppercase())
    }

    /// The default in that mode.
    pub fn default_in(&self, mode: Mode) -> &'static str {
        match mode {
            Mode::Server => self.default,
            Mode::Dev => self.dev_default.unwrap_or(self.default),
        }
    }

    /// Changes the value in `config`.
    ///
    /// # Errors
    /// What would be right, when `text` is not.
    pub fn put(&self, config: &mut Config, text: &str) -> Result<(), String> {
        (self.set)(config, text)
    }

    /// The value in `config`, as a person would write it; passwords are hidden.
    pub fn show(&self, config: &Config) -> String {
        (self.get)(config)
    }
}

macro_rules! knobs {
    ($( $group:literal { $( #[doc = $help:literal] $field:ident: $ty:ty = $default:literal $(, dev $dev:literal)?; $why:literal )* } )*) => {
        /// What the server runs with.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($( #[doc = $help] pub $field: $ty, )*)*
        }

        /// The table.
        pub const KNOBS: &[Knob] = &[$($(
            Knob {
                name: stringify!($field),
                group: $group,
                help: $help,
                kind: <$ty as Value>::KIND,
                default: $default,
                dev_default: { let dev: &[&'static str] = &[$($dev)?]; dev.first().copied() },
                why: $why,
                set: |config, text| <$ty as Value>::parse(text).map(|value| config.$field = value),
                get: |config| config.$field.show(),
            },
        )*)*];

        impl Default for Config {
            /// The server's defaults.
            fn default() -> Self {
                Self {
                    $($( $field: <$ty as Value>::parse($default).unwrap_or_else(|wrong| panic!("default of {}: {wrong}", stringify!($field))), )*)*
                }
            }
        }
    };
}

knobs! {
    "Addresses" {
        #[doc = "Where Redis clients connect."]
        resp_addr: Addrs = "127.0.0.1:6379,[::1]:6379"; "this machine only, on Redis' port: nothing is open to a network that was not asked for"
        #[doc = "A Unix socket for Redis clients as well, as Redis' unixsocket: the path of its file. It counts as this machine: a password that is set is asked for, and none is needed. A file that a killed server left is replaced; the file goes when the server stops."]
        resp_unix_socket: Option<PathBuf> = ""; "TCP on this machine is enough for most"
        #[doc = "Permissions of that file, in octal (Redis' unixsocketperm): who may write it may connect."]
        resp_unix_socket_perm: Option<FileMode> = "umask"; "the umask of whoever starts the server decides, as with Redis"
        #[doc = "Where RabbitMQ (AMQP 0-9-1) clients connect."]
        amqp_addr: Addrs = "127.0.0.1:5672,[::1]:5672"; "this machine only, on RabbitMQ's port"
        #[doc = "Where Kafka clients connect."]
        kafka_addr: Addrs = "127.0.0.1:9092,[::1]:9092"; "this machine only, on Kafka's port"
        #[doc = "The host:port that Kafka clients are told to use; auto is the address each one connected to."]
        kafka_advertised: Option<HostPort> = "auto"; "right on one machine and wherever clients connect to an address of this one; behind published ports or a tunnel say what they connect to"
        #[doc = "The host:port that Redis clients are told to use with resp-cluster-mode; auto is the address each one connected to."]
        resp_advertised: Option<HostPort> = "auto"; "as kafka-advertised"
        #[doc = "The same for Redis clients of the TLS address."]
        resp_tls_advertised: Option<HostPort> = "auto"; "as kafka-tls-advertised"
        #[doc = "Where gRPC clients (health, reflection) connect."]
        grpc_addr: Addrs = "127.0.0.1:50051,[::1]:50051"; "this machine only, on gRPC's usual port"
        #[doc = "Where the HTTP API, health checks and metrics are served."]
        http_addr: Addrs = "127.0.0.1:8080,[::1]:8080"; "this machine only"
        #[doc = "Where Redis clients connect with TLS; usual: 6379 in place of the plain port, or 6380 beside it."]
        resp_tls_addr: Addrs = "off"; "TLS needs a certificate, which only the operator has"
        #[doc = "Where RabbitMQ (AMQP 0-9-1) clients connect with TLS; usual: 5671."]
        amqp_tls_addr: Addrs = "off"; "TLS needs a certificate, which only the operator has"
        #[doc = "Where Kafka clients connect with TLS (security.protocol SSL or SASL_SSL); usual: 9093."]
        kafka_tls_addr: Addrs = "off"; "TLS needs a certificate, which only the operator has"
        #[doc = "The host:port that Kafka clients of the TLS address are told to use; auto is the address each one connected to."]
        kafka_tls_advertised: Option<HostPort> = "auto"; "as kafka-advertised; a client must not be sent from the TLS port to the plain one"
        #[doc = "Where gRPC clients connect with TLS; usual: 50052."]
        grpc_tls_addr: Addrs = "off"; "TLS needs a certificate, which only the operator has"
        #[doc = "Where the HTTP API is served with TLS; usual: 8443."]
        http_tls_addr: Addrs = "off"; "TLS needs a certificate, which only the operator has"
        #[doc = "Added to every port, so that a second server can run beside the first."]
        port_offset: u16 = "0"; "the well-known ports"
    }
    "Identity" {
        #[doc = "The name that goes with the password."]
        user: String = "flowmesh"; "any name works; Redis clients may also say `default` or give the password alone"
        #[doc = "Clients must give this password; empty: none, which addresses that other machines reach allow only if a user of the catalog can log in. Prefer the variable or password-file: flags are seen by every process."]
        password: Secret = ""; "a developer's machine needs none; an address that others reach is refused without it or a user"
        #[doc = "A file whose first line is the password."]
        password_file: Option<PathBuf> = ""; "for secrets mounted by an orchestrator"
        #[doc = "Failed logins of one user from one address within a minute, after which all of its logins from there are refused for a minute; 0: never."]
        login_failures: u32 = "20"; "a person mistypes a few times, a program that guesses does not stop"
    }
    "TLS" {
        #[doc = "PEM file with the server's certificate, then those between it and the root. Replaced files are taken up within seconds, or at once on SIGHUP; open connections go on."]
        tls_cert: Option<PathBuf> = ""; "without one there is no TLS"
        #[doc = "PEM file with the key of that certificate (PKCS#8, PKCS#1 or SEC1, without a passphrase)."]
        tls_key: Option<PathBuf> = ""; "a file of its own, so that only it must be kept from other eyes"
        #[doc = "PEM file with the authorities that sign client certificates."]
        tls_client_ca: Option<PathBuf> = ""; "most clients log in with a password"
        #[doc = "PEM file with revocation lists; a client certificate on one of them is refused."]
        tls_client_crl: Option<PathBuf> = ""; "short-lived certificates need none"
        #[doc = "Whether clients must show a certificate of tls-client-ca: none, optional (one that is shown must be valid), required; auto is required with tls-client-ca and none without."]
        tls_client_auth: Option<ClientAuth> = "auto"; "who names an authority wants its certificates; a second knob that was forgotten must not leave the door open"
    }
    "Storage" {
        #[doc = "Directory of the log and the tables; one server at a time."]
        data_dir: PathBuf = "./data", dev ".flowmesh"; "beside the server; in development out of sight"
        #[doc = "disk keeps data in data-dir; memory uses a directory that goes when the server ends."]
        storage: StorageKind = "disk"; "nothing acknowledged is lost"
        #[doc = "Memory budget of the data held in RAM; auto is half of what the machine or container has."]
        memory_limit: Option<Size> = "auto"; "the other half serves connections, tables and the page cache; data beyond the budget is read from the tables"
        #[doc = "Cache of table blocks."]
        table_cache: Size = "32MiB"; "memory holds the hot data itself, so a small block cache is enough"
        #[doc = "Log written since the last fold that starts the next one; auto is a sixteenth of memory-limit, from 8 to 128 MiB."]
        fold_size: Option<Size> = "auto"; "large folds write less; the log being folded is mapped, and counts as memory of the process"
        #[doc = "Free space of the data directory's file system below which writes are refused or held, while reads and deletions go on; 0: never. auto is two folds and 64 MiB, at most a quarter of the file system. While the tables need more than that for their next compaction, that counts. A quarter of it, at most 16 MiB, is kept in a file for deletions."]
        disk_free_limit: Option<Size> = "auto"; "a full disk stops the server: what was accepted before must still find its way into the tables, and deletions into the log"
        #[doc = "Log kept after it is folded, by size; less while the disk is nearly full."]
        log_retention_size: Size = "1GiB"; "enough to look back without filling a small disk"
        #[doc = "Log kept after it is folded, by age."]
        log_retention_age: Duration = "24h"; "a day's look back"
    }
    "Durability" {
        #[doc = "What a reply to a Redis command waits for: os = in the page cache (survives the process), interval = os and fsync each second, sync = on disk."]
        resp_durability: Durability = "interval", dev "os"; "Redis' appendfsync everysec"
        #[doc = "What a confirm of a persistent AMQP message waits for. Quorum queues are always sync."]
        amqp_durability: Durability = "sync", dev "os"; "a confirm means on disk"
        #[doc = "What an acknowledgement with acks=all waits for; acks=1 is os, acks=0 has none."]
        kafka_durability: Durability = "sync", dev "os"; "acks=all means on disk, since there is no second replica"
    }
    "Process" {
        #[doc = "Threads that serve clients; auto is one per core."]
        threads: Option<usize> = "auto"; "a connection stays on one thread; more threads than cores only switch"
        #[doc = "error, warn, info, debug, or a filter such as info,flowmesh::amqp=debug."]
        log_level: String = "info", dev "warn"; "starts, stops and what a person must look at"
        #[doc = "text or json, one line per event, on standard error or in log-file."]
        log_format: LogFormat = "text"; "read by people first"
        #[doc = "File that log lines are appended to instead of standard error. On SIGHUP `flowmesh server` opens it again, so that logrotate may move it away."]
        log_file: Option<PathBuf> = ""; "systemd and containers keep what is said on standard error"
        #[doc = "How long a stop waits for clients and the fold before it gives up on clients."]
        shutdown_timeout: Duration = "8s"; "below the 10 s after which orchestrators kill"
    }
    "Limits" {
        #[doc = "Client connections of all faces together."]
        max_connections: usize = "10000"; "Redis' default; about 5 KiB of memory each when idle"
        #[doc = "Client connections of one address (of IPv6: of one /64); one more is refused in its protocol's words. 0: no limit."]
        max_connections_per_address: usize = "0"; "behind a proxy or a router many clients have one address"
        #[doc = "Client connections that one user is logged in on, through each face together; one more is refused at its login. 0: no limit."]
        max_connections_per_user: usize = "0"; "RabbitMQ's default for users; services of one name may be many"
        #[doc = "New client connections in a second, of all faces; more wait in the kernel's queue (Kafka's max.connection.creation.rate). 0: no limit."]
        connection_rate: u32 = "0"; "Kafka's default; what is too much depends on the machine, and on TLS, whose handshake costs a millisecond"
        #[doc = "New client connections of one address in a second; more are refused. 0: no limit."]
        connection_rate_per_address: usize = "0"; "as max-connections-per-address"
        #[doc = "How long a new connection may take to finish its handshake, and its login where there must be one."]
        handshake_timeout: Duration = "10s"; "RabbitMQ's value"
        #[doc = "Replies waiting for a client that does not read: it is not read from above 1 MiB, and closed when they still grow above this. 0: no limit."]
        client_output_limit: Size = "64MiB"; "a slow reader must not take the memory of others"
        #[doc = "Unfinished requests and unsent replies of all clients; above half of it a client that owes 64 KiB is not read, above all of it those that hold most are closed, those that have not logged in first (Redis' maxmemory-clients). auto is a quarter of memory-limit, and at least 128 MiB more than the largest request (resp-max-bulk, amqp-max-message-size, kafka-max-request-size), but then no more than three quarters of memory-limit; never below 32 MiB."]
        client_memory_limit: Option<Size> = "auto"; "ten thousand clients that each stay within their own limits must not take all memory together"
        #[doc = "Most connections to each HTTP and gRPC address; more wait in the kernel's queue."]
        admin_max_connections: usize = "256"; "a browser takes six, a scraper one"
        #[doc = "Largest body of an HTTP request."]
        http_max_body: Size = "1MiB"; "the largest is a user with its grants, a few KiB"
        #[doc = "Unsent messages above which a Redis subscriber is closed (client-output-buffer-limit pubsub). 0: no limit."]
        resp_subscriber_output_limit: Size = "32MiB"; "Redis' default"
        #[doc = "Unsent messages that a Redis subscriber may have for resp-subscriber-output-time, and then is closed. 0: no limit."]
        resp_subscriber_output_soft: Size = "8MiB"; "Redis' default"
        #[doc = "See resp-subscriber-output-soft."]
        resp_subscriber_output_time: Duration = "60s"; "Redis' default"
        #[doc = "Channels, patterns and watched keys of one Redis connection."]
        resp_max_subscriptions: usize = "100000"; "far above what clients do; without an end one connection could take all memory in small pieces"
        #[doc = "A Redis client that says nothing for so long is closed; 0: never."]
        resp_idle_timeout: Duration = "0"; "Redis' default"
        #[doc = "A Lua script that runs longer can be ended by SCRIPT KILL, and others are told BUSY instead of waiting; 0: they wait. Also CONFIG SET."]
        resp_busy_reply_threshold: Duration = "5s"; "Redis' default"
        #[doc = "Memory that the Lua scripts of one thread may take; a script that needs more fails."]
        resp_script_memory: Size = "256MiB"; "far above what scripts need; Redis has no limit"
        #[doc = "Longest single Redis value or argument."]
        resp_max_bulk: Size = "512MiB"; "Redis' proto-max-bulk-len"
        #[doc = "The version of Redis that clients are told (HELLO, INFO). Some turn on what they can do by it: redis-py's client-side caching asks for 7.4.0."]
        resp_announced_version: String = "7.2.4"; "the Redis whose commands and answers these are"
        #[doc = "Memory that keys may take before some are deleted, or writes that need room are refused, by resp-maxmemory-policy (Redis' maxmemory); 0: keys are never deleted for memory, their values go to disk. See docs/EVICTION.md. Also CONFIG SET."]
        resp_maxmemory: Size = "0"; "data beyond memory is on disk and nothing is lost; a cache asks for something else"
        #[doc = "Which keys are deleted at resp-maxmemory: noeviction, allkeys-lru, allkeys-lfu, allkeys-random, volatile-lru, volatile-lfu, volatile-random or volatile-ttl. Also CONFIG SET."]
        resp_maxmemory_policy: Policy = "noeviction"; "Redis' default"
        #[doc = "Limits of their own for the keys of a database or with a prefix, so that a cache shares the server with what must stay: `prefix=cache: max=64mb policy=allkeys-lru; db=1 max=32mb policy=volatile-ttl`. A key has the first rule that means it, else resp-maxmemory. Also CONFIG SET maxmemory-rules."]
        resp_maxmemory_rules: MemoryRules = ""; "one limit for all keys, as Redis"
        #[doc = "Keys looked at to find one to delete, from 1 to 64 (maxmemory-samples). Also CONFIG SET."]
        resp_maxmemory_samples: u32 = "5"; "Redis' default"
        #[doc = "How much less than the last one a further use of a key counts (lfu-log-factor). Also CONFIG SET."]
        resp_lfu_log_factor: u32 = "10"; "Redis' default"
        #[doc = "Minutes after which a use of a key is forgotten (lfu-decay-time); 0: never. Also CONFIG SET."]
        resp_lfu_decay_time: u32 = "1"; "Redis' default"
        #[doc = "Whether Redis' DEBUG may be used (enable-debug-command): no, local (from this machine only) or yes."]
        resp_debug_command: DebugCommand = "no"; "Redis' default: it is for tests"
        #[doc = "Whether Redis clients are told that this is a cluster: off, or emulated, which is a cluster of one node with all slots, for clients and frameworks that speak to clusters only. Then a command's keys must be in one slot (CROSSSLOT), and there is one database."]
        resp_cluster_mode: ClusterMode = "off"; "most clients speak to one server, and may then use any keys together"
        #[doc = "Number of Redis databases."]
        resp_databases: u16 = "16"; "Redis' default"
        #[doc = "Largest AMQP frame offered to clients."]
        amqp_frame_max: u32 = "131072"; "RabbitMQ's default"
        #[doc = "Channels per AMQP connection offered to clients."]
        amqp_channel_max: u16 = "2047"; "RabbitMQ's default"
        #[doc = "Consumers of one AMQP channel (RabbitMQ's consumer_max_per_channel). 0: no limit."]
        amqp_consumer_max_per_channel: usize = "10000"; "far above what clients do; RabbitMQ has none until it is set"
        #[doc = "AMQP heartbeat offered to clients; 0: none."]
        amqp_heartbeat: Duration = "60s"; "RabbitMQ's default"
        #[doc = "How long an AMQP client may have a message without acknowledging it, before its channel is closed and the message goes back; a queue's x-consumer-timeout counts instead. unlimited: for ever."]
        amqp_consumer_timeout: Duration = "30m"; "RabbitMQ's default"
        #[doc = "Product that AMQP clients are told in server-properties."]
        amqp_announced_product: String = "RabbitMQ"; "kombu, for one, sets a prefetch per channel, which Celery changes as it runs, with RabbitMQ only"
        #[doc = "Version that AMQP clients are told in server-properties."]
        amqp_announced_version: String = "3.13.7"; "the last RabbitMQ with all that 4.x took away; kombu gives up prefetch per channel from 4.0 on"
        #[doc = "Publish a copy of each AMQP message that comes or goes to amq.rabbitmq.trace, from the start on; POST /api/v1/amqp/trace switches it."]
        amqp_trace: bool = "false"; "for a look at a flow that is not understood: with somebody bound there each message is routed twice"
        #[doc = "Largest AMQP message body, at most 512MiB."]
        amqp_max_message_size: Size = "128MiB"; "RabbitMQ 3.13's default"
        #[doc = "Largest Kafka request."]
        kafka_max_request_size: Size = "100MiB"; "Kafka's socket.request.max.bytes"
    }
    "Testing" {
        #[doc = "At a stop, load everything a second time and compare it with what is in memory; a difference is an error."]
        check_law: bool = "false"; "it reads all data: for tests, which end each run with it"
    }
    "Kafka" {
        #[doc = "Topics are created when a producer or consumer first names them."]
        kafka_auto_create_topics: bool = "true"; "Kafka's default"
        #[doc = "Redis databases whose changes are written to topics, __keyspace.0 and so on: off, all, or numbers such as 0,3. See docs/KEYSPACE.md."]
        keyspace_topics: Databases = "off"; "a change costs as much again when it is told"
        #[doc = "Partitions of a topic that is created without a number (num.partitions)."]
        kafka_partitions: u32 = "1"; "Kafka's default"
    }
}

/// The knob of that name, in either spelling.
pub fn knob(name: &str) -> Option<&'static Knob> {
    let name = name.replace('-', "_");
    KNOBS.iter().find(|knob| knob.name == name)
}

/// The known name most like `name`, for "did you mean".
pub fn nearest(name: &str) -> &'static str {
    KNOBS
        .iter()
        .max_by(|a, b| likeness(name, a.name).total_cmp(&likeness(name, b.name)))
        .map_or("", |knob| knob.name)
}

/// 0 (nothing in common) to 1 (the same), in any spelling.
fn likeness(a: &str, b: &str) -> f64 {
    let a = a.replace('-', "_").to_ascii_lowercase();
    // Edits find slips of the finger; the second measure, which favours a common start, finds half-remembered names.
    strsim::normalized_damerau_levenshtein(&a, b).max((strsim::jaro_winkler(&a, b) - 0.5) * 1.5)
}

impl Config {
    /// Addresses of all entrances, `port_offset` not yet added.
    pub fn entrances(&self) -> [(Entrance, &Addrs); 10] {
        let (plain, tls) = (Entrance::plain, Entrance::tls);
        [
            (plain(Face::Resp), &self.resp_addr),
            (plain(Face::Amqp), &self.amqp_addr),
            (plain(Face::Kafka), &self.kafka_addr),
            (plain(Face::Grpc), &self.grpc_addr),
            (plain(Face::Http), &self.http_addr),
            (tls(Face::Resp), &self.resp_tls_addr),
            (tls(Face::Amqp), &self.amqp_tls_addr),
            (tls(Face::Kafka), &self.kafka_tls_addr),
            (tls(Face::Grpc), &self.grpc_tls_addr),
            (tls(Face::Http), &self.http_tls_addr),
        ]
    }

    /// Whether client certificates are asked for.
    pub fn client_auth(&self) -> ClientAuth {
        self.tls_client_auth
            .unwrap_or(if self.tls_client_ca.is_some() {
                ClientAuth::Required
            } else {
                ClientAuth::None
            })
    }

    /// Threads that serve clients.
    pub fn thread_count(&self) -> usize {
        self.threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
            .max(1)
    }

    /// The engine's part.
    pub fn engine(&self) -> storage::Options {
        storage::Options {
            fold_bytes: self.fold_bytes(),
            retain_bytes: self.log_retention_size.0,
            retain_age: self.log_retention_age,
            cache_bytes: self.table_cache.0,
            reserve_bytes: self.disk_reserve(),
            // A file of the log goes as a whole, so a small disk needs small ones.
            segment_bytes: self.fold_bytes().clamp(4 << 20, 64 << 20),
            ..storage::Options::new(&self.data_dir)
        }
    }

    /// Bytes of log in a fold: its window is mapped, so it must be small where memory is.
    pub fn fold_bytes(&self) -> u64 {
        const MIB: u64 = 1 << 20;
        match self.fold_size {
            Some(size) => size.0,
            None => (self.memory_budget() / 16).clamp(8 * MIB, 128 * MIB),
        }
    }

    /// Free bytes of disk below which writes are refused.
    pub fn disk_free_limit(&self) -> u64 {
        const SLACK: u64 = 64 << 20;
        match self.disk_free_limit {
            Some(limit) => limit.0,
            None => {
                let all = storage::space::total(&self.data_dir).unwrap_or(u64::MAX);
                (2 * self.fold_bytes() + SLACK).min(all / 4)
            }
        }
    }

    /// Memory that the process may allocate before writes that need room are refused: the data's, that of the tables, and
    /// something for itself.
    pub fn allocated_limit(&self) -> u64 {
        const OWN: u64 = 128 << 20;
        self.memory_budget()
            .saturating_add(self.table_cache.0)
            .saturating_add(OWN)
    }

    /// Bytes kept on the disk for deletions.
    fn disk_reserve(&self) -> u64 {
        const MOST: u64 = 16 << 20;
        match self.storage {
            StorageKind::Disk => (self.disk_free_limit() / 4).min(MOST),
            // The directory may be memory itself.
            StorageKind::Memory => 0,
        }
    }

    /// Memory for resident data, in bytes.
    pub fn memory_budget(&self) -> u64 {
        /// Where neither the kernel nor the operator says how much there is.
        const UNKNOWN: u64 = 1 << 30;
        match self.memory_limit {
            Some(limit) => limit.0,
            None => match process::memory_bytes() {
                0 => UNKNOWN,
                all => all / 2,
            },
        }
    }

    /// How much memory Redis keys may take.
    pub fn limits(&self) -> LimitSettings {
        LimitSettings {
            rest: Bounds {
                max_bytes: match self.resp_maxmemory {
                    Size::UNLIMITED => 0,
                    max => max.0,
                },
                policy: self.resp_maxmemory_policy,
            },
            rules: self.resp_maxmemory_rules.0.clone(),
            samples: self.resp_maxmemory_samples,
            lfu_log_factor: self.resp_lfu_log_factor,
            lfu_decay_minutes: self.resp_lfu_decay_time,
        }
    }

    /// What is wrong with limits of memory, and with which of `maxmemory` and `maxmemory-rules`.
    pub fn wrong_limits(&self, limits: &LimitSettings) -> Option<(&'static str, String)> {
        let (max, memory) = (limits.rest.max_bytes, self.memory_budget());
        if max > memory {
            let why = format!(
                "{max} bytes are more than the {memory} of memory-limit; keep to half of it, or raise that"
            );
            return Some(("maxmemory", why));
        }
        Some(("maxmemory-rules", self.wrong_rules(&limits.rules)?))
    }

    /// What is wrong with rules that leave too little memory for the keys that they do not mean, or that can mean none.
    fn wrong_rules(&self, rules: &[Rule]) -> Option<String> {
        let keys = broker::Budgets::split(self.memory_budget()).cache.limit();
        let most = keys / 4 * 3;
        let sum = (rules.iter()).fold(0u64, |sum, rule| sum.saturating_add(rule.bounds.max_bytes));
        if sum > most {
            return Some(format!(
                "the rules allow {sum} bytes together, and they may take {most} (three quarters of the half of memory-limit that is for keys)"
            ));
        }
        let databases = match self.resp_cluster_mode {
            ClusterMode::Off => usize::from(self.resp_databases),
            ClusterMode::Emulated => 1,
        };
        for (place, rule) in rules.iter().enumerate() {
            if let Some(db) = rule.db.filter(|db| *db >= databases) {
                return Some(format!("there is no database {db}, there are {databases}"));
            }
            let before = rules.iter().take(place);
            if let Some(first) = before.enumerate().find(|(_, first)| first.covers(rule)) {
                return Some(format!(
                    "rule {} means no key that rule {} does not mean before; write it first, or leave it out",
                    place + 1,
                    first.0 + 1
                ));
            }
        }
        None
    }

    /// Memory for clients' buffers, in bytes.
    pub fn client_memory(&self) -> usize {
        /// What others send meanwhile.
        const OTHERS: u64 = 128 << 20;
        /// However little memory there may be for data.
        const LEAST: u64 = 32 << 20;
        let largest = [
            self.resp_max_bulk,
            self.amqp_max_message_size,
            self.kafka_max_request_size,
        ];
        let auto = || {
            let budget = self.memory_budget();
            let largest = largest.iter().map(|size| size.0).max().unwrap_or(0);
            // One request of the largest size has room, unless it takes nearly all memory.
            let least = largest.saturating_add(OTHERS).min(budget / 4 * 3);
            Size(least.max(budget / 4).max(LEAST))
        };
        self.client_memory_limit.unwrap_or_else(auto).as_usize()
    }

    /// What is wrong with an entrance that other machines reach when nobody can log in.
    pub fn open_address(&self) -> Option<String> {
        let mut entrances = self.entrances().into_iter();
        let (entrance, addrs) = entrances.find(|(_, addrs)| !addrs.loopback_only())?;
        Some(format!(
            "{entrance}-addr {} can be reached from other machines, and nobody can log in: set a password with FLOWMESH_PASSWORD or \
             --password-file FILE (and --user NAME), add a superuser with `flowmesh user add` while the server keeps to 127.0.0.1, or keep to it",
            addrs.show()
        ))
    }

    /// What the values must satisfy together; each message says what to do.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (entrance, addrs) in self.entrances() {
            if let Err(message) = addrs.shifted(self.port_offset) {
                wrong.push(format!("{entrance}-addr: {message}"));
            }
            if entrance.tls && !addrs.0.is_empty() && self.tls_cert.is_none() {
                wrong.push(format!(
                    "{entrance}-addr needs a certificate: name its PEM files with --tls-cert and --tls-key (for development, \
                     `flowmesh dev --tls` makes them)"
                ));
            }
        }
        // Users are looked for when the catalog is open; where there is none, nothing need be made to know it.
        if self.password.is_empty()
            && (self.storage == StorageKind::Memory || !self.data_dir.exists())
        {
            wrong.extend(self.open_address());
        }
        self.check_tls(&mut wrong);
        if self.resp_databases == 0 {
            wrong.push("resp-databases must be at least 1".into());
        }
        if let Some((name, message)) = self.wrong_limits(&self.limits()) {
            wrong.push(format!("resp-{name}: {message}"));
        }
        if !(1..=64).contains(&self.resp_maxmemory_samples) {
            wrong.push("resp-maxmemory-samples must be from 1 to 64".into());
        }
        if self.max_connections == 0 {
            wrong.push("max-connections must be at least 1".into());
        }
        if self.resp_script_memory.as_usize() < 4 << 20 {
            wrong.push("resp-script-memory must be at least 4MiB".into());
        }
        if self.admin_max_connections == 0 {
            wrong.push("admin-max-connections must be at least 1".into());
        }
        if self.threads == Some(0) {
            wrong.push("threads must be at least 1, or auto".into());
        }
        if self.kafka_partitions == 0 {
            wrong.push("kafka-partitions must be at least 1".into());
        }
        // RabbitMQ's own bound; a record of the log is smaller than 4 GiB.
        if self.amqp_max_message_size.0 > 512 << 20 {
            wrong.push("amqp-max-message-size must be at most 512MiB".into());
        }
        // AMQP 0-9-1 §4.2.3: a peer must accept frames of 4096 octets (frame-min-size).
        if self.amqp_frame_max != 0 && self.amqp_frame_max < 4096 {
            wrong.push("amqp-frame-max must be at least 4096".into());
        }
        wrong
    }

    /// Which files belong together, and that they can be used.
    fn check_tls(&self, wrong: &mut Vec<String>) {
        let before = wrong.len();
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            wrong.push("tls-cert and tls-key belong together: name both".into());
        }
        if self.tls_client_ca.is_none() {
            if self.client_auth() != ClientAuth::None {
                wrong.push(format!(
                    "tls-client-auth {} needs tls-client-ca, the authorities that sign client certificates",
                    self.client_auth().show()
                ));
            }
            if self.tls_client_crl.is_some() {
                wrong.push("tls-client-crl needs tls-client-ca".into());
            }
        }
        if wrong.len() == before
            && let Err(error) = crate::tls::Configs::load(self)
        {
            wrong.push(error.to_string());
        }
    }
}

/// An address of its own: a face, with TLS or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Who comes in here.
    pub face: Face,
    /// With TLS.
    pub tls: bool,
}

impl Entrance {
    /// The one without TLS.
    pub const fn plain(face: Face) -> Self {
        Self { face, tls: false }
    }

    /// The one with TLS.
    pub const fn tls(face: Face) -> Self {
        Self { face, tls: true }
    }
}

impl std::fmt::Display for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.face.name())?;
        f.write_str(if self.tls { "-tls" } else { "" })
    }
}

/// A protocol that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Face {
    /// Redis clients.
    Resp,
    /// RabbitMQ clients.
    Amqp,
    /// Kafka clients.
    Kafka,
    /// gRPC clients.
    Grpc,
    /// HTTP clients.
    Http,
}

impl Face {
    /// All of them; those that carry data first.
    pub const ALL: [Self; 5] = [Self::Resp, Self::Amqp, Self::Kafka, Self::Grpc, Self::Http];

    /// The name in flags, metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resp => "resp",
            Self::Amqp => "amqp",
            Self::Kafka => "kafka",
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

#[cfg(test)]
mod tests;
