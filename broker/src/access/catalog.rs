//! All principals and grants: loaded at open, changed under the catalog's lock, read by every session.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use storage::{Engine, Keyspace};

use super::grant::{self, Grant, Verbs};
use super::identity::Identity;
use super::pattern::Pattern;
use super::principal::{self, Credential, Principal};
use super::rules::Rules;
use super::secret::{self, Secret};
use super::{
    CERTIFICATES_MAX, CREDENTIAL_MAX, GLOB_OCTETS_MAX, GLOBS_MAX, GRANTS_MAX, NAME_MAX,
    PRINCIPALS_MAX,
};
use crate::rows::{self, Tag};
use crate::{Effects, Locked, ShardId, Slot, Wake};

/// The view that everybody reads; one per broker.
pub struct Access {
    /// Grows with every change, behind it; never 0.
    epoch: AtomicU64,
    count: AtomicUsize,
    table: RwLock<Table>,
    pub(super) secret: OnceLock<Secret>,
    /// Connections that are rung at every change.
    watchers: Mutex<HashMap<u64, Arc<dyn Wake>, foldhash::fast::RandomState>>,
}

#[derive(Debug, Default)]
struct Table {
    principals: BTreeMap<Arc<str>, Entry>,
    /// Names in certificates, each with the principal it means.
    certificates: BTreeMap<Arc<str>, Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    principal: Arc<Principal>,
    grants: Vec<Grant>,
    rules: Arc<Rules>,
}

/// Why something is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error("there is a principal '{0}' already")]
    Exists(Arc<str>),
    #[error("there is no principal '{0}'")]
    Unknown(Arc<str>),
    #[error("a name has 1 to {NAME_MAX} octets and no control characters")]
    Name,
    #[error("a node has at most {PRINCIPALS_MAX} principals")]
    Principals,
    #[error(
        "a principal has at most {GRANTS_MAX} grants, {GLOBS_MAX} of them globs, and those have {GLOB_OCTETS_MAX} octets together"
    )]
    Grants,
    #[error(
        "'{0}' is the last user that can log in, and this server has addresses that other machines reach"
    )]
    Last(Arc<str>),
    #[error("a grant needs verbs")]
    Verbs,
    #[error("a credential is too long or there are two of a kind")]
    Credential,
    #[error(
        "a principal has at most {CERTIFICATES_MAX} names in certificates, and '{0}' is one too many or another's"
    )]
    Certificate(Arc<str>),
}

/// What a principal is, besides its name and grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub enabled: bool,
    pub superuser: bool,
    pub credentials: Vec<Credential>,
    pub certificates: Vec<Arc<str>>,
}

impl Access {
    /// Reads the rows.
    ///
    /// # Errors
    /// When the tables cannot be read, or hold a row that this build does not understand: without it, more might be allowed than
    /// was meant.
    pub(crate) fn load(engine: &Engine) -> Result<Self, storage::Error> {
        let mut rows = Vec::new();
        // Principals first.
        for tag in [Tag::Principal, Tag::Grant] {
            let prefix = rows::prefix(Slot::CATALOG, tag);
            let end = rows::prefix_end(&prefix);
            let mut each = |key: &[u8], value: &[u8]| {
                rows.push((tag, key.to_vec(), value.to_vec()));
                true
            };
            engine.scan(
                Keyspace::Rows,
                &prefix,
                end.as_deref(),
                usize::MAX,
                &mut each,
            )?;
        }
        let mut table = Table::default();
        for (tag, key, value) in &rows {
            let (known, read) = match tag {
                Tag::Principal => (principal::VERSION, table.load_principal(key, value)),
                _ => (grant::VERSION, table.load_grant(key, value)),
            };
            if read.is_none() {
                return Err(rows::unreadable(key, value, known, super::UNREADABLE));
            }
        }
        for entry in table.principals.values_mut() {
            entry.rules = Arc::new(Rules::compile(&entry.grants));
        }
        Ok(Self {
            epoch: AtomicU64::new(1),
            count: AtomicUsize::new(table.principals.len()),
            table: RwLock::new(table),
            secret: secret::load(engine)?.map_or_else(OnceLock::new, OnceLock::from),
            watchers: Mutex::default(),
        })
    }

    /// Another number than before whenever something has changed.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether there is no principal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether anybody but `besides` could log in.
    #[must_use]
    pub fn has_credential(&self, besides: Option<&str>) -> bool {
        let table = self.table.read();
        table.principals.values().any(|entry| {
            entry.principal.can_log_in()
                && besides.is_none_or(|name| *entry.principal.name != *name)
        })
    }

    /// The node's secret, if it was made already.
    #[must_use]
    pub fn secret(&self) -> Option<Secret> {
        self.secret.get().copied()
    }

    /// The principal of this name.
    #[must_use]
    pub fn principal(&self, name: &str) -> Option<Arc<Principal>> {
        let table = self.table.read();
        Some(Arc::clone(&table.principals.get(name)?.principal))
    }

