//! Libraries of functions that clients have loaded: rows of the catalog, read by every session through [`Functions`], a view.
//!
//! What a function does is the interpreter's affair (`src/resp/script`); here is what a library is called, its text, and the names,
//! descriptions and flags that it registered when it was loaded, so that nothing has to be run to know them.
//!
//! ```text
//! Library  name → version u8 | count u16 LE | (flags u8 | name len u16 LE | name | description len u32 LE, all ones: none | description)… | text
//! ```

mod row;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use hashbrown::HashMap;
use parking_lot::RwLock;
use storage::{Engine, Error, Lsn};

use crate::law::{Facts, hash};
use crate::rows::{self, Tag};
use crate::{Effects, Locked};

/// Octets of one library, its descriptions included: each thread that calls it compiles it.
pub const LIBRARY_MAX: usize = 4 << 20;
/// Octets of all libraries: they stay in memory.
pub const BYTES_MAX: usize = 64 << 20;
pub const LIBRARIES_MAX: usize = 10_000;
/// Functions of one library.
pub const FUNCTIONS_MAX: usize = 10_000;
/// Octets of a name, of a library or a function.
pub const NAME_MAX: usize = 1024;

/// What a function says about itself, as bits. They are part of the on-disk format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FunctionFlags(u8);

impl FunctionFlags {
    pub const NO_WRITES: Self = Self(1);
    pub const ALLOW_OOM: Self = Self(1 << 1);
    pub const ALLOW_STALE: Self = Self(1 << 2);
    pub const NO_CLUSTER: Self = Self(1 << 3);
    pub const ALLOW_CROSS_SLOT_KEYS: Self = Self(1 << 4);

    #[must_use]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[must_use]
    pub const fn and(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }
}

/// One function of a library.
#[derive(Debug, Default)]
pub struct Function {
    pub name: Box<str>,
    pub description: Option<Box<[u8]>>,
    pub flags: FunctionFlags,
    /// For who runs it: how its last runs went. No part of what is stored.
    pub pace: AtomicU32,
}

/// One library.
#[derive(Debug)]
pub struct Library {
    pub name: Arc<str>,
    /// As the client gave it, its first line included.
    pub text: Box<[u8]>,
    /// In the order in which they were registered.
    pub functions: Vec<Function>,
}

impl Library {
    /// Octets that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let of_function = |function: &Function| {
            let description = function.description.as_ref().map_or(0, |text| text.len());
            function.name.len() + description + size_of::<Function>()
        };
        self.text.len() + self.functions.iter().map(of_function).sum::<usize>()
    }
}

/// What becomes of the libraries that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// They stay: a name that is taken is an error.
    Append,
    /// Those of the same name go.
    Replace,
    /// All go.
    Flush,
}

/// Why libraries are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FunctionsError {
    #[error("there is a library '{0}' already")]
    Library(Arc<str>),
    #[error("there is a function '{0}' already")]
    Function(Box<str>),
    #[error(
        "a library has at most {LIBRARY_MAX} octets and {FUNCTIONS_MAX} functions, a name {NAME_MAX} octets, and all {LIBRARIES_MAX} libraries together {BYTES_MAX} octets"
    )]
    Limits,
}

/// All libraries at one moment.
#[derive(Debug, Clone, Default)]
pub struct Libraries {
    by_name: BTreeMap<Arc<str>, Arc<Library>>,
    /// By the function's name in small letters: its library, and its place there.
    functions: HashMap<Box<[u8]>, (Arc<Library>, usize), foldhash::fast::RandomState>,
    bytes: usize,
}

impl Libraries {
    /// In the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Library>> {
        self.by_name.values()
    }

    /// A function by its name, in any case: its library, and its place there.
    #[must_use]
    pub fn function(&self, name: &[u8]) -> Option<(Arc<Library>, usize)> {
        self.functions.get(&*name.to_ascii_lowercase()).cloned()
    }

    /// A library by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Library>> {
        self.by_name.get(name)
    }

    /// How many functions there are.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.by_name
            .values()
            .map(|library| library.functions.len())
            .sum()
    }

    /// Octets that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, library: Arc<Library>) {
        self.bytes += library.size();
        for (place, function) in library.functions.iter().enumerate() {
            let name = function.name.as_bytes().to_ascii_lowercase();
            // Of two names that differ in case only, in one library, the later counts, as in Valkey.
            self.functions
                .insert(name.into(), (Arc::clone(&library), place));
        }
        self.by_name.insert(Arc::clone(&library.name), library);
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Library>> {
        let library = self.by_name.remove(name)?;
        self.bytes -= library.size();
        for function in &library.functions {
            self.functions
                .remove(&*function.name.as_bytes().to_ascii_lowercase());
        }
        Some(library)
    }

    /// Takes a library.
    ///
    /// # Errors
    /// When a name is taken, or a limit would be passed.
    pub fn add(&mut self, library: Arc<Library>) -> Result<(), FunctionsError> {
        if self.by_name.contains_key(&library.name) {
            return Err(FunctionsError::Library(Arc::clone(&library.name)));
        }
        for function in &library.functions {
            if self.function(function.name.as_bytes()).is_some() {
                return Err(FunctionsError::Function(function.name.clone()));
            }
        }
        if !fits(&library)
            || self.by_name.len() >= LIBRARIES_MAX
            || self.bytes.saturating_add(library.size()) > BYTES_MAX
        {
            return Err(FunctionsError::Limits);
        }
        self.insert(library);
        Ok(())
    }
}

