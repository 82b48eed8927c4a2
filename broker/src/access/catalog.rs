//! All principals and grants: loaded at open, changed under the catalog's lock, read by every session.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use storage::Engine;

use super::grant::{self, Grant, Kind, Scope, Verbs};
use super::identity::Identity;
use super::pattern::Pattern;
use super::principal::{self, Credential, CredentialKind, Principal};
use super::restriction::{Restriction, Selectors};
use super::rules::Rules;
use super::secret::{self, Secret};
use super::{
    ACL_PASSWORDS_MAX, CERTIFICATES_MAX, CREDENTIAL_MAX, DEFAULT, GLOB_OCTETS_MAX, GLOBS_MAX,
    GRANTS_MAX, NAME_MAX, PRINCIPALS_MAX, RESTRICTION_MAX, SELECTORS_MAX,
};
use crate::rows::{self, Tag};
use crate::{Effects, Locked, ShardId, Wake};

/// The view that everybody reads; one per broker.
pub struct Access {
    /// Grows with every change, behind it; never 0.
    epoch: AtomicU64,
    /// See [`Access::is_open`].
    open: AtomicBool,
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
    /// Of the restriction.
    selectors: Option<Arc<Selectors>>,
}

impl Entry {
    fn new(principal: Arc<Principal>) -> Self {
        Self {
            principal,
            grants: Vec::new(),
            rules: Arc::default(),
            selectors: None,
        }
    }

    fn compile(&mut self) {
        self.rules = Arc::new(Rules::compile(&self.grants));
        let restriction = self.principal.restriction.as_ref();
        self.selectors =
            restriction.map(|restriction| Arc::new(Selectors::compile(restriction, &self.grants)));
    }

    fn identity(&self, epoch: u64) -> Identity {
        Identity::principal(epoch, &self.principal, &self.rules, self.selectors.as_ref())
    }
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
    #[error("{0}")]
    First(&'static str),
    #[error("a grant needs verbs")]
    Verbs,
    #[error(
        "a credential is too long, there are two of a kind, or more than {ACL_PASSWORDS_MAX} passwords of an ACL"
    )]
    Credential,
    #[error(
        "a principal has at most {SELECTORS_MAX} selectors, whose globs are at most {GLOBS_MAX} of {GLOB_OCTETS_MAX} octets together, and rules of {RESTRICTION_MAX} octets"
    )]
    Restriction,
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
    pub any_password: bool,
    pub credentials: Vec<Credential>,
    pub certificates: Vec<Arc<str>>,
    pub restriction: Option<Arc<Restriction>>,
}