    /// The principal that one of these names in certificates means: the first that means an enabled one.
    pub fn by_certificate<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Option<Arc<Principal>> {
        let table = self.table.read();
        names.into_iter().find_map(|name| {
            let entry = table.principals.get(table.certificates.get(name)?)?;
            (entry.principal.enabled).then(|| Arc::clone(&entry.principal))
        })
    }

    /// What a principal may do; `None`: it is unknown or disabled.
    #[must_use]
    pub fn identity(&self, name: &str) -> Option<Identity> {
        // Before the table: what changes meanwhile is seen at the next look.
        let epoch = self.epoch();
        let table = self.table.read();
        let Entry {
            principal, rules, ..
        } = table.principals.get(name)?;
        principal.enabled.then(|| {
            Identity::principal(
                epoch,
                &principal.name,
                principal.id,
                principal.superuser,
                rules,
            )
        })
    }

    /// All principals, by name.
    #[must_use]
    pub fn principals(&self) -> Vec<Arc<Principal>> {
        let table = self.table.read();
        table
            .principals
            .values()
            .map(|entry| Arc::clone(&entry.principal))
            .collect()
    }

    /// The grants of one principal, or of all.
    #[must_use]
    pub fn grants(&self, principal: Option<&str>) -> Vec<Grant> {
        let table = self.table.read();
        table
            .principals
            .iter()
            .filter(|(name, _)| principal.is_none_or(|wanted| ***name == *wanted))
            .flat_map(|(_, entry)| entry.grants.iter().cloned())
            .collect()
    }

    /// Rings the connection at every change from now on.
    pub fn watch(&self, connection: u64, wake: Arc<dyn Wake>) {
        self.watchers.lock().insert(connection, wake);
    }

    /// Rings the connection no more.
    pub fn unwatch(&self, connection: u64) {
        self.watchers.lock().remove(&connection);
    }

