//! A user in Redis' words: what `ACL SETUSER` changes rule by rule, and what `ACL LIST` and `GETUSER` show.

use std::fmt::Write;

use broker::access::{ACL_PASSWORDS_MAX, PATTERN_MAX, SELECTORS_MAX, Scope, Verbs};

use super::rules::{CommandRules, RuleError};
use crate::auth::{PASSWORD_MAX, redis_hash};
use crate::resp::permission::BOTH;

/// Why a rule is refused; told behind `Error in ACL SETUSER modifier '…': `.
pub(in crate::resp) type Why = &'static str;

const SYNTAX: Why = "Syntax error";
const UNKNOWN: Why = "Unknown command or category name in ACL";
const NESTED: Why = "Allowing first-arg of a subcommand is not supported";
const HASH: Why = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
const NO_PASSWORD: Why = "The password you are trying to remove from the user does not exist";
const ALL_KEYS: Why = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns";
const ALL_CHANNELS: Why = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels";
const LONG_PASSWORD: Why = "A password of this server has at most 1024 octets";
const TOO_LONG: Why = "A pattern of this server has at most 1024 octets";
const TOO_MANY: Why = "More than this server keeps of one user";
const DATABASES: Why =
    "Databases are not chosen here: a grant of kind key has a namespace (flowmesh grant)";

/// Patterns of one selector: more than globs that are kept, and each is looked for among the others.
const PATTERNS_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::resp) struct Draft {
    pub(in crate::resp) on: bool,
    pub(in crate::resp) nopass: bool,
    /// SHA-256 in hexadecimal.
    pub(in crate::resp) passwords: Vec<Box<str>>,
    /// All passwords go, those that cannot be shown as well.
    pub(in crate::resp) forgets: bool,
    /// All keys, and all channels, go as well.
    pub(in crate::resp) resets_keys: bool,
    pub(in crate::resp) resets_channels: bool,
    /// All selectors but the first go.
    pub(in crate::resp) resets_selectors: bool,
    pub(in crate::resp) root: Selector,
    pub(in crate::resp) others: Vec<Selector>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::resp) struct Selector {
    pub(in crate::resp) commands: CommandRules,
    pub(in crate::resp) keys: Patterns,
    pub(in crate::resp) channels: Patterns,
    /// Where its keys are; all of its patterns hold in each of them.
    pub(in crate::resp) scopes: Vec<Scope>,
}

/// Names of keys or channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::resp) enum Patterns {
    All,
    /// In order, each with what may be done: of channels always both.
    These(Vec<(Box<[u8]>, Verbs)>),
}

impl Patterns {
    const NONE: Self = Self::These(Vec::new());

    fn add(&mut self, text: &[u8], verbs: Verbs, all: Why) -> Result<(), Why> {
        let Self::These(known) = self else {
            return Err(all);
        };
        if text.iter().any(|byte| is_space(*byte)) {
            return Err(SYNTAX);
        }
        if text.len() > PATTERN_MAX {
            return Err(TOO_LONG);
        }
        if let Some((_, known)) = known.iter_mut().find(|(other, _)| **other == *text) {
            *known = known.and(verbs);
        } else if known.len() >= PATTERNS_MAX {
            return Err(TOO_MANY);
        } else {
            known.push((text.into(), verbs));
        }
        Ok(())
    }
}

/// C's `isspace`, and the zero byte.
pub(in crate::resp) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}

impl Selector {
    /// As a new one is.
    pub(in crate::resp) fn none(all_channels: bool) -> Self {
        Self {
            commands: CommandRules::whole(false),
            keys: Patterns::NONE,
            channels: if all_channels {
                Patterns::All
            } else {
                Patterns::NONE
            },
            scopes: vec![Scope::Every],
        }
    }

    /// Whatever there is.
    pub(in crate::resp) fn whole() -> Self {
        Self {
            commands: CommandRules::whole(true),
            keys: Patterns::All,
            channels: Patterns::All,
            scopes: vec![Scope::Every],
        }
    }

    /// How many shares its patterns are.
    pub(in crate::resp) fn shares(&self) -> usize {
        let count = |patterns: &Patterns| match patterns {
            Patterns::All => 1,
            Patterns::These(these) => these.len(),
        };
        self.scopes.len() * count(&self.keys) + count(&self.channels)
    }

