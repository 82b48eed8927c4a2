//! The node: what starts, in which order, and stops in reverse.
//!
//! sockets open → data directory locked, log folded → clients served → jobs → ready → admin; a stop goes back the same way, and the
//! admin thread, which says how it goes, is last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker::cache::Note;
use broker::{Broker, Budgets, Ctx, Locked, Millis, ShardSet};
use sd_notify::NotifyState;
use storage::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::api::Api;
use crate::audit::Audit;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::{Config, Entrance, Face, Mode, Size, StorageKind};
use crate::governor::Governor;
use crate::jobs::{self, Jobs};
use crate::listen::{BindError, Sockets, UnixError};
use crate::net::{Limits, Listener, Listening, Net, NewSession, Traffic, Urgent};
use crate::script_watch::ScriptWatch;
use crate::telemetry::metrics::{Kind, Metrics, PerFace};
use crate::telemetry::{self, process};
use crate::tls::{Keyring, TlsError};

/// What every session and job shares.
#[derive(Debug)]
pub struct Node {
    /// Keys, queues and topics.
    pub broker: Broker,
    /// The knobs.
    pub config: Config,
    /// Production or development.
    pub mode: Mode,
    /// Counters.
    pub metrics: Metrics,
    /// What went over the sockets.
    pub traffic: PerFace<Arc<Traffic>>,
    /// How hard memory and disk are pressed.
    pub governor: Governor,
    /// Free bytes of disk below which writes stop.
    pub disk_free_limit: u64,
    /// Time.
    pub clock: Clock,
    /// Who did what.
    pub audit: Audit,
    /// The Lua script that runs, which everybody waits for.
    pub scripts: Arc<ScriptWatch>,
    /// Who may come in.
    pub auth: Arc<Auth>,
    /// Where each entrance really is.
    pub addresses: Vec<(Entrance, SocketAddr)>,
    /// What TLS connections are made with.
    pub keyring: Option<Arc<Keyring>>,
    /// The directory of log and tables.
    pub data_dir: PathBuf,
    /// When the process started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Keys expire although nobody looks at them; off only for tests (`DEBUG SET-ACTIVE-EXPIRE`).
    active_expire: AtomicBool,
    /// Copies of AMQP messages go to whoever is bound for them.
    amqp_trace: AtomicBool,
    of_keys: OfKeys,
    phase: watch::Sender<Phase>,
}

/// Told what happens to keys without a client, if somebody wants to hear it.
#[derive(Default)]
struct OfKeys(OnceLock<Tell>);

type Tell = Box<dyn Fn(&[Note]) + Send + Sync>;

impl std::fmt::Debug for OfKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfKeys").finish_non_exhaustive()
    }
}

/// How far the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is in flight; nothing new is accepted.
    Stopping,
}