impl Settings {
    /// Those of a principal.
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        Self {
            enabled: principal.enabled,
            superuser: principal.superuser,
            any_password: principal.any_password,
            credentials: principal.credentials.clone(),
            certificates: principal.certificates.clone(),
            restriction: principal.restriction.clone(),
        }
    }

    fn principal(self, name: &str, id: u64) -> Principal {
        Principal {
            name: name.into(),
            id,
            enabled: self.enabled,
            superuser: self.superuser,
            any_password: self.any_password,
            credentials: self.credentials,
            certificates: self.certificates,
            restriction: self.restriction,
        }
    }
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
            rows::each_in_catalog(engine, tag, &mut |key, value| {
                rows.push((tag, key.to_vec(), value.to_vec()));
                true
            })?;
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
        table.principals.values_mut().for_each(Entry::compile);
        Ok(Self {
            epoch: AtomicU64::new(1),
            open: AtomicBool::new(table.is_open()),
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

    /// Whether clients of this machine need not log in: there is no principal, or [`DEFAULT`] takes any password.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
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
        let entry = table.principals.get(name)?;
        entry.principal.enabled.then(|| entry.identity(epoch))
    }

    /// What a principal may do if it is enabled; `None`: it is unknown.
    #[must_use]
    pub fn as_if_enabled(&self, name: &str) -> Option<Identity> {
        let epoch = self.epoch();
        Some(self.table.read().principals.get(name)?.identity(epoch))
    }

    /// Who goes on as [`DEFAULT`] that had not logged in when the node had no principals; `None`: nobody, unless Redis' own
    /// commands made it, where a password changes nothing for those who are there.
    pub(super) fn heir(&self) -> Option<Identity> {
        let epoch = self.epoch();
        let table = self.table.read();
        let entry = table.principals.get(DEFAULT)?;
        let heir = entry.principal.enabled
            && (entry.principal.credential(CredentialKind::AclSha256)).is_some();
        heir.then(|| entry.identity(epoch))
    }

    /// Who clients of this machine are that do not log in; `None`: nobody. Of a node without principals that is not asked.
    pub(super) fn open_identity(&self) -> Option<Identity> {
        let epoch = self.epoch();
        let table = self.table.read();
        let entry = table.principals.get(DEFAULT)?;
        let open = entry.principal.enabled && entry.principal.any_password;
        open.then(|| entry.identity(epoch))
    }

    /// Whether there is no principal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.read().principals.is_empty()
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
        match principal {
            Some(name) => table
                .principals
                .get(name)
                .map(|entry| entry.grants.clone())
                .unwrap_or_default(),
            None => {
                let entries = table.principals.values();
                entries.flat_map(|entry| entry.grants.clone()).collect()
            }
        }
    }

    /// All principals with their grants, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<Principal>, Vec<Grant>)> {
        let table = self.table.read();
        let entries = table.principals.values();
        entries
            .map(|entry| (Arc::clone(&entry.principal), entry.grants.clone()))
            .collect()
    }

    /// Their names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.table.read().principals.keys().cloned().collect()
    }

    /// Whether the principals, and their grants together, are at most so many.
    #[must_use]
    pub fn are_few(&self, principals: usize, grants: usize) -> bool {
        let table = self.table.read();
        let of = |entry: &Entry| entry.grants.len();
        table.principals.len() <= principals
            && table.principals.values().map(of).sum::<usize>() <= grants
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
        self.open.store(table.is_open(), Ordering::Release);
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
    fn is_open(&self) -> bool {
        let default = self.principals.get(DEFAULT).map(|entry| &entry.principal);
        self.principals.is_empty()
            || default.is_some_and(|default| default.enabled && default.any_password)
    }

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
        self.set(principal).compile();
    }

    /// The same; it must be compiled.
    fn set(&mut self, principal: Arc<Principal>) -> &mut Entry {
        let name = Arc::clone(&principal.name);
        self.forget_certificates(&name);
        for certificate in &principal.certificates {
            self.certificates
                .insert(Arc::clone(certificate), Arc::clone(&name));
        }
        let entry = self.principals.entry(name);
        let entry = entry.or_insert_with(|| Entry::new(Arc::clone(&principal)));
        entry.principal = principal;
        entry
    }

    /// Makes the principal what is wanted, which was checked; rows that change go to `fx`.
    fn replace(&mut self, wanted: Wanted<'_>, id: u64, fx: &mut Effects) {
        let Wanted {
            name,
            settings,
            grants,
        } = wanted;
        let principal = Arc::new(settings.principal(name, id));
        let known = self.principals.get(name).map(|entry| &entry.principal);
        if known != Some(&principal) {
            principal.put(fx);
        }
        let entry = self.set(principal);
        put_changes(&entry.grants, &grants, fx);
        entry.grants = grants;
        entry.compile();
    }

    /// Takes it away with its grants; whether it was there.
    fn take(&mut self, name: &str, fx: &mut Effects) -> bool {
        self.forget_certificates(name);
        let Some(entry) = self.principals.remove(name) else {
            return false;
        };
        entry.principal.delete(fx);
        for grant in &entry.grants {
            grant.delete(fx);
        }
        true
    }

    fn check(&self, name: &str, settings: &Settings) -> Result<(), AccessError> {
        let credentials = &settings.credentials;
        let mut several = 0;
        for (at, credential) in credentials.iter().enumerate() {
            let may_be_several = credential.kind == CredentialKind::AclSha256;
            several += usize::from(may_be_several);
            let twice = credentials.iter().skip(at + 1).any(|other| {
                other == credential || (other.kind == credential.kind && !may_be_several)
            });
            if twice || several > ACL_PASSWORDS_MAX || credential.bytes.len() > CREDENTIAL_MAX {
                return Err(AccessError::Credential);
            }
        }
        if let Some(restriction) = &settings.restriction {
            restriction.check()?;
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

/// The rows of one principal's grants that change.
fn put_changes(old: &[Grant], new: &[Grant], fx: &mut Effects) {
    let (old, new) = (by_names(old), by_names(new));
    for (names, grant) in &old {
        if !new.contains_key(names) {
            grant.delete(fx);
        }
    }
    for (names, grant) in &new {
        if old.get(names).is_none_or(|old| old.verbs != grant.verbs) {
            grant.put(fx);
        }
    }
}

/// Some grants of one principal by what they are about.
fn by_names(
    grants: &[Grant],
) -> HashMap<(Scope, Kind, bool, &Pattern), &Grant, foldhash::fast::RandomState> {
    let each = grants.iter();
    each.map(|grant| {
        let names = (grant.scope, grant.kind, grant.deny, &grant.pattern);
        (names, grant)
    })
    .collect()
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
    add(locked, name, settings, false, fx)
}

/// The same, of one that ends the open access to the node: [`DEFAULT`] goes, if it is there, or is made anew, if it is the name.
/// Locks: the catalog.
///
/// # Errors
/// As [`create`]; then nothing has changed.
pub fn create_first(
    locked: &mut Locked<'_>,
    name: &str,
    settings: Settings,
    fx: &mut Effects,
) -> Result<(), AccessError> {
    add(locked, name, settings, true, fx)
}

fn add(
    locked: &mut Locked<'_>,
    name: &str,
    settings: Settings,
    first: bool,
    fx: &mut Effects,
) -> Result<(), AccessError> {
    check_name(name)?;
    let id = locked.new_id(ShardId::CATALOG);
    locked.broker().access.change(|table| {
        let anew = first && name == DEFAULT;
        if table.principals.contains_key(name) && !anew {
            return Err(AccessError::Exists(name.into()));
        }
        if table.principals.len() >= PRINCIPALS_MAX {
            return Err(AccessError::Principals);
        }
        table.check(name, &settings)?;
        if first {
            table.take(DEFAULT, fx);
        }
        let principal = Arc::new(settings.principal(name, id));
        principal.put(fx);
        table.put(principal);
        Ok(())
    })
}

fn check_name(name: &str) -> Result<(), AccessError> {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(AccessError::Name);
    }
    Ok(())
}

/// What [`put`] makes of one principal.
#[derive(Debug)]
pub struct Wanted<'n> {
    pub name: &'n str,
    pub settings: Settings,
    /// All of them its own.
    pub grants: Vec<Grant>,
}

