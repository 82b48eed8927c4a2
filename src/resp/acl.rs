//! Redis' ACL as a view of principals and grants: docs/adr/0009-redis-acl.md.
//!
//! ```text
//!  ACL SETUSER rules ─▶ Draft ─ edit ─▶ settings, grants and restriction of a principal (rows)
//!                         ▲ view                                     │ compiled by the broker, commands here
//!  ACL LIST, GETUSER ─────┘                                          ▼
//!  a command of a restricted client ─ permission::check ─▶ a selector lets it pass, and the grants do
//! ```

pub(super) mod draft;
pub(super) mod edit;
pub(crate) mod file;
pub(super) mod log;
pub(super) mod rules;
pub(super) mod view;

use broker::access::{Identity, Rules};

use rules::CommandRules;

/// The commands of each selector of an identity that has some, with the rules of their objects; the first selector first. Some
/// without any let nothing pass.
pub(super) fn selectors(
    identity: &Identity,
) -> Option<impl Iterator<Item = (&CommandRules, &Rules)>> {
    let selectors = identity.selectors()?;
    let made = selectors.made(|each| {
        let texts = each.iter().map(|selector| &*selector.commands);
        texts.map(CommandRules::stored).collect::<Vec<_>>()
    });
    // What somebody else has made of them cannot be asked: nothing passes.
    let made = made.map(Vec::as_slice).unwrap_or_default();
    let rules = selectors.each().iter().map(|selector| &selector.rules);
    Some(made.iter().zip(rules))
}
