//! Scripts that were not yet seen to be quick: they run on a thread of their own, in place of their session, so that the thread of
//! the connections can go on answering others when one of them does not end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use broker::access::Identity;
use broker::{Millis, Need};
use parking_lot::Mutex;
use protocol_resp::{Args, Version};

use super::tracking::Tracks;
use super::transaction::Queued;
use super::{Replies, Session};
use crate::node::Node;
use crate::resp::client::Client;
use crate::resp::fail::{Done, Fail};
use crate::resp::hub::{Event, Hub};
use crate::resp::script::{Program, sandbox};
use crate::resp::spec::{Evaluate, Run, Spec};

/// Lua calls C, and C calls Lua: more than a thread has by default.
const STACK: usize = 8 << 20;

/// Said to who would have to wait for a script or function that takes its time.
pub(in crate::resp) fn busy(node: &Node) -> Fail {
    Fail::Text(if node.scripts.is_function() {
        "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
    } else {
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
    })
}

/// The right to run a script, or to give it up.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicBool);

impl Ticket {
    /// True once.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// A script on its way, or running.
pub(in crate::resp) struct Job {
    ticket: Arc<Ticket>,
    node: Arc<Node>,
    hub: Arc<Hub>,
    client: Arc<Client>,
    identity: Identity,
    version: Version,
    tracks: Option<Box<Tracks>>,
    command: Queued,
    program: Option<(Program, bool)>,
    seed: u64,
    tight: u64,
}

/// How a script ended that ran elsewhere.
#[derive(Debug)]
pub(crate) struct Evaluated {
    reply: Vec<u8>,
    need: Need,
    commands: u64,
}

/// How long the library of a function may take to load before its first call here: it once did within [`sandbox::LOAD_MAX`].
const PREPARED_MAX: Duration = Duration::from_secs(2);
/// The same on the thread of a connection, where others wait.
const PREPARED_HERE_MAX: Duration = Duration::from_millis(100);

/// The threads, once there was something to do. They end with the hub.
#[derive(Default)]
pub(crate) struct Runner {
    scripts: Mutex<Option<Sender<Job>>>,
    /// Who loads libraries keeps no script waiting.
    loads: Mutex<Option<Sender<Job>>>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl Runner {
    fn send(&self, job: Job) -> Done {
        const NO_THREAD: Fail = Fail::Text("ERR cannot start a thread for scripts");
        let (jobs, name) = match job.command.spec.run {
            Run::Loading(_) => (&self.loads, "libraries"),
            _ => (&self.scripts, "scripts"),
        };
        let mut jobs = jobs.lock();
        if jobs.is_none() {
            let (sender, receiver) = mpsc::channel();
            std::thread::Builder::new()
                .name(name.into())
                .stack_size(STACK)
                .spawn(move || serve(&receiver))
                .map_err(|_| NO_THREAD)?;
            *jobs = Some(sender);
        }
        // At most one job of each connection is in the queue.
        match &*jobs {
            Some(sender) => sender.send(job).map_err(|_| NO_THREAD),
            None => Err(NO_THREAD),
        }
    }
}

fn serve(jobs: &Receiver<Job>) {
    for job in jobs {
        if !job.ticket.take() {
            continue;
        }
        let client = Arc::clone(&job.client);
        let evaluated = run(job);
        client.mailbox.push(Event::Evaluated(evaluated));
    }
}

fn run(job: Job) -> Evaluated {
    let mut session = Session::bare(job.node, job.hub, job.client, job.identity, job.seed);
    session.ctx.now = Millis(session.node.clock.now_ms());
    session.authenticated = true;
    session.version = job.version;
    session.db = job.command.db;
    session.tracks = job.tracks;
    session.program = job.program;
    session.tight = job.tight;
    let mut reply = Vec::new();
    let args = job.command.args();
    if let Run::Script(how) = job.command.spec.run {
        session.prepare(how, &args, PREPARED_MAX);
    }
    let done = session.counted(job.command.spec, &args, |session| {
        session.atomically(&[(job.command.spec, args)], false, &mut reply)
    });
    if let Err(fail) = done {
        reply.clear();
        session.refuse(&fail, &mut reply);
    }
    Evaluated {
        reply,
        need: std::mem::take(&mut session.need),
        commands: session.commands,
    }
}

/// A session whose script is elsewhere.
#[derive(Debug)]
pub(super) struct Elsewhere {
    ticket: Arc<Ticket>,
    /// When to see whether it can still be waited for.
    pub(super) look_at: Instant,
}

impl Elsewhere {
    /// The client is gone. A script that runs goes on.
    pub(super) fn abandon(&self) {
        self.ticket.take();
    }
}

impl Session {
    /// `EVAL` or `FCALL` outside of a transaction: here when the program is known to be quick, else elsewhere.
    #[cold]
    pub(super) fn start_script(
        &mut self,
        spec: &'static Spec,
        how: Evaluate,
        args: &Args<'_>,
        out: &mut Vec<u8>,
    ) -> Done {
        if self.node.scripts.is_busy() {
            return Err(busy(&self.node));
        }
        let program = self.program_found(spec, how, args, None)?;
        if !program.1
            && program.0.is_quick()
            && self.prepared(&program.0, PREPARED_HERE_MAX).is_ok()
        {
            self.program = Some(program);
            let done = self.atomically(&[(spec, *args)], false, out);
            // Not taken when the locks could not be had.
            self.program = None;
            return done;
        }
        self.send_elsewhere(spec, args, Some(program))
    }

