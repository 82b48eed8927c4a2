//! What is stored with a principal besides its grants, and only takes away: selectors.
//!
//! ```text
//!  grants ───────────────┬─▶ rules of all of them
//!                        ├─ without `hidden` ─▶ first selector ┐ a selector lets a command pass if its `commands` and its rules
//!  shares of a selector ─┴────────────────────▶ each other one ┘ do; then the rules of all grants must as well
//! ```
//! What a selector's `commands` mean only its face knows: they are text here. A selector's shares are also grants of the
//! principal (whoever writes the restriction sees to that), but they count together with that selector's commands only, so the
//! first selector must not have those that it was not given: these are `hidden` from it.
//!
//! ```text
//! Restriction  commands | count u16 LE | share… | count u8 | (commands | count u16 LE | share…)…
//! commands     len u16 LE | UTF-8
//! share        len u8 | scope | kind u8 | pattern u8 | verbs u16 LE | len u16 LE | text
//! ```

use std::any::Any;
use std::sync::{Arc, OnceLock};

use hashbrown::{Equivalent, HashMap};

use super::grant::{Grant, Kind, Scope, Verbs};
use super::pattern::Pattern;
use super::rules::Rules;
use super::{AccessError, GLOB_OCTETS_MAX, GLOBS_MAX, PATTERN_MAX, RESTRICTION_MAX, SELECTORS_MAX};

/// A grant without whose it is; it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub scope: Scope,
    pub kind: Kind,
    pub pattern: Pattern,
    pub verbs: Verbs,
}

/// Shares, each names once, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    list: Vec<Share>,
    places: HashMap<(Scope, Kind, Pattern), usize, foldhash::fast::RandomState>,
}

/// What a share or grant is about.
#[derive(Hash)]
struct About<'a>(Scope, Kind, &'a Pattern);

impl Equivalent<(Scope, Kind, Pattern)> for About<'_> {
    fn equivalent(&self, (scope, kind, pattern): &(Scope, Kind, Pattern)) -> bool {
        self.0 == *scope && self.1 == *kind && self.2 == pattern
    }
}

/// Some commands on some objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// In the words of the face that reads them.
    pub commands: Box<str>,
    pub shares: Vec<Share>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restriction {
    /// Of the first selector.
    pub commands: Box<str>,
    pub hidden: Vec<Share>,
    /// The others.
    pub selectors: Vec<Selector>,
}

/// A restriction as sessions ask it; made anew when the principal or its grants change.
#[derive(Debug)]
pub struct Selectors {
    each: Vec<Compiled>,
    made: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// One selector.
#[derive(Debug)]
pub struct Compiled {
    pub commands: Box<str>,
    /// Of the objects; whether the grants allow it is asked as well.
    pub rules: Rules,
}

impl Share {
    /// As a grant of a principal.
    #[must_use]
    pub fn grant(&self, principal: &Arc<str>) -> Grant {
        Grant {
            principal: Arc::clone(principal),
            scope: self.scope,
            kind: self.kind,
            pattern: self.pattern.clone(),
            verbs: self.verbs,
            deny: false,
        }
    }

    /// What a grant gives, whether it allows or denies.
    #[must_use]
    pub fn of(grant: &Grant) -> Self {
        Self {
            scope: grant.scope,
            kind: grant.kind,
            pattern: grant.pattern.clone(),
            verbs: grant.verbs,
        }
    }

    fn put(&self, value: &mut Vec<u8>) {
        let scope = self.scope.to_string();
        value.push(u8::try_from(scope.len()).unwrap_or(u8::MAX));
        value.extend_from_slice(scope.as_bytes());
        value.extend([self.kind as u8, self.pattern.byte()]);
        value.extend_from_slice(&self.verbs.bits().to_le_bytes());
        put_text(value, self.pattern.text());
    }

    fn read<'b>(bytes: &mut &'b [u8]) -> Option<Self> {
        let &[length] = take(bytes, 1)? else {
            return None;
        };
        let scope: &'b [u8] = take(bytes, usize::from(length))?;
        let &[kind, pattern, low, high] = take(bytes, 4)? else {
            return None;
        };
        Some(Self {
            scope: Scope::parse(std::str::from_utf8(scope).ok()?)?,
            kind: Kind::from_byte(kind)?,
            verbs: Verbs::from_bits(u16::from_le_bytes([low, high]))?,
            pattern: Pattern::read(pattern, read_text(bytes, PATTERN_MAX)?)?,
        })
    }
}