    fn change<T>(
        &self,
        edit: impl FnOnce(&mut Table) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let mut table = self.table.write();
        let result = edit(&mut table)?;
        self.count.store(table.principals.len(), Ordering::Release);
        // Before the write lock goes, or a reader could keep old rules under the new epoch.
        self.epoch.fetch_add(1, Ordering::Release);
        drop(table);
        for wake in self.watchers.lock().values() {
            wake.wake();
        }
        Ok(result)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

impl Table {
    fn load_principal(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let principal = Arc::new(Principal::read(key, value)?);
        self.put(principal);
        Some(())
    }

    fn load_grant(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let grant = Grant::read(key, value)?;
        let entry = self.principals.get_mut(&*grant.principal)?;
        entry.grants.push(grant);
        Some(())
    }

    fn forget_certificates(&mut self, name: &str) {
        if let Some(entry) = self.principals.get(name) {
            for certificate in &entry.principal.certificates {
                self.certificates.remove(certificate);
            }
        }
    }

    /// Adds or replaces it; its grants stay.
    fn put(&mut self, principal: Arc<Principal>) {
        let name = &principal.name;
        self.forget_certificates(name);
        for certificate in &principal.certificates {
            self.certificates
                .insert(Arc::clone(certificate), Arc::clone(name));
        }
        match self.principals.get_mut(name) {
            Some(entry) => entry.principal = principal,
            None => {
                let entry = Entry {
                    principal: Arc::clone(&principal),
                    grants: Vec::new(),
                    rules: Arc::default(),
                };
                self.principals.insert(Arc::clone(name), entry);
            }
        }
    }

    fn check(&self, name: &str, settings: &Settings) -> Result<(), AccessError> {
        let credentials = &settings.credentials;
        for (at, credential) in credentials.iter().enumerate() {
            let twice = credentials
                .iter()
                .skip(at + 1)
                .any(|other| other.kind == credential.kind);
            if twice || credential.bytes.len() > CREDENTIAL_MAX {
                return Err(AccessError::Credential);
            }
        }
        for (at, certificate) in settings.certificates.iter().enumerate() {
            let others = self
                .certificates
                .get(certificate)
                .is_some_and(|of| **of != *name);
            let twice = settings
                .certificates
                .iter()
                .skip(at + 1)
                .any(|other| other == certificate);
            let long = certificate.is_empty() || certificate.len() > usize::from(u16::MAX);
            if others || twice || long || at >= CERTIFICATES_MAX {
                return Err(AccessError::Certificate(Arc::clone(certificate)));
            }
        }
        Ok(())
    }
}

/// Makes a principal. Locks: the catalog.
///
/// # Errors
/// When there is one, or the name or settings are beyond their limits.
pub fn create(
    locked: &mut Locked<'_>,
    name: &str,
    settings: Settings,
    fx: &mut Effects,
) -> Result<(), AccessError> {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(AccessError::Name);
    }
    let id = locked.new_id(ShardId::CATALOG);
    locked.broker().access.change(|table| {
        if table.principals.contains_key(name) {
            return Err(AccessError::Exists(name.into()));
        }
        if table.principals.len() >= PRINCIPALS_MAX {
            return Err(AccessError::Principals);
        }
        table.check(name, &settings)?;
        let principal = Arc::new(Principal {
            name: name.into(),
            id,
            enabled: settings.enabled,
            superuser: settings.superuser,
            credentials: settings.credentials,
            certificates: settings.certificates,
        });
        principal.put(fx);
        table.put(principal);
        Ok(())
    })
}

/// Changes a principal's settings. Locks: the catalog.
///
/// # Errors
/// When there is none, or the settings are beyond their limits.
pub fn update(
    locked: &mut Locked<'_>,
    name: &str,
    edit: impl FnOnce(&Principal, &mut Settings),
    fx: &mut Effects,
) -> Result<(), AccessError> {
    let _catalog = locked.catalog();
    locked.broker().access.change(|table| {
        let entry = table.principals.get(name);
        let old = &entry
            .ok_or_else(|| AccessError::Unknown(name.into()))?
            .principal;
        let mut settings = Settings {
            enabled: old.enabled,
            superuser: old.superuser,
            credentials: old.credentials.clone(),
            certificates: old.certificates.clone(),
        };
        edit(old, &mut settings);
        table.check(name, &settings)?;
        let principal = Arc::new(Principal {
            name: Arc::clone(&old.name),
            id: old.id,
            enabled: settings.enabled,
            superuser: settings.superuser,
            credentials: settings.credentials,
            certificates: settings.certificates,
        });
        if *principal != **old {
            principal.put(fx);
            table.put(principal);
        }
        Ok(())
    })
}

/// Removes a principal with its grants. Locks: the catalog.
///
/// # Errors
/// When there is none.
pub fn remove(locked: &mut Locked<'_>, name: &str, fx: &mut Effects) -> Result<(), AccessError> {
    let _catalog = locked.catalog();
    locked.broker().access.change(|table| {
        table.forget_certificates(name);
        let entry = table
            .principals
            .remove(name)
            .ok_or_else(|| AccessError::Unknown(name.into()))?;
        entry.principal.delete(fx);
        for grant in &entry.grants {
            grant.delete(fx);
        }
        Ok(())
    })
}

/// Adds a grant's verbs to those that the same names and effect have already. Locks: the catalog.
///
/// # Errors
/// When there is no such principal, or it has as many grants as it may have.
pub fn grant(locked: &mut Locked<'_>, new: Grant, fx: &mut Effects) -> Result<(), AccessError> {
    edit_grant(locked, new, fx, |known, wanted| known.and(wanted))
}

/// Takes a grant's verbs from those that the same names and effect have. Locks: the catalog.
///
/// # Errors
/// When there is no such principal.
pub fn revoke(locked: &mut Locked<'_>, old: Grant, fx: &mut Effects) -> Result<(), AccessError> {
    edit_grant(locked, old, fx, Verbs::without)
}

fn edit_grant(
    locked: &mut Locked<'_>,
    grant: Grant,
    fx: &mut Effects,
    edit: impl FnOnce(Verbs, Verbs) -> Verbs,
) -> Result<(), AccessError> {
    let _catalog = locked.catalog();
    if grant.verbs.is_empty() {
        return Err(AccessError::Verbs);
    }
    locked.broker().access.change(|table| {
        let entry = table.principals.get_mut(&*grant.principal);
        let entry = entry.ok_or_else(|| AccessError::Unknown(Arc::clone(&grant.principal)))?;
        let at = entry.grants.iter().position(|known| known.is_about(&grant));
        let known = at.and_then(|at| entry.grants.get_mut(at));
        let before = known.as_ref().map_or(Verbs::NONE, |known| known.verbs);
        let after = edit(before, grant.verbs);
        match known {
            Some(known) if !after.is_empty() => {
                known.verbs = after;
                known.put(fx);
            }
            Some(known) => {
                known.delete(fx);
                entry.grants.retain(|known| !known.is_about(&grant));
            }
            None if after.is_empty() => {}
            None => {
                if entry.grants.len() >= GRANTS_MAX || !fits(&entry.grants, &grant.pattern) {
                    return Err(AccessError::Grants);
                }
                let new = Grant {
                    verbs: after,
                    ..grant
                };
                new.put(fx);
                entry.grants.push(new);
            }
        }
        entry.rules = Arc::new(Rules::compile(&entry.grants));
        Ok(())
    })
}

/// Whether the globs are few and short enough with this one.
fn fits(grants: &[Grant], new: &Pattern) -> bool {
    let Pattern::Glob(new) = new else {
        return true;
    };
    let (mut count, mut octets) = (1, new.len());
    for grant in grants {
        if let Pattern::Glob(text) = &grant.pattern {
            count += 1;
            octets += text.len();
        }
    }
    count <= GLOBS_MAX && octets <= GLOB_OCTETS_MAX
}
