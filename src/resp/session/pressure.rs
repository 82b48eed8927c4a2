//! Commands while memory or disk is short: those that need room are refused in Redis' words, the others go on.

use super::Session;
use super::transaction::is_transaction_control;
use crate::config::Face;
use crate::resp::fail::{Done, Fail};
use crate::resp::spec::{Flags, Spec};

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// Redis says MISCONF for writes that it cannot persist, and refuses deletions, too.
const NEARLY_FULL: &str = "MISCONF The disk of the data directory is nearly full. Commands that may add to the data set are disabled until there is \
                           room again (disk-free-limit); reads and deletions go on.";
const FULL: &str = "MISCONF The disk of the data directory is full. Commands that may modify the data set are disabled until there is room again; \
                    reads go on.";

impl Session {
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
        let text = if stop.memory && (asks(Flags::DENYOOM) || queues) {
            OOM
        } else if stop.on_reserve && asks(Flags::WRITE) {
            FULL
        } else if stop.disk && asks(Flags::DENYOOM) {
            NEARLY_FULL
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