impl Shares {
    /// Adds its verbs to those of the same names. Without verbs it is none.
    pub fn add(&mut self, share: Share) {
        if share.verbs.is_empty() {
            return;
        }
        let about = About(share.scope, share.kind, &share.pattern);
        let known = self.places.get(&about).copied();
        match known.and_then(|place| self.list.get_mut(place)) {
            Some(known) => known.verbs = known.verbs.and(share.verbs),
            None => {
                let about = (share.scope, share.kind, share.pattern.clone());
                self.places.insert(about, self.list.len());
                self.list.push(share);
            }
        }
    }

    /// What is shared of the same names.
    #[must_use]
    pub fn verbs(&self, share: &Share) -> Verbs {
        self.about(share.scope, share.kind, &share.pattern)
    }

    /// What is shared of a grant; nothing of one that denies.
    #[must_use]
    pub fn of(&self, grant: &Grant) -> Verbs {
        if grant.deny {
            return Verbs::NONE;
        }
        self.about(grant.scope, grant.kind, &grant.pattern)
    }

    fn about(&self, scope: Scope, kind: Kind, pattern: &Pattern) -> Verbs {
        let place = self.places.get(&About(scope, kind, pattern));
        let share = place.and_then(|place| self.list.get(*place));
        share.map_or(Verbs::NONE, |share| share.verbs)
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Share> {
        self.list.iter()
    }

    /// In order.
    #[must_use]
    pub fn into_vec(self) -> Vec<Share> {
        self.list
    }
}

impl FromIterator<Share> for Shares {
    fn from_iter<T: IntoIterator<Item = Share>>(shares: T) -> Self {
        let mut all = Self::default();
        shares.into_iter().for_each(|share| all.add(share));
        all
    }
}

impl Restriction {
    /// Every share of every selector but the first.
    pub fn shares(&self) -> impl Iterator<Item = &Share> {
        self.selectors.iter().flat_map(|selector| &selector.shares)
    }

    /// # Errors
    /// When it is beyond the limits.
    pub(super) fn check(&self) -> Result<(), AccessError> {
        let (mut globs, mut octets) = (0, 0);
        for share in self.shares() {
            if let Pattern::Glob(text) = &share.pattern {
                globs += 1;
                octets += text.len();
            }
        }
        let mut value = Vec::new();
        self.put(&mut value);
        let few = self.selectors.len() <= SELECTORS_MAX && value.len() <= RESTRICTION_MAX;
        if few && globs <= GLOBS_MAX && octets <= GLOB_OCTETS_MAX {
            Ok(())
        } else {
            Err(AccessError::Restriction)
        }
    }

    pub(super) fn put(&self, value: &mut Vec<u8>) {
        put_text(value, self.commands.as_bytes());
        put_shares(value, &self.hidden);
        value.push(u8::try_from(self.selectors.len()).unwrap_or(u8::MAX));
        for selector in &self.selectors {
            put_text(value, selector.commands.as_bytes());
            put_shares(value, &selector.shares);
        }
    }

    /// The whole of `bytes`; `None` when they do not read.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let commands = read_commands(bytes)?;
        let hidden = read_shares(bytes)?;
        let &[count] = take(bytes, 1)? else {
            return None;
        };
        let mut restriction = Self {
            commands,
            hidden,
            selectors: Vec::new(),
        };
        for _ in 0..count {
            restriction.selectors.push(Selector {
                commands: read_commands(bytes)?,
                shares: read_shares(bytes)?,
            });
        }
        bytes.is_empty().then_some(restriction)
    }

    /// What of the principal's grants the first selector has not.
    #[must_use]
    pub fn hidden(&self) -> Shares {
        self.hidden.iter().cloned().collect()
    }
}

