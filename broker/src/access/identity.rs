//! Who a session is, and what that one may do.

use std::sync::Arc;

use super::catalog::Access;
use super::grant::{Kind, Namespace, Verbs};
use super::principal::Principal;
use super::restriction::Selectors;
use super::rules::Rules;

/// A session's own view of its principal. Cheap to clone.
///
/// Before each command: [`Identity::is_free`]; when it is not, [`Identity::refresh`] and then [`Identity::allows`].
#[derive(Debug, Clone)]
pub struct Identity {
    /// The epoch at which it was found that no command needs a look; 0: each does.
    free_at: u64,
    /// The epoch of `who`.
    epoch: u64,
    who: Who,
}

#[derive(Debug, Clone)]
enum Who {
    /// Not logged in where that is required, or gone.
    Nobody,
    /// Not logged in, on a node without credentials.
    Anyone,
    /// The configured principal, which nothing can take away while the process runs.
    Configured(Arc<str>),
    Principal {
        name: Arc<str>,
        id: u64,
        superuser: bool,
        rules: Arc<Rules>,
        selectors: Option<Arc<Selectors>>,
    },
}

/// What [`Identity::refresh`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As before.
    Same,
    /// Something about some principal has changed: what was allowed once (subscriptions, consumers) must be looked at again.
    Changed,
    /// Removed or disabled; or the node had no credentials and has some now, other than a password of Redis' `default`. The
    /// connection must close.
    Gone,
}

impl Identity {
    /// Before the login.
    #[must_use]
    pub const fn nobody() -> Self {
        Self {
            free_at: 0,
            epoch: 0,
            who: Who::Nobody,
        }
    }

    /// Of a node where nobody need log in: it has no principals, or one that all are who do not. Nobody elsewhere.
    #[must_use]
    pub fn anyone(access: &Access) -> Self {
        // Before the look: a principal that is made meanwhile moves it.
        let epoch = access.epoch();
        if access.is_empty() {
            Self::free(epoch, Who::Anyone)
        } else {
            access.open_identity().unwrap_or(Self::nobody())
        }
    }

    /// The configured superuser.
    #[must_use]
    pub fn configured(access: &Access, name: &str) -> Self {
        Self::free(access.epoch(), Who::Configured(name.into()))
    }

    pub(super) fn principal(
        epoch: u64,
        principal: &Principal,
        rules: &Arc<Rules>,
        selectors: Option<&Arc<Selectors>>,
    ) -> Self {
        let superuser = principal.superuser;
        Self {
            free_at: if superuser { epoch } else { 0 },
            epoch,
            who: Who::Principal {
                name: Arc::clone(&principal.name),
                id: principal.id,
                superuser,
                rules: Arc::clone(rules),
                selectors: selectors.filter(|_| !superuser).cloned(),
            },
        }
    }

    const fn free(epoch: u64, who: Who) -> Self {
        Self {
            free_at: epoch,
            epoch,
            who,
        }
    }

    /// May do everything, and nothing has changed: one load and one compare.
    #[inline]
    #[must_use]
    pub fn is_free(&self, access: &Access) -> bool {
        self.free_at == access.epoch()
    }

    /// Whether it is somebody: logged in, or on a node without credentials.
    #[must_use]
    pub fn is_somebody(&self) -> bool {
        !matches!(self.who, Who::Nobody)
    }

    /// Superuser, configured, or on a node without credentials.
    #[must_use]
    pub fn is_superuser(&self) -> bool {
        match &self.who {
            Who::Nobody => false,
            Who::Anyone | Who::Configured(_) => true,
            Who::Principal { superuser, .. } => *superuser,
        }
    }

    /// What a Redis client of it may do of what the grants allow; `None`: all of it.
    #[inline]
    #[must_use]
    pub fn selectors(&self) -> Option<&Selectors> {
        match &self.who {
            Who::Principal { selectors, .. } => selectors.as_deref(),
            _ => None,
        }
    }

    /// The name it logged in with; none on a node without credentials.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.who {
            Who::Nobody | Who::Anyone => None,
            Who::Configured(name) | Who::Principal { name, .. } => Some(name),
        }
    }

    /// Brings it up to date. One load and one compare when nothing has changed.
    #[inline]
    pub fn refresh(&mut self, access: &Access) -> Standing {
        if self.epoch == access.epoch() {
            return Standing::Same;
        }
        self.renew(access)
    }

    #[cold]
    fn renew(&mut self, access: &Access) -> Standing {
        let renewed = match &self.who {
            Who::Nobody => {
                self.epoch = access.epoch();
                return Standing::Same;
            }
            Who::Anyone => Some(Self::anyone(access))
                .filter(Self::is_somebody)
                .or_else(|| access.heir()),
            Who::Configured(name) => Some(Self::free(
                access.epoch(),
                Who::Configured(Arc::clone(name)),
            )),
            Who::Principal { name, id, .. } => access.identity(name).filter(
                |identity| matches!(identity.who, Who::Principal { id: now, .. } if now == *id),
            ),
        };
        match renewed {
            Some(renewed) => {
                *self = renewed;
                Standing::Changed
            }
            None => {
                *self = Self::nobody();
                Standing::Gone
            }
        }
    }

    /// May `verb` be done to the object? As of the last [`Identity::refresh`].
    #[inline]
    #[must_use]
    pub fn allows(&self, kind: Kind, namespace: Namespace, name: &[u8], verb: Verbs) -> bool {
        self.ask(|rules| rules.allows(kind, namespace, name, verb))
    }

    /// May `verb` be done to every object whose name the glob matches? No, when it is not sure.
    #[must_use]
    pub fn allows_all(&self, kind: Kind, namespace: Namespace, glob: &[u8], verb: Verbs) -> bool {
        self.ask(|rules| rules.allows_all(kind, namespace, glob, verb))
    }

    /// Is there any object to which `verb` may be done?
    #[must_use]
    pub fn allows_some(&self, kind: Kind, verb: Verbs) -> bool {
        self.ask(|rules| rules.allows_some(kind, verb))
    }

    fn ask(&self, ask: impl FnOnce(&Rules) -> bool) -> bool {
        match &self.who {
            Who::Nobody => false,
            Who::Anyone | Who::Configured(_) => true,
            Who::Principal { superuser, .. } if *superuser => true,
            Who::Principal { rules, .. } => ask(rules),
        }
    }
}