    fn apply(&mut self, rule: &[u8]) -> Result<(), Why> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            _ if is("allkeys") || is("~*") => self.keys = Patterns::All,
            _ if is("resetkeys") => self.keys = Patterns::NONE,
            _ if is("allchannels") || is("&*") => self.channels = Patterns::All,
            _ if is("resetchannels") => self.channels = Patterns::NONE,
            _ if is("allcommands") => self.commands = CommandRules::whole(true),
            _ if is("nocommands") => self.commands = CommandRules::whole(false),
            _ if is("alldbs") => self.scopes = vec![Scope::Every],
            _ if is("resetdbs") || rule.starts_with(b"db=") => return Err(DATABASES),
            [b'~', pattern @ ..] => self.keys.add(pattern, BOTH, ALL_KEYS)?,
            [b'%', rest @ ..] => {
                let Patterns::These(_) = self.keys else {
                    return Err(ALL_KEYS);
                };
                let (verbs, pattern) = permissions(rest).ok_or(SYNTAX)?;
                self.keys.add(pattern, verbs, ALL_KEYS)?;
            }
            [b'&', pattern @ ..] => self.channels.add(pattern, BOTH, ALL_CHANNELS)?,
            [b'+' | b'-', ..] => {
                let word = std::str::from_utf8(rule).map_err(|_| UNKNOWN)?;
                if rule.iter().any(|byte| is_space(*byte)) {
                    return Err(UNKNOWN);
                }
                self.commands.say(word).map_err(|error| match error {
                    RuleError::Unknown => UNKNOWN,
                    RuleError::Syntax => SYNTAX,
                    RuleError::Nested => NESTED,
                    RuleError::TooMany => TOO_MANY,
                })?;
            }
            _ => return Err(SYNTAX),
        }
        Ok(())
    }

    /// Its keys as `GETUSER` shows them.
    pub(in crate::resp) fn keys_text(&self) -> Vec<u8> {
        let Patterns::These(patterns) = &self.keys else {
            return b"~*".to_vec();
        };
        let each = patterns.iter().map(|(text, verbs)| {
            let sign: &[u8] = match (verbs.has(Verbs::READ), verbs.has(Verbs::WRITE)) {
                (true, true) => b"~",
                (true, false) => b"%R~",
                _ => b"%W~",
            };
            [sign, text].concat()
        });
        each.collect::<Vec<_>>().join(&b' ')
    }

    /// Its channels.
    pub(in crate::resp) fn channels_text(&self) -> Vec<u8> {
        let Patterns::These(patterns) = &self.channels else {
            return b"&*".to_vec();
        };
        let each = patterns.iter().map(|(text, _)| [b"&", &text[..]].concat());
        each.collect::<Vec<_>>().join(&b' ')
    }

    /// `alldbs`, or `db=1,2`.
    pub(in crate::resp) fn databases_text(&self) -> String {
        if self.scopes.contains(&Scope::Every) {
            return "alldbs".to_owned();
        }
        let mut text = String::from("db=");
        for (at, scope) in self.scopes.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let shown = scope.to_string();
            let db = shown.strip_prefix("db").unwrap_or("0");
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{db}");
        }
        text
    }

    /// As a part of `ACL LIST`.
    fn describe(&self, line: &mut Vec<u8>) {
        let keys = self.keys_text();
        line.extend_from_slice(&keys);
        if !keys.is_empty() {
            line.push(b' ');
        }
        if self.channels != Patterns::All {
            line.extend_from_slice(b"resetchannels ");
        }
        let channels = self.channels_text();
        line.extend_from_slice(&channels);
        if !channels.is_empty() {
            line.push(b' ');
        }
        if !self.scopes.contains(&Scope::Every) {
            line.extend_from_slice(self.databases_text().as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(self.commands.to_string().as_bytes());
    }
}

/// `R~`, `W~`, `RW~`; without `~` the pattern is empty, as in Redis.
fn permissions(rest: &[u8]) -> Option<(Verbs, &[u8])> {
    let mut verbs = Verbs::NONE;
    let mut at = 0;
    while let Some(letter) = rest.get(at) {
        at += 1;
        let verb = match letter.to_ascii_uppercase() {
            b'R' => Verbs::READ,
            b'W' => Verbs::WRITE,
            b'~' => break,
            _ => return None,
        };
        if verbs.has(verb) {
            return None;
        }
        verbs = verbs.and(verb);
    }
    (!verbs.is_empty()).then(|| (verbs, rest.get(at..).unwrap_or_default()))
}

impl Draft {
    /// As a new user is; `all_channels`: `acl-pubsub-default`.
    pub(in crate::resp) fn new(all_channels: bool) -> Self {
        Self {
            on: false,
            nopass: false,
            passwords: Vec::new(),
            forgets: false,
            resets_keys: false,
            resets_channels: false,
            resets_selectors: false,
            root: Selector::none(all_channels),
            others: Vec::new(),
        }
    }

    /// One rule of `ACL SETUSER`.
    pub(in crate::resp) fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), Why> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            [] => {}
            _ if is("on") => self.on = true,
            _ if is("off") => self.on = false,
            // RESTORE checks every payload.
            _ if is("skip-sanitize-payload") || is("sanitize-payload") => {}
            _ if is("nopass") || is("resetpass") => {
                self.nopass = is("nopass");
                self.passwords.clear();
                self.forgets = true;
            }
            // Who logs in with it is refused without a look.
            [b'>', password @ ..] if password.len() > PASSWORD_MAX => return Err(LONG_PASSWORD),
            [b'>', password @ ..] => self.add_password(&redis_hash(password))?,
            [b'#', hash @ ..] => self.add_password(checked(hash)?)?,
            [b'<', password @ ..] => self.remove_password(&redis_hash(password))?,
            [b'!', hash @ ..] => self.remove_password(checked(hash)?)?,
            [b'(', inner @ .., b')'] => {
                if self.others.len() >= SELECTORS_MAX {
                    return Err(TOO_MANY);
                }
                let mut selector = Selector::none(all_channels);
                let rules = inner.split(|byte| is_space(*byte));
                for rule in rules.filter(|rule| !rule.is_empty()) {
                    selector.apply(rule)?;
                }
                self.others.push(selector);
            }
            _ if is("clearselectors") => {
                self.resets_selectors = true;
                self.others.clear();
            }
            _ if is("reset") => {
                *self = Self {
                    forgets: true,
                    resets_keys: true,
                    resets_channels: true,
                    resets_selectors: true,
                    ..Self::new(all_channels)
                };
            }
            _ => {
                self.resets_keys |= is("resetkeys");
                self.resets_channels |= is("resetchannels");
                self.root.apply(rule)?;
            }
        }
        Ok(())
    }

    fn add_password(&mut self, hash: &str) -> Result<(), Why> {
        self.nopass = false;
        if self.passwords.iter().any(|known| **known == *hash) {
            return Ok(());
        }
        if self.passwords.len() >= ACL_PASSWORDS_MAX {
            return Err(TOO_MANY);
        }
        self.passwords.push(hash.into());
        Ok(())
    }

    fn remove_password(&mut self, hash: &str) -> Result<(), Why> {
        let before = self.passwords.len();
        self.passwords.retain(|known| **known != *hash);
        if self.passwords.len() == before {
            return Err(NO_PASSWORD);
        }
        Ok(())
    }

    /// `on`, `nopass`.
    pub(in crate::resp) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.on { "on" } else { "off" }];
        if self.nopass {
            flags.push("nopass");
        }
        flags
    }

    /// The line of `ACL LIST`.
    pub(in crate::resp) fn line(&self, name: &str) -> Vec<u8> {
        let mut line = format!("user {name} {} ", self.flags().join(" ")).into_bytes();
        for password in &self.passwords {
            line.extend_from_slice(format!("#{password} ").as_bytes());
        }
        self.root.describe(&mut line);
        for selector in &self.others {
            line.extend_from_slice(b" (");
            selector.describe(&mut line);
            line.push(b')');
        }
        line
    }

    /// All selectors, the first one first.
    pub(in crate::resp) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.others)
    }
}

