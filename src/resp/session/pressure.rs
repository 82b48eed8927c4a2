//! Commands while memory or disk is short: those that need room are refused in Redis' words, the others go on.

use std::sync::Arc;

use broker::cache::Limits;
use protocol_resp::Args;

use super::Session;
use super::transaction::is_transaction_control;
use crate::config::Face;
use crate::governor::Stop;
use crate::resp::fail::{Done, Fail, OOM};
use crate::resp::parse::is;
use crate::resp::script::Program;
use crate::resp::spec::{Flags, Run, Spec};
use crate::room::{self, Room};

/// Redis says MISCONF for writes that it cannot persist, and refuses deletions, too.
const NEARLY_FULL: &str = "MISCONF The disk of the data directory is nearly full. Commands that may add to the data set are disabled until there is \
                           room again (disk-free-limit); reads and deletions go on.";
const FULL: &str = "MISCONF The disk of the data directory is full. Commands that may modify the data set are disabled until there is room again; \
                    reads go on.";

/// What a command with these flags is refused with while the disk is short.
pub(super) fn shortage(stop: Stop, flags: Flags) -> Option<&'static str> {
    if stop.on_reserve && flags.has(Flags::WRITE) {
        Some(FULL)
    } else if stop.disk && flags.has(Flags::DENYOOM) {
        Some(NEARLY_FULL)
    } else {
        None
    }
}

/// Does it make entries of a stream pending? Those are in memory until they are acknowledged. Redis has no flag for it, and does not refuse
/// it at `maxmemory`.
fn pends(spec: &Spec, args: &Args<'_>) -> bool {
    spec.name == "xreadgroup"
        && args.iter().any(|word| word == b">")
        && !args.iter().any(|word| is(word, "NOACK"))
}

impl Session {
    /// What says of itself that it writes is refused before it begins.
    pub(super) fn program_under_pressure(
        &self,
        program: &Program,
        spec: &Spec,
        args: &Args<'_>,
    ) -> Done {
        if program.flags().is_none() || program.no_writes() {
            return Ok(());
        }
        if !program.may_grow() && self.has_no_room(spec, args) {
            return Err(Fail::Text(OOM));
        }
        let stop = self.node.governor.stop();
        match stop.and_then(|stop| shortage(stop, Flags::WRITE.and(Flags::DENYOOM))) {
            Some(text) => Err(Fail::Text(text)),
            None => Ok(()),
        }
    }

    /// Makes room if keys take too much, and refuses `spec` if what is short now is what it needs.
    #[cold]
    pub(super) fn under_pressure(&mut self, spec: &Spec, args: &Args<'_>) -> Done {
        let asks = |session: &Self, flag| {
            spec.flags.has(flag)
                || (spec.name == "exec"
                    && (session.multi.as_ref()).is_some_and(|multi| multi.asks(flag)))
        };
        // As Redis: what a transaction queues takes memory, too.
        let queues = self.multi.is_some() && !is_transaction_control(spec);
        let grows = queues || asks(self, Flags::DENYOOM);
        let calls = matches!(spec.run, Run::Script(_)) || spec.name == "exec";
        let stop = self.node.governor.stop();
        let grows = grows || (stop.is_some_and(|stop| stop.memory) && pends(spec, args));
        let no_memory = if stop.is_some_and(|stop| stop.memory) {
            self.tight = u64::MAX;
            true
        } else if (grows || calls) && self.node.broker.limiter.is_on() {
            let limits = self.node.broker.limiter.now();
            let concerned = self.concerned(&limits, spec, args);
            // What others pass is for those who write there, or for the job; Lua may call anything.
            self.tight = self.without_room(&limits, if calls { u64::MAX } else { concerned });
            self.tight & concerned != 0
        } else {
            false
        };
        let asked = [Flags::DENYOOM, Flags::WRITE]
            .into_iter()
            .filter(|flag| asks(self, *flag))
            .fold(Flags::NONE, Flags::and);
        let text = if no_memory && grows {
            OOM
        } else if let Some(text) = stop.and_then(|stop| shortage(stop, asked)) {
            text
        } else {
            return Ok(());
        };
        self.node.metrics.refused_writes_total.of(Face::Resp).inc();
        if spec.name == "exec" {
            self.multi_discard()?;
            return Err(Fail::Owned(format!(
                "EXECABORT Transaction discarded because of: {text}"
            )));
        }
        if let Some(multi) = &mut self.multi {
            multi.failed = true;
        }
        Err(Fail::Text(text))
    }

    /// Makes room where those of these limits are passed; those where there is none, as bits.
    fn without_room(&mut self, limits: &Arc<Limits>, which: u64) -> u64 {
        let node = std::rc::Rc::clone(&self.node);
        let mut passed = limits.passed(&node.broker.budgets.cache) & which;
        let mut none = 0;
        while passed != 0 {
            let which = passed.trailing_zeros();
            passed &= passed - 1;
            let fx = &mut self.fx;
            let made = room::make(&node, limits, which as usize, &self.ctx, room::PATIENCE, fx);
            none |= u64::from(made == Room::None) << which;
        }
        none
    }

    /// The limits of the keys that a command names, or those of a transaction, as bits; without keys the rest's, but for what
    /// goes to queues and topics.
    fn concerned(&self, limits: &Limits, spec: &Spec, args: &Args<'_>) -> u64 {
        let of = |db: usize, spec: &Spec, args: &Args<'_>| {
            let mut bits = 0;
            spec.each_key(args, &mut |place| {
                bits |= 1 << limits.of(db, args.at(place))
            });
            if bits == 0 && !matches!(spec.run, Run::Planned(_)) {
                bits = 1;
            }
            bits
        };
        match &self.multi {
            Some(multi) if spec.name == "exec" => (multi.queued.iter())
                .filter(|queued| queued.spec.flags.has(Flags::DENYOOM))
                .fold(0, |bits, queued| {
                    bits | of(queued.db, queued.spec, &queued.args())
                }),
            Some(multi) => of(multi.db, spec, args),
            None => of(self.db, spec, args),
        }
    }

    /// There was no room for the keys of a command when what runs began: asked by scripts.
    pub(super) fn has_no_room(&self, spec: &Spec, args: &Args<'_>) -> bool {
        if self.tight == 0 {
            return false;
        }
        let broker = &self.node.broker;
        self.tight == u64::MAX
            || (broker.limiter.is_on()
                && self.tight & self.concerned(&broker.limiter.now(), spec, args) != 0)
    }
}
