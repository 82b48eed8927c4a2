//! Who may do what to which object: principals, grants, and the one answer that all faces ask for.
//!
//! ```text
//!  rows (catalog) ── load ─▶ Access: principals, each with its grants and the Rules compiled from them
//!                              │ epoch grows with every change, and every watching connection is rung
//!  login ── Access::identity ─▶ Identity, kept by a session ── is_free: one load and one compare per command
//!                                                           └─ else refresh, allows(kind, namespace, name, verb)
//! ```
//! A restriction of a principal takes away from what its grants allow, on the face that knows its words: see `restriction`.
//! Deny wins over allow; what no grant allows is denied; a superuser may do everything. There is no cryptography here: a
//! credential is octets that `src/auth` made and reads. A principal that was removed or disabled is *gone*: its sessions are
//! rung and close. Writers hold the catalog's lock; readers take the table's read lock only when the epoch has moved.

mod catalog;
mod grant;
mod identity;
pub(crate) mod law;
mod pattern;
mod principal;
mod restriction;
mod rules;
mod secret;
#[cfg(test)]
mod tests;

pub use catalog::{
    Access, AccessError, Settings, Wanted, create, create_first, grant, put, put_all, remove,
    revoke, update,
};
pub use grant::{Grant, Kind, Namespace, Scope, Verbs};
pub use identity::{Identity, Standing};
pub use pattern::Pattern;
pub use principal::{Credential, CredentialKind, Principal};
pub use restriction::{Compiled, Restriction, Selector, Selectors, Share, Shares};
pub use rules::Rules;
pub use secret::{Secret, keep_secret};

/// Principals of a node: each stays in memory, about 1 KiB with its credentials, so that a login reads no table.
pub const PRINCIPALS_MAX: usize = 100_000;
/// Grants of one principal: a change compiles all of them anew under the catalog's lock, which takes milliseconds for so many.
pub const GRANTS_MAX: usize = 10_000;
/// Globs among them: each is tried for every name that nothing simpler decides, so their number is a cost per command.
pub const GLOBS_MAX: usize = 256;
/// Octets of all of them: with [`GLOB_NAME_MAX`] it bounds what one name can cost, whatever the patterns, to some 10 ms.
pub const GLOB_OCTETS_MAX: usize = 8 << 10;
/// Octets of a pattern: names of queues, topics and groups are shorter, and a matcher's steps grow with it.
pub const PATTERN_MAX: usize = 1024;
/// Octets of a name that globs are tried on: a key may be 512 MiB, and a match costs name times pattern. A longer name is
/// met by every glob that denies and by none that allows.
pub const GLOB_NAME_MAX: usize = 4 << 10;
/// Octets of a principal's name: AMQP's short string.
pub const NAME_MAX: usize = 255;
/// Octets of one credential: a PHC string or a SCRAM verifier has about 100 to 200.
pub const CREDENTIAL_MAX: usize = 1024;
/// Passwords of one principal that are kept as Redis keeps them: each is compared at a login.
pub const ACL_PASSWORDS_MAX: usize = 64;
/// Selectors of a restriction besides the first: each is asked for every command.
pub const SELECTORS_MAX: usize = 64;
/// Octets of a restriction: it is a part of the principal's row, and in memory.
pub const RESTRICTION_MAX: usize = 48 << 10;
/// The principal that clients of this machine are who do not log in, if it takes any password; Redis' name for it.
pub const DEFAULT: &str = "default";
/// Names in certificates that mean one principal.
pub const CERTIFICATES_MAX: usize = 64;

/// What is wrong with a row that [`crate::rows::unreadable`] tells of.
const UNREADABLE: &str = "a principal, grant or secret that does not read";
