//! `EVAL` and its kin: a script under the locks of its transaction, and the commands that it calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::functions::{self, FunctionFlags, Libraries};
use broker::{Locked, Need, Slot};
use mlua::{Lua, MultiValue, Value};
use protocol_resp::number::parse_i64;
use protocol_resp::{Args, Version};

use super::Session;
use super::cluster::InSlot;
use super::pressure::shortage;
use super::transaction::TRANSACTION_MAX;
use crate::governor::Stop;
use crate::node::Node;
use crate::resp::acl::log::Context;
use crate::resp::commands;
use crate::resp::commands::fm::After;
use crate::resp::fail::{Done, Fail, OOM};
use crate::resp::script::sandbox::{self, Given, Host};
use crate::resp::script::{Program, Script, convert, digest, parse_digest};
use crate::resp::spec::{Evaluate, Flags, Named, Run, Spec};

type Words<'a> = Vec<&'a [u8]>;

/// Characters of a digest.
const DIGEST: usize = 40;
const UNKNOWN: Fail = Fail::Text("NOSCRIPT No matching script. Please use EVAL.");

/// How many of the arguments of `EVAL script numkeys …` are keys.
fn key_count(how: Evaluate, args: &Args<'_>) -> Result<usize, Fail> {
    if how.named == Named::Digest && args.at(1).len() != DIGEST {
        return Err(UNKNOWN);
    }
    let count = parse_i64(args.at(2)).ok_or(match how.named {
        Named::Function => Fail::Text("ERR Bad number of keys provided"),
        Named::Text | Named::Digest => Fail::NotInteger,
    })?;
    let count =
        usize::try_from(count).map_err(|_| Fail::Text("ERR Number of keys can't be negative"))?;
    if count > args.from(3).len() {
        return Err(Fail::Text(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    Ok(count)
}

/// The keys and the other arguments.
fn parts<'a>(how: Evaluate, args: &Args<'a>) -> Result<(Words<'a>, Words<'a>), Fail> {
    let mut keys: Words<'a> = args.from(3).iter().collect();
    let others = keys.split_off(key_count(how, args)?);
    Ok((keys, others))
}

/// A function that was found before the locks, and a script always: nobody has changed the library since.
fn stands(program: &Program, locked: &Locked<'_>) -> bool {
    let Program::Function(library, _) = program else {
        return true;
    };
    let libraries = functions::within(locked);
    let now = libraries.get(&library.name);
    now.is_some_and(|now| Arc::ptr_eq(now, library))
}

impl Session {
    /// All libraries of functions. The next reply waits until what made them so is durable.
    pub(in crate::resp) fn libraries(&mut self) -> Arc<Libraries> {
        let libraries = self.node.broker.functions.now();
        let changed = self.node.broker.functions.changed();
        self.wait_for(Need::of(changed, self.hub.durability()));
        libraries
    }

    /// Loads the library of a function that will be called, before its locks. What does not load now is loaded under them, where who
    /// waits can end it.
    pub(super) fn prepare(&self, how: Evaluate, args: &Args<'_>, time: Duration) {
        if how.named != Named::Function || time.is_zero() {
            return;
        }
        let found = self.node.broker.functions.now().function(args.at(1));
        if let Some((library, place)) = found {
            let _later = self.prepared(&Program::Function(library, place), time);
        }
    }

    /// The script or function that is meant, that it may run so, and whether it is new.
    pub(super) fn program_of(
        &self,
        how: Evaluate,
        args: &Args<'_>,
        locked: Option<&Locked<'_>>,
    ) -> Result<(Program, bool), Fail> {
        let scripts = &self.hub.scripts;
        if how.named != Named::Function {
            // As in Redis, which finds a function before it counts its keys.
            key_count(how, args)?;
        }
        let (program, new) = match how.named {
            Named::Digest => {
                let known = parse_digest(args.at(1)).and_then(|digest| scripts.get(&digest));
                (Program::Script(known.ok_or(UNKNOWN)?), false)
            }
            Named::Text => match scripts.get(&digest(args.at(1))) {
                Some(known) => (Program::Script(known), false),
                None => (Program::Script(Arc::new(Script::parse(args.at(1))?)), true),
            },
            Named::Function => {
                let libraries = match locked {
                    Some(locked) => functions::within(locked),
                    None => self.node.broker.functions.now(),
                };
                let found = libraries.function(args.at(1));
                let (library, place) = found.ok_or(Fail::Text("ERR Function not found"))?;
                key_count(how, args)?;
                (Program::Function(library, place), false)
            }
        };
        if how.read_only && program.flags().is_some() && !program.no_writes() {
            return Err(Fail::Text(
                "ERR Can not execute a script with write flag using *_ro command.",
            ));
        }
        let flags = program.flags().unwrap_or_default();
        if flags.has(FunctionFlags::NO_CLUSTER) && self.clustered {
            return Err(Fail::Text(
                "ERR Can not run script on cluster, 'no-cluster' flag is set.",
            ));
        }
        Ok((program, new))
    }

    /// The same, if there is room for it, and the reply waits until what made the function so is durable.
    pub(super) fn program_found(
        &mut self,
        spec: &Spec,
        how: Evaluate,
        args: &Args<'_>,
        locked: Option<&Locked<'_>>,
    ) -> Result<(Program, bool), Fail> {
        let found = self.program_of(how, args, locked);
        if how.named == Named::Function {
            // Asked later than the function: at worst it waits for more.
            let changed = self.node.broker.functions.changed();
            self.wait_for(Need::of(changed, self.hub.durability()));
        }
        let (program, new) = found?;
        self.program_under_pressure(&program, spec, args)?;
        Ok((program, new))
    }

    /// Runs a script. What it changed before it failed stays, as in Redis.
    pub(super) fn evaluate(
        &mut self,
        spec: &Spec,
        how: Evaluate,
        args: &Args<'_>,
        locked: &mut Locked<'_>,
        after: &mut After,
        out: &mut Vec<u8>,
    ) -> Done {
        let (program, new) = match self.program.take() {
            Some(found) if stands(&found.0, locked) => found,
            _ => self.program_found(spec, how, args, Some(locked))?,
        };
        let (keys, others) = parts(how, args)?;
        let hub = Arc::clone(&self.hub);
        let mut slot = InSlot::None;
        if self.clustered {
            slot = (keys.iter()).fold(slot, |all, key| all.and(Slot::of(key)));
        }
        let given = Given {
            keys,
            args: others,
            seed: self.ctx.random() & 0xffff_ffff_ffff,
        };
        let db = self.db;
        let memory = self.node.config.resp_script_memory.as_usize();
        let done = sandbox::with(&hub.scripts, memory, |interpreter| {
            if let (Program::Script(script), true) = (&program, new) {
                interpreter.compile(script)?;
                hub.scripts.remember(Arc::clone(script), false)?;
            }
            let mut caller = Caller {
                slot,
                one_slot: (program.flags())
                    .is_some_and(|flags| !flags.has(FunctionFlags::ALLOW_CROSS_SLOT_KEYS)),
                node: Arc::clone(&self.node),
                read_only: how.read_only || program.no_writes(),
                short: self.node.governor.stop(),
                may_grow: program.may_grow(),
                session: self,
                locked,
                after,
                data: Vec::new(),
                ranges: Vec::new(),
                reply: Vec::new(),
                out,
            };
            let watch = Arc::clone(&caller.node.scripts);
            let began = Instant::now();
            if program.is_function() {
                watch.begin_function(&program.name(), args.iter());
            } else {
                watch.begin();
            }
            let done = interpreter.run(&program, &given, &watch, &mut caller);
            watch.end();
            program.ran(began.elapsed());
            done
        });
        // SELECT within a script is the script's.
        self.db = db;
        done
    }

    /// `SCRIPT LOAD`.
    pub(in crate::resp) fn load_script(&self, body: &[u8]) -> Result<String, Fail> {
        let script = Arc::new(Script::parse(body)?);
        let hex = crate::resp::script::hex(&script.digest);
        let memory = self.node.config.resp_script_memory.as_usize();
        sandbox::with(&self.hub.scripts, memory, |interpreter| {
            interpreter.compile(&script).map(|_| ())
        })?;
        self.hub.scripts.remember(script, true)?;
        Ok(hex)
    }
}

/// A running script's way back to the session that runs it.
struct Caller<'s, 'l, 'g> {
    session: &'s mut Session,
    node: Arc<Node>,
    locked: &'l mut Locked<'g>,
    after: &'l mut After,
    read_only: bool,
    /// The disk was short when it began, until it writes.
    short: Option<Stop>,
    /// It may do so although there is no room: it says so, or has changed something and goes on to its end.
    may_grow: bool,
    /// Where its keys are, in a cluster.
    slot: InSlot,
    /// It must keep to one slot there.
    one_slot: bool,
    /// The command, and its reply.
    data: Vec<u8>,
    ranges: Vec<(u32, u32)>,
    reply: Vec<u8>,
    /// Where the script's own reply goes.
    out: &'s mut Vec<u8>,
}

/// Redis asks before a command of a script what it asks a client.
fn refused(text: &'static str) -> Fail {
    Fail::Text(text)
}

impl Caller<'_, '_, '_> {
    /// Runs the command that lies in `data`, with its reply in `reply`.
    fn command(&mut self) -> Done {
        let args = Args::new(&self.data, &self.ranges);
        let Some(spec) = commands::lookup(&args) else {
            return Err(match commands::lookup_name(args.at(0)) {
                Some(_) if args.len() < 2 => refused(WRONG_ARITY),
                _ => refused("ERR Unknown Redis command called from script"),
            });
        };
        if !spec.takes(args.len()) {
            return Err(refused(WRONG_ARITY));
        }
        if spec.flags.has(Flags::NOSCRIPT) {
            return Err(refused("ERR This Redis command is not allowed from script"));
        }
        let session = &mut *self.session;
        if session.is_restricted() && !spec.flags.has(Flags::NO_AUTH) {
            let asked = session.permit(session.db, spec, &args, Context::Lua);
            asked.map_err(|fail| {
                let why = fail.text();
                let why = why.strip_prefix("NOPERM ").unwrap_or(why);
                Fail::Owned(format!("ERR ACL failure in script: {why}"))
            })?;
        }
        if session.clustered {
            let own = InSlot::None.and_keys(spec, &args);
            if own == InSlot::Several {
                return Err(refused(
                    "ERR Script attempted to access a non local key in a cluster node",
                ));
            }
            let all = match own {
                InSlot::One(slot) if self.one_slot => self.slot.and(slot),
                own => own,
            };
            if all == InSlot::Several {
                return Err(refused(
                    "ERR Script attempted to access keys that do not hash to the same slot",
                ));
            }
            if self.one_slot && all != InSlot::None {
                self.slot = all;
            }
        }
        // What reads may keep what it found.
        let writes = spec.flags.has(Flags::WRITE) || spec.name == "pfcount";
        if self.read_only && (writes || publishes(spec)) {
            return Err(refused(
                "ERR Write commands are not allowed from read-only scripts.",
            ));
        }
        if !self.may_grow && spec.flags.has(Flags::DENYOOM) && session.has_no_room(spec, &args) {
            return Err(refused(OOM));
        }
        if let Some(text) = self.short.and_then(|stop| shortage(stop, spec.flags)) {
            return Err(refused(text));
        }
        if writes && !self.node.scripts.write() {
            let of_function = self.node.scripts.is_function();
            return Err(Fail::Owned(format!(
                "ERR {}",
                sandbox::killed_text(of_function)
            )));
        }
        let done = self.run(spec);
        if writes && done.is_ok() {
            // Half of a script is worse than what it still adds, as in Redis.
            self.short = None;
            self.may_grow = true;
        }
        done
    }

    fn run(&mut self, spec: &'static Spec) -> Done {
        let args = Args::new(&self.data, &self.ranges);
        let session = &mut *self.session;
        session.commands += 1;
        if session.fx.size() > TRANSACTION_MAX {
            return Err(refused("ERR script changes too much at once"));
        }
        let plan = match spec.run {
            Run::Planned(plan) => {
                if spec.name == "fm.produce"
                    && std::str::from_utf8(args.at(1))
                        .is_ok_and(|topic| self.node.broker.topics.get(topic).is_none())
                {
                    // Its partitions would have to be locked while all shards are.
                    return Err(refused("NOTFOUND a script cannot create a topic"));
                }
                let mut plan = plan(&self.node, &session.ctx, &args, true)?;
                while !plan.stands(&self.node) {
                    plan.renew(&self.node)?;
                }
                plan.permit(&session.identity)?;
                plan.check(self.locked)?;
                Some(plan)
            }
            _ => None,
        };
        let (node, locked, after, reply) = (
            &self.node,
            &mut *self.locked,
            &mut *self.after,
            &mut self.reply,
        );
        let done = session.counted(spec, &args, |session| {
            session.run_locked(spec, &args, plan, node, locked, after, reply)
        });
        if !session.hub.monitors.is_empty() {
            session.monitor(spec, &args, true);
        }
        done
    }
}