/// Why a node did not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port is taken or an address is not ours.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The Unix socket cannot be made.
    #[error(transparent)]
    Unix(#[from] UnixError),
    /// An address that others reach, and nobody who could log in.
    #[error("{0}")]
    Open(String),
    /// Certificate and key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The engine cannot be opened, or failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The changes of keys cannot be told.
    #[error("keyspace-topics: {0}")]
    Keyspace(#[from] broker::keyspace::Error),
    /// What a restart would load is not what was in memory (`check-law`).
    #[error("memory and tables differ in {0} places or more, see the log")]
    Law(usize),
    /// The operating system refused a thread, a timer or a signal handler.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl Node {
    /// Opens the data directory, folds what the log holds, and loads what must be in memory. Nothing is served yet, and no job
    /// runs. `addresses`: where each entrance will be.
    ///
    /// # Errors
    /// When the certificate cannot be used, the directory cannot be made or used, or what is in it cannot be opened.
    pub fn open(
        config: Config,
        mode: Mode,
        addresses: Vec<(Entrance, SocketAddr)>,
    ) -> Result<Arc<Self>, RunError> {
        let keyring = Keyring::open(&config)?.map(Arc::new);
        let data_dir = config.data_dir.clone();
        let engine = Engine::open(config.engine())?;
        let broker = Broker::open(engine, Budgets::split(config.memory_budget()))?;
        broker::cache::set_limits(&mut broker.lock(ShardSet::DATA), config.limits());
        broker.topics.set_durability(config.kafka_durability);
        broker
            .topics
            .set_default_partitions(config.kafka_partitions);
        let clock = Clock::new();
        let now = Millis(clock.now_ms());
        let auth = Arc::new(Auth::new(&config, &broker, now)?);
        if !auth.has_credential()
            && let Some(message) = config.open_address()
        {
            return Err(RunError::Open(message));
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
        let ctx = Ctx::new(now, u64::from_le_bytes(seed));
        broker::keyspace::tell(&broker, &ctx, config.keyspace_topics.0)?;
        Ok(Arc::new(Self {
            auth,
            broker,
            governor: Governor::default(),
            disk_free_limit: config.disk_free_limit(),
            audit: Audit::default(),
            scripts: Arc::new(ScriptWatch::new(config.resp_busy_reply_threshold)),
            metrics: Metrics::default(),
            traffic: PerFace::default(),
            addresses,
            keyring,
            data_dir: data_dir.canonicalize().unwrap_or(data_dir),
            started_ms: clock.now_ms(),
            active_expire: AtomicBool::new(true),
            amqp_trace: AtomicBool::new(config.amqp_trace),
            of_keys: OfKeys::default(),
            phase: watch::Sender::new(Phase::Starting),
            clock,
            mode,
            config,
        }))
    }

    /// The version of Redis that clients are told.
    pub fn redis_version(&self) -> &str {
        &self.config.resp_announced_version
    }

    /// From now on `tell` hears what happens to keys without a client. Only the first caller is heard.
    pub fn tell_of_keys(&self, tell: impl Fn(&[Note]) + Send + Sync + 'static) {
        let _ = self.of_keys.0.set(Box::new(tell));
    }

    /// Tells what happened to the keys of the locked shards, behind its commit.
    pub fn told_of_keys(&self, locked: &mut Locked<'_>) {
        let notes = broker::cache::heard(locked);
        if let Some(tell) = self.of_keys.0.get()
            && !notes.is_empty()
        {
            tell(&notes);
        }
    }

    /// Whether keys expire although nobody looks at them.
    pub fn active_expire(&self) -> bool {
        self.active_expire.load(Ordering::Relaxed)
    }

    /// See [`Node::active_expire`].
    pub fn set_active_expire(&self, on: bool) {
        self.active_expire.store(on, Ordering::Relaxed);
    }

    /// Whether copies of AMQP messages go to whoever is bound for them.
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.amqp_trace.load(Ordering::Relaxed)
    }

    /// See [`Node::is_traced`].
    pub fn set_traced(&self, on: bool) {
        self.amqp_trace.store(on, Ordering::Relaxed);
    }

    /// How far the node is.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the phases.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Asks the node to stop; returns at once.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Addresses of one face, without TLS.
    pub fn addresses_of(&self, face: Face) -> impl Iterator<Item = SocketAddr> {
        self.addresses_at(Entrance::plain(face))
    }

    /// Addresses of one entrance.
    pub fn addresses_at(&self, entrance: Entrance) -> impl Iterator<Item = SocketAddr> {
        self.addresses
            .iter()
            .filter(move |(of, _)| *of == entrance)
            .map(|(_, addr)| *addr)
    }
}

/// Runs a node until a signal or [`Node::stop`]; `ready` is called when clients can connect.
pub fn run(mut config: Config, mode: Mode, ready: impl FnOnce(&Node)) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Handlers first: a signal during the start must end in an orderly stop too.
    let mut signals = {
        let _inside = runtime.enter();
        Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        }
    };
    process::raise_file_limit(config.max_connections);
    let mut sockets = Sockets::open(&config)?;
    sockets.open_unix(&config)?;

    // Held until the end of this function: the directory goes with it.
    let _ephemeral = match config.storage {
        StorageKind::Disk => None,
        StorageKind::Memory => {
            let dir = tempfile::Builder::new().prefix("flowmesh-").tempdir()?;
            config.data_dir = dir.path().to_owned();
            Some(dir)
        }
    };
    let node = Node::open(config, mode, sockets.addresses())?;
    // A developer's terminal that is closed ends its server; a server takes the signal as "open your files again".
    let has_files = node.keyring.is_some() || node.config.log_file.is_some();
    let mut hangups = if has_files && mode == Mode::Server {
        let _inside = runtime.enter();
        Some(signal(SignalKind::hangup())?)
    } else {
        None
    };
    let engine = Arc::clone(&node.broker.engine);
    let (of_engine, of_net) = (Arc::clone(&engine), node.traffic.clone());
    node.metrics
        .register(move |out| telemetry::storage::collect(out, &of_engine));
    node.metrics
        .register(move |out| telemetry::traffic::collect(out, &of_net));
    // Weak: the metrics belong to the node.
    let weak = Arc::downgrade(&node);
    node.metrics.register(move |out| {
        if let Some(node) = weak.upgrade() {
            let now = Millis(node.clock.now_ms());
            node.governor.collect(out);
            telemetry::objects::collect(out, &node.broker, node.config.resp_databases, now);
        }
    });
    let net = Net::start(
        node.config.thread_count(),
        &engine,
        listeners(&node, &mut sockets),
        limits(&node.config),
    )?;
    let buffered = net.buffered();
    node.metrics.register(move |out| {
        out.family(
            "flowmesh_client_buffer_bytes",
            Kind::Gauge,
            "Unfinished requests and unsent replies of all clients; see client-memory-limit.",
        )
        .sample(&[], buffered());
    });
    let governor = Jobs::start(&node, "governor", jobs::pressure::jobs(net.buffered()))?;
    let jobs = Jobs::start(&node, "jobs", jobs::all())?;
    // Before the admin side listens, so that nobody can ask and hear less than what is true.
    node.phase.send_if_modified(|phase| {
        let starting = *phase == Phase::Starting;
        if starting {
            *phase = Phase::Ready;
        }
        starting
    });
    let api = Api::start(&node, &mut sockets)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %node.data_dir.display(), "ready");
    tell_systemd(NotifyState::Ready);
    ready(&node);

    runtime.block_on(async {
        let mut phases = node.phases();
        tokio::select! {
            name = signals.next() => tracing::info!(signal = name, "stopping"),
            never = renew(&node, hangups.as_mut()) => match never {},
            _ = phases.wait_for(|phase| *phase == Phase::Stopping) => tracing::info!("stopping"),
        }
    });
    tell_systemd(NotifyState::Stopping);
    node.stop();
    if engine.failed() {
        // Memory may be ahead of the log: nothing may be answered from it any more, and folding it would make it worse.
        return Err(storage::Error::Failed.into());
    }

    // A second signal means "now": what is acknowledged is in the log, so nothing is lost but the courtesy.
    runtime.spawn(async move {
        let name = signals.next().await;
        tracing::warn!(signal = name, "second signal, leaving at once");
        std::process::exit(130);
    });
    let grace = node.config.shutdown_timeout;
    let stopping = runtime.spawn_blocking(move || {
        node.scripts.stop(grace);
        net.stop(grace);
        jobs.stop();
        governor.stop();
        node.audit.write(&node);
        let lawful = check_law(&node);
        let closed = engine.close();
        api.stop();
        closed.map_err(RunError::from).and(lawful)
    });
    let stopped = runtime.block_on(stopping);
    runtime.shutdown_background();
    stopped.map_err(std::io::Error::other)??;
    tracing::info!("stopped");
    Ok(())
}

