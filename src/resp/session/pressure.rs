//! Commands while memory or disk is short: those that need room are refused in Redis' words, the others go on.

use broker::functions::FunctionFlags;

use super::Session;
use super::transaction::is_transaction_control;
use crate::config::Face;
use crate::governor::Stop;
use crate::resp::fail::{Done, Fail};
use crate::resp::script::Program;
use crate::resp::spec::{Flags, Spec};

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// Redis says MISCONF for writes that it cannot persist, and refuses deletions, too.
const NEARLY_FULL: &str = "MISCONF The disk of the data directory is nearly full. Commands that may add to the data set are disabled until there is \
                           room again (disk-free-limit); reads and deletions go on.";
const FULL: &str = "MISCONF The disk of the data directory is full. Commands that may modify the data set are disabled until there is room again; \
                    reads go on.";

/// What a command with these flags is refused with while this is short.
pub(super) fn shortage(stop: Stop, flags: Flags) -> Option<&'static str> {
    if stop.memory && flags.has(Flags::DENYOOM) {
        Some(OOM)
    } else if stop.on_reserve && flags.has(Flags::WRITE) {
        Some(FULL)
    } else if stop.disk && flags.has(Flags::DENYOOM) {
        Some(NEARLY_FULL)
    } else {
        None
    }
}

impl Session {
    /// What is short for a script or function: its commands are asked. Memory is not, if it says so.
    pub(super) fn short_for(&self, program: &Program) -> Option<Stop> {
        let mut stop = self.node.governor.stop()?;
        let allowed = program
            .flags()
            .is_some_and(|flags| flags.has(FunctionFlags::ALLOW_OOM));
        stop.memory &= !allowed;
        Some(stop)
    }

    /// What says of itself that it writes is refused before it begins.
    pub(super) fn program_under_pressure(&self, program: &Program) -> Done {
        if program.flags().is_none() || program.no_writes() {
            return Ok(());
        }
        let short = self.short_for(program);
        match short.and_then(|stop| shortage(stop, Flags::WRITE.and(Flags::DENYOOM))) {
            Some(text) => Err(Fail::Text(text)),
            None => Ok(()),
        }
    }

    /// Refuses `spec` if what is short now is what it needs.
    #[cold]
    pub(super) fn under_pressure(&mut self, spec: &Spec) -> Done {
        let Some(stop) = self.node.governor.stop() else {
            return Ok(());
        };
        let asks = |flag| {
            spec.flags.has(flag)
                || (spec.name == "exec"
                    && self.multi.as_ref().is_some_and(|multi| multi.asks(flag)))
        };
        // As Redis: what a transaction queues takes memory, too.
        let queues = self.multi.is_some() && !is_transaction_control(spec);
        let asked = [Flags::DENYOOM, Flags::WRITE]
            .into_iter()
            .filter(|flag| asks(*flag));
        let asked = asked.fold(Flags::NONE, Flags::and);
        let text = if stop.memory && queues {
            OOM
        } else if let Some(text) = shortage(stop, asked) {
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
}
