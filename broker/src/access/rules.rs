//! A principal's grants, compiled: literals and prefixes are looked up, globs are tried.

use hashbrown::HashMap;

use super::PATTERN_MAX;
use super::grant::{Grant, Kind, Namespace, Scope, Verbs};
use super::pattern::{Pattern, glob_matches};

type ByName = HashMap<Box<[u8]>, Effect, foldhash::fast::RandomState>;

/// See the module. Asking allocates nothing.
#[derive(Debug, Default)]
pub struct Rules {
    /// By [`Kind::index`].
    kinds: [Vec<(Scope, Names)>; Kind::ALL.len()],
    /// One grant must allow all that is asked of a name: what several allow does not add up.
    one: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Effect {
    allow: Verbs,
    deny: Verbs,
}

/// The grants about one kind of object in one scope.
#[derive(Debug, Default)]
struct Names {
    literals: ByName,
    prefixes: ByName,
    /// Of the prefixes, ascending, each once: a name is looked up once for each.
    lengths: Vec<usize>,
    globs: Vec<(Pattern, Effect)>,
    /// All that is denied here; nothing: grants that allow enough decide.
    denied: Verbs,
    /// All that is allowed here to some name.
    allowed: Verbs,
}

impl Rules {
    pub(super) fn compile(grants: &[Grant]) -> Self {
        let mut rules = Self::default();
        for grant in grants {
            if let Some(scopes) = rules.kinds.get_mut(grant.kind.index()) {
                let at = scopes.iter().position(|(scope, _)| *scope == grant.scope);
                let at = at.unwrap_or_else(|| {
                    scopes.push((grant.scope, Names::default()));
                    scopes.len() - 1
                });
                if let Some((_, names)) = scopes.get_mut(at) {
                    names.add(grant);
                }
            }
        }
        for (_, names) in rules.kinds.iter_mut().flatten() {
            names.lengths.sort_unstable();
            names.lengths.dedup();
        }
        rules
    }

    /// Rules where one grant must allow all that is asked of a name, as a pattern of Redis' ACL must.
    pub(super) fn of_one(grants: &[Grant]) -> Self {
        Self {
            one: true,
            ..Self::compile(grants)
        }
    }

    /// May `verb` be done to the object?
    #[must_use]
    pub fn allows(&self, kind: Kind, namespace: Namespace, name: &[u8], verb: Verbs) -> bool {
        let mut allowed = Verbs::NONE;
        for names in self.scopes(kind, namespace) {
            match names.verdict(name, verb, self.one) {
                Some(more) => allowed = allowed.and(more),
                None => return false,
            }
        }
        allowed.has(verb)
    }

    /// May `verb` be done to every object whose name `glob` matches? Denies when it cannot be sure.
    #[must_use]
    pub fn allows_all(&self, kind: Kind, namespace: Namespace, glob: &[u8], verb: Verbs) -> bool {
        let mut allowed = false;
        for names in self.scopes(kind, namespace) {
            for (pattern, effect) in names.each() {
                if effect.deny.meets(verb) && pattern.may_meet(glob) {
                    return false;
                }
                allowed |= effect.allow.has(verb) && pattern.covers(glob);
            }
        }
        allowed
    }

    /// Is there any object to which `verb` may be done?
    #[must_use]
    pub fn allows_some(&self, kind: Kind, verb: Verbs) -> bool {
        let scopes = self.kinds.get(kind.index());
        scopes
            .into_iter()
            .flatten()
            .any(|(_, names)| names.allowed.has(verb))
    }

    fn scopes(&self, kind: Kind, namespace: Namespace) -> impl Iterator<Item = &Names> {
        let scopes = self.kinds.get(kind.index());
        scopes
            .into_iter()
            .flatten()
            .filter(move |(scope, _)| scope.holds_in(namespace))
            .map(|(_, names)| names)
    }
}

impl Names {
    fn add(&mut self, grant: &Grant) {
        let effect = match &grant.pattern {
            Pattern::Literal(text) => self.literals.entry(text.clone()).or_default(),
            Pattern::Prefix(text) => {
                self.lengths.push(text.len());
                self.prefixes.entry(text.clone()).or_default()
            }
            Pattern::Glob(_) => {
                self.globs.push((grant.pattern.clone(), Effect::default()));
                let Some((_, effect)) = self.globs.last_mut() else {
                    return;
                };
                effect
            }
        };
        if grant.deny {
            effect.deny = effect.deny.and(grant.verbs);
            self.denied = self.denied.and(grant.verbs);
        } else {
            effect.allow = effect.allow.and(grant.verbs.implied());
            self.allowed = self.allowed.and(grant.verbs.implied());
        }
    }

    /// What of `verb` is allowed here, each part by any grant, or all by `one`; `None`: some of it is denied.
    fn verdict(&self, name: &[u8], verb: Verbs, one: bool) -> Option<Verbs> {
        let counted = |allow: Verbs| {
            if one && !allow.has(verb) {
                Verbs::NONE
            } else {
                allow
            }
        };
        let denies = self.denied.meets(verb);
        let mut allowed = Verbs::NONE;
        if !denies && !self.allowed.meets(verb) {
            return Some(allowed);
        }
        // No pattern is longer, and hashing a key of 512 MiB takes its time.
        if name.len() <= PATTERN_MAX
            && let Some(effect) = self.literals.get(name)
        {
            if effect.deny.meets(verb) {
                return None;
            }
            allowed = counted(effect.allow);
        }
        for length in &self.lengths {
            if allowed.has(verb) && !denies {
                return Some(allowed);
            }
            let Some(beginning) = name.get(..*length) else {
                // The name is shorter than this prefix and all that follow.
                break;
            };
            let Some(effect) = self.prefixes.get(beginning) else {
                continue;
            };
            if effect.deny.meets(verb) {
                return None;
            }
            allowed = allowed.and(counted(effect.allow));
        }
        for (glob, effect) in &self.globs {
            if effect.deny.meets(verb) && glob_matches(glob.text(), name).unwrap_or(true) {
                return None;
            }
            // Only if it would add something.
            if counted(effect.allow).meets(verb.without(allowed))
                && glob_matches(glob.text(), name).unwrap_or(false)
            {
                allowed = allowed.and(counted(effect.allow));
            }
        }
        Some(allowed)
    }

    fn each(&self) -> impl Iterator<Item = (Pattern, Effect)> {
        let literals = self
            .literals
            .iter()
            .map(|(text, effect)| (Pattern::Literal(text.clone()), *effect));
        let prefixes = self
            .prefixes
            .iter()
            .map(|(text, effect)| (Pattern::Prefix(text.clone()), *effect));
        literals.chain(prefixes).chain(self.globs.iter().cloned())
    }
}