/// To whoever started us, if it asked (sd_notify(3)); nobody else hears it.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

/// Differences that are worth a line each; more say the same.
const DIFFERENCES: usize = 20;

/// With `check-law`: what a restart would load must be what is in memory now.
fn check_law(node: &Node) -> Result<(), RunError> {
    if !node.config.check_law {
        return Ok(());
    }
    match broker::law::check(&node.broker, DIFFERENCES) {
        Ok(differences) if differences.is_empty() => Ok(()),
        Ok(differences) => {
            for difference in &differences {
                tracing::error!(%difference, "a restart would change this");
            }
            Err(RunError::Law(differences.len()))
        }
        Err(broker::cache::Error::Storage(error)) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "cannot load what is in the tables");
            Err(RunError::Law(1))
        }
    }
}

/// How often the TLS files are looked at; they are read when two looks agree that they have changed.
const TLS_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes up new TLS files, and on SIGHUP a new log file, for ever.
async fn renew(node: &Node, mut hangups: Option<&mut Signal>) -> Infallible {
    let keyring = node.keyring.as_ref();
    let mut looks = tokio::time::interval(TLS_LOOK_EVERY);
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = hangup => {
                telemetry::log::reopen();
                keyring.into_iter().for_each(|keyring| keyring.reload());
            }
            _ = looks.tick(), if keyring.is_some() => {
                keyring.into_iter().for_each(|keyring| keyring.look());
            }
        }
    }
}