/// Makes a principal of this name what `settings` and `grants` (all of them its own) say, whatever it was, if it was. Locks: the
/// catalog; who computes them from what there is holds it meanwhile.
///
/// # Errors
/// When something is beyond its limits.
pub fn put(
    locked: &mut Locked<'_>,
    name: &str,
    settings: Settings,
    grants: Vec<Grant>,
    fx: &mut Effects,
) -> Result<(), AccessError> {
    let wanted = Wanted {
        name,
        settings,
        grants,
    };
    put_all(locked, vec![wanted], fx)
}

/// The same for several principals of different names: all or none.
///
/// # Errors
/// When something is beyond its limits; then nothing has changed.
pub fn put_all(
    locked: &mut Locked<'_>,
    all: Vec<Wanted<'_>>,
    fx: &mut Effects,
) -> Result<(), AccessError> {
    let mut ids = Vec::with_capacity(all.len());
    for wanted in &all {
        check_name(wanted.name)?;
        ids.push(match locked.broker().access.principal(wanted.name) {
            Some(known) => known.id,
            None => locked.new_id(ShardId::CATALOG),
        });
    }
    let _catalog = locked.catalog();
    locked.broker().access.change(|table| {
        let is_new = |wanted: &&Wanted<'_>| !table.principals.contains_key(wanted.name);
        let new = all.iter().filter(is_new).count();
        if new > 0 && table.principals.len() + new > PRINCIPALS_MAX {
            return Err(AccessError::Principals);
        }
        for wanted in &all {
            table.check(wanted.name, &wanted.settings)?;
            let globs = wanted.grants.iter().map(|grant| &grant.pattern);
            if wanted.grants.len() > GRANTS_MAX || !few_globs(globs) {
                return Err(AccessError::Grants);
            }
            if wanted.grants.iter().any(|grant| grant.verbs.is_empty()) {
                return Err(AccessError::Verbs);
            }
        }
        for (wanted, id) in all.into_iter().zip(ids) {
            table.replace(wanted, id, fx);
        }
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
        let mut settings = Settings::of(old);
        edit(old, &mut settings);
        table.check(name, &settings)?;
        let principal = Arc::new(settings.principal(name, old.id));
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
        let taken = table.take(name, fx);
        taken
            .then_some(())
            .ok_or_else(|| AccessError::Unknown(name.into()))
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
        entry.compile();
        Ok(())
    })
}

/// Whether the globs are few and short enough with this one.
fn fits(grants: &[Grant], new: &Pattern) -> bool {
    let known = grants.iter().map(|grant| &grant.pattern);
    !matches!(new, Pattern::Glob(_)) || few_globs(known.chain([new]))
}

fn few_globs<'g>(patterns: impl Iterator<Item = &'g Pattern>) -> bool {
    let (mut count, mut octets) = (0, 0);
    for pattern in patterns {
        if let Pattern::Glob(text) = pattern {
            count += 1;
            octets += text.len();
        }
    }
    count <= GLOBS_MAX && octets <= GLOB_OCTETS_MAX
}