impl Selectors {
    pub(super) fn compile(restriction: &Restriction, grants: &[Grant]) -> Self {
        let hidden = restriction.hidden();
        let mut first = Vec::with_capacity(grants.len());
        for grant in grants {
            let verbs = grant.verbs.without(hidden.of(grant));
            if !verbs.is_empty() {
                first.push(Grant {
                    verbs,
                    ..grant.clone()
                });
            }
        }
        let mut each = vec![Compiled {
            commands: restriction.commands.clone(),
            rules: Rules::of_one(&first),
        }];
        for selector in &restriction.selectors {
            // What is not about keys and channels has no selectors.
            let others = grants
                .iter()
                .filter(|grant| grant.deny || !matches!(grant.kind, Kind::Key | Kind::Channel));
            let mut own: Vec<Grant> = others.cloned().collect();
            if let Some(any) = grants.first() {
                own.extend(
                    selector
                        .shares
                        .iter()
                        .map(|share| share.grant(&any.principal)),
                );
            }
            each.push(Compiled {
                commands: selector.commands.clone(),
                rules: Rules::of_one(&own),
            });
        }
        Self {
            each,
            made: OnceLock::new(),
        }
    }

    /// The first one and the others.
    #[must_use]
    pub fn each(&self) -> &[Compiled] {
        &self.each
    }

    /// What a face has made of the commands: once, for all its sessions.
    pub fn made<T: Any + Send + Sync>(&self, make: impl FnOnce(&[Compiled]) -> T) -> Option<&T> {
        let made = self.made.get_or_init(|| Arc::new(make(&self.each)));
        made.downcast_ref()
    }
}

fn put_text(value: &mut Vec<u8>, text: &[u8]) {
    value.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    value.extend_from_slice(text);
}

fn put_shares(value: &mut Vec<u8>, shares: &[Share]) {
    let count = u16::try_from(shares.len()).unwrap_or(u16::MAX);
    value.extend_from_slice(&count.to_le_bytes());
    for share in shares {
        share.put(value);
    }
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

fn read_u16(bytes: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(*take(bytes, 2)?.first_chunk::<2>()?))
}

fn read_text<'b>(bytes: &mut &'b [u8], max: usize) -> Option<&'b [u8]> {
    let length = usize::from(read_u16(bytes)?);
    if length > max {
        return None;
    }
    take(bytes, length)
}

fn read_commands(bytes: &mut &[u8]) -> Option<Box<str>> {
    let text = read_text(bytes, RESTRICTION_MAX)?;
    Some(std::str::from_utf8(text).ok()?.into())
}

fn read_shares(bytes: &mut &[u8]) -> Option<Vec<Share>> {
    let count = read_u16(bytes)?;
    (0..count).map(|_| Share::read(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str, verbs: Verbs) -> Share {
        Share {
            scope: Scope::Every,
            kind: Kind::Key,
            pattern: Pattern::glob(text.as_bytes()).unwrap(),
            verbs,
        }
    }

    #[test]
    fn it_reads_back_whole_and_never_in_part() {
        let restriction = Restriction {
            commands: "+@all -flushall".into(),
            hidden: vec![share("b*", Verbs::WRITE)],
            selectors: vec![
                Selector::default(),
                Selector {
                    commands: "-@all +set".into(),
                    shares: vec![share("b*", Verbs::WRITE), share("a?b", Verbs::READ)],
                },
            ],
        };
        let mut value = Vec::new();
        restriction.put(&mut value);
        assert_eq!(Restriction::read(&value).as_ref(), Some(&restriction));
        for end in 0..value.len() {
            assert_eq!(Restriction::read(&value[..end]), None, "{end}");
        }
        value.push(0);
        assert_eq!(Restriction::read(&value), None);
    }

    #[test]
    fn limits() {
        let mut restriction = Restriction::default();
        assert_eq!(restriction.check(), Ok(()));
        restriction.selectors = vec![Selector::default(); SELECTORS_MAX + 1];
        assert_eq!(restriction.check(), Err(AccessError::Restriction));
        restriction.selectors.truncate(1);
        restriction.commands = "x".repeat(RESTRICTION_MAX).into();
        assert_eq!(restriction.check(), Err(AccessError::Restriction));
        restriction.commands = "".into();
        restriction.selectors[0].shares = vec![share("*a*", Verbs::READ); GLOBS_MAX + 1];
        assert_eq!(restriction.check(), Err(AccessError::Restriction));
    }
}
