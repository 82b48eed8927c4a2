//! What a cluster asks of commands: that the keys of one are in one slot.

use broker::Slot;
use protocol_resp::Args;

use super::Session;
use crate::resp::fail::{Done, Fail};
use crate::resp::spec::Spec;

const CROSSED: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// The one slot of all keys so far, or that there are several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum InSlot {
    #[default]
    None,
    One(Slot),
    Several,
}

impl InSlot {
    pub(super) fn and(self, slot: Slot) -> Self {
        match self {
            Self::None => Self::One(slot),
            Self::One(known) if known == slot => self,
            _ => Self::Several,
        }
    }

    pub(super) fn and_keys(self, spec: &Spec, args: &Args<'_>) -> Self {
        let mut all = self;
        if matches!(spec.name, "spublish" | "ssubscribe" | "sunsubscribe") {
            // Shard channels live in slots, as keys do.
            let last = if spec.name == "spublish" {
                2
            } else {
                args.len()
            };
            for place in 1..last.min(args.len()) {
                all = all.and(Slot::of(args.at(place)));
            }
            return all;
        }
        spec.each_key(args, &mut |place| all = all.and(Slot::of(args.at(place))));
        all
    }
}

impl Session {
    /// Refuses a command, or a transaction, whose keys are in several slots.
    #[cold]
    pub(super) fn in_one_slot(&mut self, spec: &Spec, args: &Args<'_>) -> Done {
        let ends = spec.name == "exec";
        let slot = match &self.multi {
            Some(multi) if ends => (multi.queued.iter()).fold(InSlot::None, |all, queued| {
                all.and_keys(queued.spec, &queued.args())
            }),
            _ => InSlot::None.and_keys(spec, args),
        };
        if slot != InSlot::Several {
            return Ok(());
        }
        if ends {
            self.multi_discard()?;
        } else if let Some(multi) = &mut self.multi {
            multi.failed = true;
        }
        Err(Fail::Text(CROSSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_stays_one_and_two_are_several() {
        let one = InSlot::None.and(Slot::of(b"{a}1")).and(Slot::of(b"{a}2"));
        assert_eq!(one, InSlot::One(Slot::of(b"a")));
        assert_eq!(one.and(Slot::of(b"b")), InSlot::Several);
        assert_eq!(one.and(Slot::of(b"b")).and(Slot::of(b"b")), InSlot::Several);
    }
}