/// Whether a library is within the limits of one.
fn fits(library: &Library) -> bool {
    let named = |name: &str| !name.is_empty() && name.len() <= NAME_MAX;
    library.size() <= LIBRARY_MAX
        && library.functions.len() <= FUNCTIONS_MAX
        && named(&library.name)
        && library
            .functions
            .iter()
            .all(|function| named(&function.name))
}

/// What is there, and what will be.
#[derive(Default)]
struct State {
    now: Arc<Libraries>,
    /// Where the record of the last change ends: nobody may be told of it before that is durable.
    changed: Lsn,
    /// What the transaction has made that holds the catalog, until its record is appended.
    next: Option<Arc<Libraries>>,
}

/// The view that everybody reads; one per broker. Changed under the catalog's lock, when the record of the change is appended.
#[derive(Default)]
pub struct Functions {
    state: RwLock<State>,
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions")
            .field("libraries", &self.now().by_name.len())
            .finish_non_exhaustive()
    }
}

impl Functions {
    /// Reads the rows.
    ///
    /// # Errors
    /// When the tables cannot be read, or hold a row that this build does not understand.
    pub(crate) fn load(engine: &Engine) -> Result<Self, Error> {
        let (mut libraries, mut bad) = (Libraries::default(), None);
        rows::each_in_catalog(engine, Tag::Library, &mut |key, value| {
            match row::read(key, value) {
                Some(library) => libraries.insert(Arc::new(library)),
                None => bad = Some(row::unreadable(key, value)),
            }
            bad.is_none()
        })?;
        match bad {
            Some(error) => Err(error),
            None => Ok(Self {
                state: RwLock::new(State {
                    now: Arc::new(libraries),
                    ..State::default()
                }),
            }),
        }
    }

    /// All libraries, as they are now.
    #[must_use]
    pub fn now(&self) -> Arc<Libraries> {
        Arc::clone(&self.state.read().now)
    }

    /// The position of the last change: who asked [`Self::now`] before must not reply before this is durable.
    #[must_use]
    pub fn changed(&self) -> Lsn {
        self.state.read().changed
    }

    /// The record of the transaction that holds the catalog is appended, and ends here.
    pub(crate) fn committed(&self, lsn: Lsn) {
        if self.state.read().next.is_none() {
            return;
        }
        let mut state = self.state.write();
        if let Some(next) = state.next.take() {
            (state.now, state.changed) = (next, lsn);
        }
    }

    /// What the holder of the catalog sees.
    fn inside(&self) -> Arc<Libraries> {
        let state = self.state.read();
        Arc::clone(state.next.as_ref().unwrap_or(&state.now))
    }
}

/// All libraries as a transaction sees them: with what it did itself, if it holds the catalog.
#[must_use]
pub fn within(locked: &Locked<'_>) -> Arc<Libraries> {
    let view = &locked.broker().functions;
    if locked.has_catalog() {
        view.inside()
    } else {
        view.now()
    }
}

/// Takes libraries, all or none. Locks: the catalog.
///
/// # Errors
/// When a name is taken, or a limit would be passed.
pub fn put(
    locked: &mut Locked<'_>,
    new: &[Arc<Library>],
    policy: Policy,
    fx: &mut Effects,
) -> Result<(), FunctionsError> {
    let _catalog = locked.catalog();
    let view = &locked.broker().functions;
    let before = view.inside();
    let mut libraries = match policy {
        Policy::Flush => Libraries::default(),
        Policy::Append | Policy::Replace => (*before).clone(),
    };
    if policy == Policy::Replace {
        for library in new {
            libraries.remove(&library.name);
        }
    }
    for library in new {
        libraries.add(Arc::clone(library))?;
    }
    if new.is_empty() && libraries.by_name.len() == before.by_name.len() {
        return Ok(());
    }
    let stays = |library: &Arc<Library>| {
        let now = libraries.by_name.get(&library.name);
        now.is_some_and(|now| Arc::ptr_eq(now, library))
    };
    for gone in before.iter().filter(|library| !stays(library)) {
        row::delete(&gone.name, fx);
    }
    for library in new {
        row::put(library, fx);
    }
    view.state.write().next = Some(Arc::new(libraries));
    Ok(())
}

/// Forgets a library; false: there is none of this name. Locks: the catalog.
pub fn delete(locked: &mut Locked<'_>, name: &str, fx: &mut Effects) -> bool {
    let _catalog = locked.catalog();
    let view = &locked.broker().functions;
    let mut libraries = (*view.inside()).clone();
    let Some(gone) = libraries.remove(name) else {
        return false;
    };
    row::delete(&gone.name, fx);
    view.state.write().next = Some(Arc::new(libraries));
    true
}

/// What libraries say for [`crate::law`].
pub(crate) fn law(functions: &Functions, facts: &mut Facts) {
    for library in functions.now().iter() {
        facts.own_name(Tag::Library, &library.name);
        let registered: Vec<_> = library
            .functions
            .iter()
            .map(|function| (&function.name, &function.description, function.flags))
            .collect();
        facts.say(
            format!("library {:?}", library.name),
            format!(
                "{} octets, hash {:016x}, {registered:?}",
                library.text.len(),
                hash([&*library.text])
            ),
        );
    }
}