/// The faces' sockets with the sessions that speak on them. A face without sessions is not listened for.
fn listeners(node: &Arc<Node>, sockets: &mut Sockets) -> Vec<Listener> {
    let faces: Vec<(Face, NewSession, &'static [u8])> = vec![
        (
            Face::Resp,
            crate::resp::sessions(node),
            crate::resp::REFUSAL,
        ),
        (
            Face::Amqp,
            crate::amqp::sessions(node),
            crate::amqp::refusal(),
        ),
        (Face::Kafka, crate::kafka::sessions(node), b""),
    ];
    let mut all = Vec::new();
    for (face, sessions, refusal) in faces {
        let plain = sockets.take(Entrance::plain(face)).into_iter();
        let plain = plain.map(|socket| (socket, None, refusal));
        // Who has not shaken hands yet could not read the refusal.
        let tls = sockets.take(Entrance::tls(face)).into_iter();
        let tls = tls.map(|socket| (socket, node.keyring.clone(), &b""[..]));
        let tcp = plain.chain(tls);
        let tcp = tcp.map(|(socket, keyring, said)| (Listening::Tcp(socket), keyring, said));
        let unix = (face == Face::Resp).then(|| sockets.take_unix()).flatten();
        let unix = unix.map(|door| (Listening::Unix(door), None, refusal));
        for (socket, keyring, refusal) in tcp.chain(unix) {
            all.push(Listener {
                socket,
                sessions: Arc::clone(&sessions),
                keyring,
                refusal,
                traffic: Arc::clone(node.traffic.of(face)),
                urgent: (face == Face::Resp).then(|| {
                    let scripts = Arc::clone(&node.scripts);
                    Arc::new(move || scripts.is_busy()) as Urgent
                }),
            });
        }
    }
    all
}

fn limits(config: &Config) -> Limits {
    let unless_zero = |size: Size| match size.as_usize() {
        0 => usize::MAX,
        limit => limit,
    };
    Limits {
        connections: config.max_connections,
        connections_per_address: config.max_connections_per_address,
        accept_rate: config.connection_rate,
        accept_rate_per_address: config.connection_rate_per_address,
        outbox_close: unless_zero(config.client_output_limit),
        published_close: unless_zero(config.resp_subscriber_output_limit),
        published_soft: unless_zero(config.resp_subscriber_output_soft),
        published_for: config.resp_subscriber_output_time,
        buffers: config.client_memory(),
        handshake: config.handshake_timeout,
        ..Limits::default()
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
