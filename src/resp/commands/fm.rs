//! What Redis does not have: messages and records in the same transaction as keys.

use broker::Locked;
use protocol_resp::Args;

use crate::node::Node;
use crate::resp::fail::Done;
use crate::resp::spec::Spec;

pub(crate) const COMMANDS: &[Spec] = &[];

/// Checks every such command of a transaction before any of it runs.
pub(crate) fn prepare<'a>(
    _: &mut Locked<'_>,
    _: &Node,
    _: impl Iterator<Item = (&'static Spec, Args<'a>)>,
) -> Done {
    Ok(())
}