    /// A command that runs Lua, on the thread for that; the session waits for it.
    pub(super) fn send_elsewhere(
        &mut self,
        spec: &'static Spec,
        args: &Args<'_>,
        program: Option<(Program, bool)>,
    ) -> Done {
        // What it is refused is logged with the command that it is.
        self.show();
        let ticket = Arc::new(Ticket::default());
        self.hub.runner.send(Job {
            ticket: Arc::clone(&ticket),
            node: Arc::clone(&self.node),
            hub: Arc::clone(&self.hub),
            client: Arc::clone(&self.client),
            identity: self.identity.clone(),
            version: self.version,
            tracks: self.tracks.clone(),
            command: Queued::new(self.db, spec, args),
            program,
            seed: self.ctx.random(),
            tight: self.tight,
        })?;
        self.elsewhere = Some(Elsewhere {
            ticket,
            look_at: self.next_look(),
        });
        Ok(())
    }

    /// What a program needs is loaded on this thread.
    pub(super) fn prepared(&self, program: &Program, time: Duration) -> Done {
        let memory = self.node.config.resp_script_memory.as_usize();
        sandbox::prepare(&self.hub.scripts, memory, program, time)
    }

    fn next_look(&self) -> Instant {
        let patience = self.node.scripts.threshold().max(10);
        let now = Instant::now();
        now.checked_add(Duration::from_millis(patience))
            .unwrap_or(now)
    }

    /// The script has ended.
    pub(super) fn evaluated(&mut self, evaluated: Evaluated, out: &mut Vec<u8>) {
        if self.elsewhere.take().is_none() {
            return;
        }
        self.need = self.need.merge(evaluated.need);
        self.commands += evaluated.commands;
        let mark = out.len();
        out.extend_from_slice(&evaluated.reply);
        if self.replies != Replies::On {
            self.silence(mark, out);
        }
    }

    /// Gives up a script that has not begun while another one runs for too long.
    pub(super) fn look_elsewhere(&mut self, out: &mut Vec<u8>) {
        let look_at = self.next_look();
        let is_busy = self.node.scripts.is_busy();
        let Some(elsewhere) = &mut self.elsewhere else {
            return;
        };
        if !is_busy || !elsewhere.ticket.take() {
            elsewhere.look_at = look_at;
            return;
        }
        self.elsewhere = None;
        let mark = out.len();
        let fail = busy(&self.node);
        self.refuse(&fail, out);
        if self.replies != Replies::On {
            self.silence(mark, out);
        }
    }
}