fn checked(hash: &[u8]) -> Result<&str, Why> {
    let digits = hash
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hash.len() != 64 || !digits {
        return Err(HASH);
    }
    std::str::from_utf8(hash).map_err(|_| HASH)
}

/// Puts together the rules of a selector that came as several arguments: from one that begins with `(` to one that ends with `)`.
/// `Err`: the one that begins a selector without an end.
pub(in crate::resp) fn merged<'a>(
    rules: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Vec<u8>>, &'a [u8]> {
    let mut all = Vec::new();
    let mut open: Option<(Vec<u8>, &[u8])> = None;
    for rule in rules {
        match &mut open {
            None if rule.starts_with(b"(") && !rule.ends_with(b")") => {
                open = Some((rule.to_vec(), rule));
            }
            None => all.push(rule.to_vec()),
            Some((selector, _)) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
                if rule.ends_with(b")") {
                    all.extend(open.take().map(|(selector, _)| selector));
                }
            }
        }
    }
    match open {
        Some((_, begins)) => Err(begins),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rules: &str) -> Result<String, Why> {
        let mut draft = Draft::new(false);
        for rule in merged(rules.split(' ').map(str::as_bytes)).map_err(|_| "open")? {
            draft.apply(&rule, false)?;
        }
        Ok(String::from_utf8(draft.line("u")).unwrap())
    }

    const ONE: &str = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";

    #[test]
    fn rules_and_what_is_shown() {
        for (rules, shown) in [
            ("", "off resetchannels -@all"),
            ("on nopass ~* &* +@all", "on nopass ~* &* +@all"),
            ("+@ALL AllKeys ALLCHANNELS", "off ~* &* +@all"),
            (
                "~a* %R~b %rw~c %W~d &x &y +get",
                "off ~a* %R~b ~c %W~d resetchannels &x &y -@all +get",
            ),
            ("%R~a %W~a &x &x ~b ~b", "off ~a ~b resetchannels &x -@all"),
            ("%RW", "off ~ resetchannels -@all"),
            (
                "(+get ~a ) ( %R~b ) (&*) ()",
                "off resetchannels -@all (~a resetchannels -@all +get) (%R~b resetchannels -@all) (&* -@all) (resetchannels -@all)",
            ),
            ("(+get) clearselectors", "off resetchannels -@all"),
            (
                "on ~a (+get) >1 +@all reset ~b",
                "off ~b resetchannels -@all",
            ),
            (
                "~* resetkeys ~b &* resetchannels &c",
                "off ~b resetchannels &c -@all",
            ),
            (
                "sanitize-payload skip-sanitize-payload alldbs",
                "off resetchannels -@all",
            ),
        ] {
            assert_eq!(said(rules), Ok(format!("user u {shown}")), "{rules}");
        }
        assert_eq!(
            said("nopass >1 >1"),
            Ok(format!("user u off #{ONE} resetchannels -@all"))
        );
        for rules in [
            format!("#{ONE} <1"),
            format!(">1 !{ONE}"),
            ">1 resetpass".into(),
        ] {
            assert_eq!(said(&rules), said(""), "{rules}");
        }
        assert!(said(">1 nopass").is_ok_and(|line| line.contains("off nopass reset")));
    }

    #[test]
    fn what_is_refused() {
        for (rules, why) in [
            ("foo", SYNTAX),
            (")", SYNTAX),
            ("%~", SYNTAX),
            ("%", SYNTAX),
            ("%RR~x", SYNTAX),
            ("%RX~x", SYNTAX),
            ("~a\tb", SYNTAX),
            ("&a\0b", SYNTAX),
            ("(foo)", SYNTAX),
            ("(+get (+set )", SYNTAX),
            ("+foo", UNKNOWN),
            ("(+foo)", UNKNOWN),
            ("+config|get|x", NESTED),
            ("~* ~x", ALL_KEYS),
            ("~* %R~x", ALL_KEYS),
            ("&* &x", ALL_CHANNELS),
            ("(&* &x)", ALL_CHANNELS),
            ("#abc", HASH),
            ("!abc", HASH),
            ("<abc", NO_PASSWORD),
            ("db=1", DATABASES),
            ("resetdbs", DATABASES),
            ("(+get", "open"),
        ] {
            assert_eq!(said(rules), Err(why), "{rules}");
        }
        assert_eq!(said(&format!("#{}", ONE.to_uppercase())), Err(HASH));
        assert_eq!(said(&format!("~{}", "a".repeat(1025))), Err(TOO_LONG));
        let long = format!(">{}", "a".repeat(PASSWORD_MAX + 1));
        assert_eq!(said(&long), Err(LONG_PASSWORD));
        assert!(said(&long[..=PASSWORD_MAX]).is_ok());
        let many: Vec<String> = (0..=PATTERNS_MAX).map(|n| format!("~{n}")).collect();
        assert_eq!(said(&many.join(" ")), Err(TOO_MANY));
        assert_eq!(said(&"() ".repeat(SELECTORS_MAX + 1)), Err(TOO_MANY));
    }
}