const WRONG_ARITY: &str = "ERR Wrong number of args calling Redis command from script";

fn publishes(spec: &Spec) -> bool {
    matches!(spec.name, "publish" | "spublish")
}

impl Host for Caller<'_, '_, '_> {
    fn call(
        &mut self,
        lua: &Lua,
        version: Version,
        given: &MultiValue,
    ) -> mlua::Result<Result<Value, String>> {
        if let Err(text) = convert::command(given, &mut self.data, &mut self.ranges) {
            return Ok(Err(format!("ERR {text}")));
        }
        self.reply.clear();
        let kept = std::mem::replace(&mut self.session.version, version);
        if let Err(fail) = self.command() {
            self.reply.clear();
            self.session.refuse(&fail, &mut self.reply);
        }
        self.session.version = kept;
        if let Some(error) = self.reply.strip_prefix(b"-") {
            let error = error.strip_suffix(b"\r\n").unwrap_or(error);
            return Ok(Err(String::from_utf8_lossy(error).into_owned()));
        }
        convert::to_lua(lua, &mut self.reply.as_slice()).map(Ok)
    }

    fn may(&mut self, given: &MultiValue) -> Result<bool, String> {
        convert::command(given, &mut self.data, &mut self.ranges)
            .map_err(|text| format!("ERR {text}"))?;
        let args = Args::new(&self.data, &self.ranges);
        let Some(spec) = commands::lookup(&args) else {
            return Err("ERR Invalid command passed to redis.acl_check_cmd()".to_owned());
        };
        let session = &mut *self.session;
        Ok(!session.is_restricted() || session.might(session.db, spec, &args))
    }

    fn reply(&mut self, version: Version, value: &Value) -> mlua::Result<()> {
        convert::to_reply(value, version, self.session.version, self.out)
    }
}
