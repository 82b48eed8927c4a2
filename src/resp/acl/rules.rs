//! Which commands a selector lets pass: `+get -config|set +@read`, as text and as bits.

use std::collections::BTreeMap;

use protocol_resp::Args;

use crate::resp::categories::Categories;
use crate::resp::commands;
use crate::resp::spec::Spec;

/// First arguments of one command that may be let pass: more than anybody writes, and each is compared.
const FIRST_ARGS_MAX: usize = 64;

/// Words of one selector beyond which first arguments are refused: each new word is compared with them. Commands are fewer.
const SAID_MAX: usize = 1024;

/// Why a rule is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::resp) enum RuleError {
    Unknown,
    Syntax,
    /// A first argument of a subcommand.
    Nested,
    TooMany,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::resp) struct CommandRules {
    /// It began with all commands, those of later builds too.
    all: bool,
    /// By [`Spec::number`].
    bits: Vec<u64>,
    /// First arguments that let a command pass whose bit is not set.
    first_args: BTreeMap<u16, Vec<Box<str>>>,
    /// What was said since it began with all or none, in order: whether to add, and a command or `@category`.
    said: Vec<(bool, Box<str>)>,
}

impl CommandRules {
    /// All commands, or none.
    pub(in crate::resp) fn whole(all: bool) -> Self {
        let words = commands::count().div_ceil(64);
        Self {
            all,
            bits: vec![if all { u64::MAX } else { 0 }; words],
            first_args: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// From a row. What this build does not know lets nothing pass.
    pub(super) fn stored(text: &str) -> Self {
        let mut rules = Self::whole(false);
        for word in text.split_ascii_whitespace() {
            if rules.say(word).is_err() && !word.starts_with('+') {
                return Self::whole(false);
            }
        }
        rules
    }

    /// `+…` or `-…`.
    pub(super) fn say(&mut self, word: &str) -> Result<(), RuleError> {
        let (add, name) = match word.split_at_checked(1) {
            Some(("+", name)) => (true, name),
            Some(("-", name)) => (false, name),
            _ => return Err(RuleError::Syntax),
        };
        if name.eq_ignore_ascii_case("@all") {
            *self = Self::whole(add);
            return Ok(());
        }
        if let Some(category) = name.strip_prefix('@') {
            let category = Categories::parse(category.as_bytes()).ok_or(RuleError::Unknown)?;
            self.change_category(category, add);
        } else if let Some((command, first)) = name.rsplit_once('|').filter(|_| add) {
            let spec = commands::by_full_name(command.as_bytes()).ok_or(RuleError::Unknown)?;
            if spec.name.contains('|') {
                return Err(RuleError::Nested);
            }
            if first.is_empty() {
                return Err(RuleError::Syntax);
            }
            if spec.sub.is_empty() {
                if self.said.len() >= SAID_MAX {
                    return Err(RuleError::TooMany);
                }
                self.add_first_arg(spec, first)?;
            } else {
                let sub = commands::by_full_name(name.as_bytes()).ok_or(RuleError::Unknown)?;
                self.change(sub, add);
            }
        } else {
            let spec = commands::by_full_name(name.as_bytes()).ok_or(RuleError::Unknown)?;
            self.change(spec, add);
        }
        self.note(add, &name.to_ascii_lowercase());
        Ok(())
    }

    fn change_category(&mut self, category: Categories, add: bool) {
        for (_, spec) in commands::all() {
            if spec.categories.meets(category) {
                self.change(spec, add);
            }
            for sub in spec.sub {
                if sub.categories.meets(category) {
                    self.change(sub, add);
                }
            }
        }
    }

    /// A command with its subcommands.
    fn change(&mut self, spec: &Spec, add: bool) {
        for spec in std::iter::once(spec).chain(spec.sub) {
            self.first_args.remove(&spec.number);
            let number = usize::from(spec.number);
            if let Some(word) = self.bits.get_mut(number / 64) {
                let bit = 1 << (number % 64);
                *word = if add { *word | bit } else { *word & !bit };
            }
        }
    }

    fn add_first_arg(&mut self, spec: &Spec, first: &str) -> Result<(), RuleError> {
        let known = self.first_args.entry(spec.number).or_default();
        if !known.iter().any(|other| other.eq_ignore_ascii_case(first)) {
            if known.len() >= FIRST_ARGS_MAX {
                return Err(RuleError::TooMany);
            }
            known.push(first.into());
        }
        Ok(())
    }

    /// The last word about a command, and about its subcommands, is the one that counts: earlier ones are not shown any more.
    fn note(&mut self, add: bool, name: &str) {
        self.said.retain(|(_, known)| {
            let rest = known.strip_prefix(name);
            rest.is_none_or(|rest| !rest.is_empty() && !rest.starts_with('|'))
        });
        self.said.push((add, name.into()));
    }

    fn has(&self, spec: &Spec) -> bool {
        let number = usize::from(spec.number);
        let word = self.bits.get(number / 64);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Does the command pass?
    #[inline]
    pub(in crate::resp) fn pass(&self, spec: &Spec, args: &Args<'_>) -> bool {
        self.has(spec) || (!self.first_args.is_empty() && self.passes_by_first(spec, args))
    }

    fn passes_by_first(&self, spec: &Spec, args: &Args<'_>) -> bool {
        let place = if spec.name.contains('|') { 2 } else { 1 };
        let (known, given) = (self.first_args.get(&spec.number), args.get(place));
        known.zip(given).is_some_and(|(known, given)| {
            let mut known = known.iter();
            known.any(|known| given.eq_ignore_ascii_case(known.as_bytes()))
        })
    }

    /// May the command pass with some arguments?
    pub(super) fn may_pass(&self, spec: &Spec) -> bool {
        self.has(spec) || self.first_args.contains_key(&spec.number)
    }
}

impl std::fmt::Display for CommandRules {
    /// As `ACL LIST` shows it, and [`CommandRules::stored`] reads it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.all { "+@all" } else { "-@all" })?;
        for (add, name) in &self.said {
            write!(f, " {}{name}", if *add { '+' } else { '-' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str) -> CommandRules {
        let mut rules = CommandRules::whole(false);
        for word in words.split(' ') {
            assert_eq!(rules.say(word), Ok(()), "{word}");
        }
        assert_eq!(CommandRules::stored(&rules.to_string()), rules);
        rules
    }

    fn passes(rules: &CommandRules, words: &[&str]) -> bool {
        let (mut data, mut ranges) = (Vec::new(), Vec::new());
        for word in words {
            ranges.push((data.len() as u32, word.len() as u32));
            data.extend_from_slice(word.as_bytes());
        }
        let args = Args::new(&data, &ranges);
        rules.pass(commands::lookup(&args).unwrap(), &args)
    }

    #[test]
    fn the_last_word_counts_and_is_shown() {
        for (given, shown) in [
            (
                "+@all -@hash -@slow +hget -@hash",
                "+@all -@slow +hget -@hash",
            ),
            ("-@string -@slow +@all", "+@all"),
            ("+@HASH +@hash +@HaSh +HGET +hget", "-@all +@hash +hget"),
            ("+hget -hset +hset -hget", "-@all +hset -hget"),
            (
                "+client|list +client|list +config|get +config +acl|list -acl",
                "-@all +client|list +config -acl",
            ),
            (
                "+select|0 +select|0 +debug|segfault +debug",
                "-@all +select|0 +debug",
            ),
            ("-@dangerous", "-@all -@dangerous"),
            ("+config +config|get -config|set +config", "-@all +config"),
            ("+get +getex +get", "-@all +getex +get"),
        ] {
            assert_eq!(said(given).to_string(), shown, "{given}");
        }
    }

    #[test]
    fn what_passes() {
        let rules = said("+@all -@string +incr -debug +debug|object -config|set");
        assert!(passes(&rules, &["incr", "a"]) && !passes(&rules, &["GET", "a"]));
        assert!(passes(&rules, &["debug", "OBJECT", "a"]) && !passes(&rules, &["debug", "sleep"]));
        assert!(passes(&rules, &["config", "get"]) && !passes(&rules, &["config", "SET"]));
        let rules = said("+select|0 +@set +client");
        assert!(passes(&rules, &["select", "0"]) && !passes(&rules, &["select", "1"]));
        assert!(passes(&rules, &["sadd"]) && passes(&rules, &["client", "kill"]));
        assert!(!passes(&rules, &["select"]) && !passes(&rules, &["set"]));
        assert!(rules.may_pass(commands::lookup_name(b"select").unwrap()));
    }

    #[test]
    fn what_is_no_rule() {
        for (word, error) in [
            ("+foo", RuleError::Unknown),
            ("+", RuleError::Unknown),
            ("-", RuleError::Unknown),
            ("+@foo", RuleError::Unknown),
            ("-get|x", RuleError::Unknown),
            ("+config|foo", RuleError::Unknown),
            ("+get|a|b", RuleError::Unknown),
            ("+config|get|x", RuleError::Nested),
            ("+config|", RuleError::Syntax),
            ("+get|", RuleError::Syntax),
            ("get", RuleError::Syntax),
            ("", RuleError::Syntax),
        ] {
            let mut rules = CommandRules::whole(false);
            assert_eq!(rules.say(word), Err(error), "{word}");
            assert_eq!(rules, CommandRules::whole(false), "{word}");
        }
        let mut rules = CommandRules::whole(false);
        let done: Vec<_> = (0..100).map(|n| rules.say(&format!("+get|{n}"))).collect();
        assert_eq!(done[99], Err(RuleError::TooMany));
        let mut rules = CommandRules::whole(false);
        let said = (0..FIRST_ARGS_MAX).flat_map(|n| {
            let each = commands::all().filter(|(_, spec)| spec.sub.is_empty());
            each.map(move |(_, spec)| format!("+{}|{n}", spec.name))
        });
        let done: Vec<_> = said.map(|word| rules.say(&word)).collect();
        assert_eq!(done.last(), Some(&Err(RuleError::TooMany)));
        assert_eq!(rules.said.len(), SAID_MAX);
    }

    #[test]
    fn what_a_later_build_stored_gives_nothing() {
        let none = CommandRules::whole(false);
        assert_eq!(CommandRules::stored("+@all -@future"), none);
        assert_eq!(CommandRules::stored("+@all -future"), none);
        assert_eq!(CommandRules::stored("-@all +future"), none);
        assert_eq!(CommandRules::stored("nonsense"), none);
        let known = CommandRules::stored("-@all +future +get");
        assert!(passes(&known, &["get"]));
    }
}
