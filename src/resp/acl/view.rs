//! How a principal looks in Redis' words: never more than it may do.
//!
//! What the words cannot say is left out: names with spaces, verbs besides reading and writing, patterns that a denial takes
//! something from, keys that are not in all the databases that are shown, commands whose grants are missing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use broker::access::{
    CredentialKind, Grant, Kind, Namespace, Pattern, Principal, Restriction, Scope, Share, Shares,
    Verbs,
};

use super::draft::{Draft, Patterns, Selector, is_space};
use super::rules::CommandRules;
use crate::node::Node;
use crate::resp::commands;
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::Spec;

/// Denials of one principal that patterns are compared with, each with each; of one with more, no pattern is said.
const DENIALS_MAX: usize = 256;

/// A name of one scope that a selector shares.
type Item<'a> = (Scope, &'a Pattern, Verbs);

/// A principal as `ACL GETUSER` shows it, and what `ACL SETUSER` must know besides.
#[derive(Debug)]
pub(in crate::resp) struct View {
    pub(in crate::resp) draft: Draft,
    /// Grants that the draft says; they go when it does not any more.
    pub(in crate::resp) shown: Vec<Grant>,
    /// The others, which stay.
    pub(in crate::resp) hidden: Vec<Grant>,
}

impl View {
    /// Of a principal with its grants.
    pub(in crate::resp) fn of(principal: &Principal, grants: Vec<Grant>) -> Self {
        let denials: Vec<Grant> = grants.iter().filter(|grant| grant.deny).cloned().collect();
        let (shown, hidden): (Vec<Grant>, Vec<Grant>) = grants
            .into_iter()
            .partition(|grant| can_say(grant, &denials));
        let mut view = Self {
            draft: Draft {
                on: principal.enabled,
                nopass: principal.any_password,
                passwords: passwords(principal),
                ..Draft::new(false)
            },
            shown,
            hidden,
        };
        if principal.superuser {
            view.draft.root = Selector::whole();
        } else {
            view.say_selectors(principal.restriction.as_deref());
        }
        view
    }

    fn say_selectors(&mut self, restriction: Option<&Restriction>) {
        let scopes = self.scopes();
        // What is in another database than those cannot be said either.
        let (shown, elsewhere): (Vec<Grant>, Vec<Grant>) = std::mem::take(&mut self.shown)
            .into_iter()
            .partition(|grant| grant.kind != Kind::Key || holds_in(grant.scope, &scopes));
        self.hidden.extend(elsewhere);
        let none = Restriction {
            commands: CommandRules::whole(true).to_string().into(),
            ..Restriction::default()
        };
        let restriction = restriction.unwrap_or(&none);
        let lacking = lacking(&[&shown[..], &self.hidden[..]].concat());
        let hidden = restriction.hidden();
        let mut unsaid = HashSet::new();
        let first = |kind| {
            let of_kind = shown.iter().filter(move |grant| grant.kind == kind);
            of_kind.map(|grant| {
                let verbs = grant.verbs.without(hidden.of(grant));
                (grant.scope, &grant.pattern, verbs)
            })
        };
        self.draft.root = Selector {
            commands: without(&restriction.commands, &lacking),
            keys: patterns(Kind::Key, scopes.len(), first(Kind::Key), &mut unsaid),
            channels: patterns(Kind::Channel, 1, first(Kind::Channel), &mut unsaid),
            scopes: scopes.clone(),
        };
        let granted: Shares = shown.iter().map(Share::of).collect();
        for selector in &restriction.selectors {
            // As far as there is still a grant for it.
            let own = |kind| {
                let of_kind = selector.shares.iter().filter(move |own| own.kind == kind);
                of_kind.filter_map(|own| {
                    let verbs = own.verbs.without(own.verbs.without(granted.verbs(own)));
                    (!verbs.is_empty()).then_some((own.scope, &own.pattern, verbs))
                })
            };
            self.draft.others.push(Selector {
                commands: without(&selector.commands, &lacking),
                keys: patterns(Kind::Key, scopes.len(), own(Kind::Key), &mut unsaid),
                channels: patterns(Kind::Channel, 1, own(Kind::Channel), &mut unsaid),
                scopes: scopes.clone(),
            });
        }
        let said: Vec<bool> = shown
            .iter()
            .map(|grant| !unsaid.contains(&(grant.scope, grant.kind, &grant.pattern)))
            .collect();
        for (grant, said) in shown.into_iter().zip(said) {
            let to = if said {
                &mut self.shown
            } else {
                &mut self.hidden
            };
            to.push(grant);
        }
    }

    /// Where the keys are that can be said: everywhere, if any are, or else in the databases that some are in.
    fn scopes(&self) -> Vec<Scope> {
        let keys = self.shown.iter().filter(|grant| grant.kind == Kind::Key);
        let scopes: BTreeSet<Scope> = keys.map(|grant| grant.scope).collect();
        if scopes.is_empty() || scopes.contains(&Scope::Every) {
            return vec![Scope::Every];
        }
        scopes.into_iter().collect()
    }
}

/// The names that a selector shares, each with the verbs that it has in all of so many scopes. Which of them do not say all that
/// is shared goes to `unsaid`.
fn patterns<'a>(
    kind: Kind,
    scopes: usize,
    items: impl Iterator<Item = Item<'a>> + Clone,
    unsaid: &mut HashSet<(Scope, Kind, &'a Pattern)>,
) -> Patterns {
    let both = |verbs: Verbs| verbs.without(verbs.without(BOTH));
    let (mut places, mut each) = (HashMap::new(), Vec::<(&Pattern, Verbs, usize)>::new());
    for (_, pattern, verbs) in items.clone() {
        let place = *places.entry(pattern).or_insert(each.len());
        match each.get_mut(place) {
            Some((_, known, count)) => {
                *known = known.without(known.without(both(verbs)));
                *count += 1;
            }
            None => each.push((pattern, both(verbs), 1)),
        }
    }
    for (_, verbs, count) in &mut each {
        if *count < scopes || !(*verbs == BOTH || kind == Kind::Key) {
            *verbs = Verbs::NONE;
        }
    }
    let verbs = |pattern: &Pattern| {
        let said = places.get(pattern).and_then(|place| each.get(*place));
        said.map_or(Verbs::NONE, |(_, verbs, _)| *verbs)
    };
    if verbs(&Pattern::Prefix(Box::default())) == BOTH {
        return Patterns::All;
    }
    let more = items.filter(|(_, pattern, given)| !verbs(pattern).has(both(*given)));
    unsaid.extend(more.map(|(scope, pattern, _)| (scope, kind, pattern)));
    let said = each.iter().filter(|(_, verbs, _)| !verbs.is_empty());
    Patterns::These(
        said.map(|(pattern, verbs, _)| (glob(pattern), *verbs))
            .collect(),
    )
}

/// Commands of the server that no grant allows.
fn lacking(grants: &[Grant]) -> Vec<&'static Spec> {
    let of_server = |grant: &&Grant| matches!(grant.kind, Kind::Redis | Kind::Admin);
    let grants: Vec<Grant> = grants.iter().filter(of_server).cloned().collect();
    let denied = |spec: &&Spec| {
        needs(spec).is_some_and(|(area, verb, admin)| {
            let by_redis = gives(&grants, Kind::Redis, area, verb);
            !(by_redis || admin && gives(&grants, Kind::Admin, area, verb))
        })
    };
    commands::all()
        .flat_map(|(_, spec)| std::iter::once(spec).chain(spec.sub))
        .filter(denied)
        .collect()
}

/// Whether grants of a kind give something of an area of the server.
pub(super) fn gives(grants: &[Grant], kind: Kind, area: &str, verb: Verbs) -> bool {
    let about = || {
        grants.iter().filter(|grant| {
            grant.kind == kind && is_default(grant.scope) && means(&grant.pattern, area)
        })
    };
    let allowed = about()
        .filter(|grant| !grant.deny)
        .fold(Verbs::NONE, |all, grant| all.and(grant.verbs));
    let denied = about().any(|grant| grant.deny && grant.verbs.meets(verb));
    // Whoever may do anything may describe.
    let describes = verb == Verbs::DESCRIBE && !allowed.is_empty();
    (allowed.has(verb) || describes) && !denied
}

/// The rules, without these commands.
fn without(text: &str, lacking: &[&Spec]) -> CommandRules {
    let mut rules = CommandRules::stored(text);
    for spec in lacking {
        if rules.may_pass(spec) {
            // A name of the table is no mistake.
            let _ = rules.say(&format!("-{}", spec.name));
        }
    }
    rules
}

/// A command's area of the server with the verb, and whether a grant of kind admin gives it too.
pub(super) fn needs(spec: &Spec) -> Option<(&'static str, Verbs, bool)> {
    match spec.rights {
        Rights::Admin(area, verb) => Some((area, verb, true)),
        Rights::Redis(area, verb) => Some((area, verb, false)),
        _ => None,
    }
}

/// Does a pattern mean this area of the server? Areas are short.
fn means(pattern: &Pattern, area: &str) -> bool {
    match pattern {
        Pattern::Literal(text) => **text == *area.as_bytes(),
        Pattern::Prefix(text) => area.as_bytes().starts_with(text),
        Pattern::Glob(text) => broker::cache::matches(text, area.as_bytes()),
    }
}

/// Where channels and the server are.
fn is_default(scope: Scope) -> bool {
    holds_in(scope, &[Scope::Every, Scope::In(Namespace::DEFAULT)])
}

fn holds_in(scope: Scope, scopes: &[Scope]) -> bool {
    scope == Scope::Every || scopes.contains(&scope)
}

/// Can Redis' words say all that the grant gives, and nothing that a denial takes?
fn can_say(grant: &Grant, denials: &[Grant]) -> bool {
    if grant.deny {
        return false;
    }
    match grant.kind {
        // They are said with the commands.
        Kind::Redis => true,
        Kind::Key | Kind::Channel if denials.len() > DENIALS_MAX => false,
        Kind::Key | Kind::Channel => {
            let in_place = grant.kind == Kind::Key || is_default(grant.scope);
            let said = glob(&grant.pattern);
            in_place
                && grant.verbs.meets(BOTH)
                && (grant.kind == Kind::Key || grant.verbs.has(BOTH))
                && !said.iter().any(|byte| is_space(*byte))
                && !denials.iter().any(|denial| {
                    denial.kind == grant.kind
                        && denial.verbs.meets(BOTH.and(Verbs::DESCRIBE))
                        && denial.pattern.may_meet(&said)
                })
        }
        _ => false,
    }
}

/// The pattern as a glob of Redis.
fn glob(pattern: &Pattern) -> Box<[u8]> {
    let plain = |text: &[u8]| {
        let mut glob = Vec::with_capacity(text.len() + 1);
        for byte in text {
            if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
                glob.push(b'\\');
            }
            glob.push(*byte);
        }
        glob
    };
    match pattern {
        Pattern::Literal(text) => plain(text).into(),
        Pattern::Prefix(text) => {
            let mut glob = plain(text);
            glob.push(b'*');
            glob.into()
        }
        Pattern::Glob(text) => text.clone(),
    }
}

/// Those that are SHA-256 hashes.
fn passwords(principal: &Principal) -> Vec<Box<str>> {
    let credentials = principal.credentials.iter();
    credentials
        .filter(|credential| is_shown(credential.kind))
        .filter_map(|credential| Some(std::str::from_utf8(&credential.bytes).ok()?.into()))
        .collect()
}

/// Whether a credential of this kind is a hash as Redis shows it.
pub(super) const fn is_shown(kind: CredentialKind) -> bool {
    matches!(
        kind,
        CredentialKind::AclSha256 | CredentialKind::RedisSha256
    )
}

/// What a selector's patterns are as grants.
pub(super) fn shares(selector: &Selector) -> Vec<Share> {
    let mut shares = Vec::new();
    let mut add = |scope, kind, text: &[u8], verbs| {
        if let Some(pattern) = pattern(text) {
            shares.push(Share {
                scope,
                kind,
                pattern,
                verbs,
            });
        }
    };
    let everything: [(Box<[u8]>, Verbs); 1] = [(b"*"[..].into(), BOTH)];
    let each = |patterns: &Patterns| match patterns {
        Patterns::All => everything.to_vec(),
        Patterns::These(these) => these.clone(),
    };
    for scope in &selector.scopes {
        for (text, verbs) in each(&selector.keys) {
            add(*scope, Kind::Key, &text, verbs);
        }
    }
    for (text, verbs) in each(&selector.channels) {
        add(Scope::In(Namespace::DEFAULT), Kind::Channel, &text, verbs);
    }
    shares
}

/// The reverse of [`glob`]. Lengths were checked; a literal that was escaped is the literal again.
fn pattern(text: &[u8]) -> Option<Pattern> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [b'\\', byte, tail @ ..] => {
                plain.push(*byte);
                rest = tail;
            }
            [] => return Pattern::literal(&plain),
            b"*" => return Pattern::prefix(&plain),
            [b'*' | b'?' | b'[' | b'\\', ..] => return Pattern::glob(text),
            [byte, tail @ ..] => {
                plain.push(*byte);
                rest = tail;
            }
        }
    }
}

/// The names of everybody that Redis clients can be, in order.
pub(in crate::resp) fn names(node: &Node) -> Vec<Arc<str>> {
    let mut all = node.broker.access.names();
    all.retain(|name| !node.auth.is_configured(name));
    for name in [Some(broker::access::DEFAULT), node.auth.user()] {
        if let Some(name) = name
            && let Err(place) = all.binary_search_by(|known| (**known).cmp(name))
        {
            all.insert(place, name.into());
        }
    }
    all
}

/// Everybody that Redis clients can be, by name.
pub(in crate::resp) fn everybody(node: &Node) -> Vec<(String, Draft)> {
    let principals = node.broker.access.all().into_iter();
    let mut all: Vec<(String, Draft)> = principals
        .filter(|(principal, _)| !node.auth.is_configured(&principal.name))
        .map(|(principal, grants)| {
            let name = principal.name.to_string();
            (name, View::of(&principal, grants).draft)
        })
        .collect();
    for name in [Some(broker::access::DEFAULT), node.auth.user()]
        .into_iter()
        .flatten()
    {
        if let Some(draft) = implied(node, name)
            && all.iter().all(|(known, _)| known != name)
        {
            all.push((name.to_owned(), draft));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// One of them.
pub(in crate::resp) fn somebody(node: &Node, name: &str) -> Option<Draft> {
    if let Some(draft) = implied(node, name) {
        return Some(draft);
    }
    let principal = node.broker.access.principal(name)?;
    Some(View::of(&principal, node.broker.access.grants(Some(name))).draft)
}

/// Who is not in the catalog: the configured principal under both its names, whose password is not shown, and `default`, who may
/// do everything while there is nobody else, and nothing afterwards.
pub(in crate::resp) fn implied(node: &Node, name: &str) -> Option<Draft> {
    let whole = |nopass| Draft {
        on: true,
        nopass,
        root: Selector::whole(),
        ..Draft::new(false)
    };
    if node.auth.is_configured(name) {
        return Some(whole(false));
    }
    let absent = node.broker.access.principal(name).is_none();
    (name == broker::access::DEFAULT && absent).then(|| {
        if node.auth.required() {
            Draft::new(false)
        } else {
            whole(true)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(deny: bool, scope: &str, kind: Kind, pattern: Pattern, verbs: Verbs) -> Grant {
        Grant {
            principal: "u".into(),
            scope: Scope::parse(scope).unwrap(),
            kind,
            pattern,
            verbs,
            deny,
        }
    }

    fn shown(grants: Vec<Grant>) -> String {
        let principal = Principal {
            name: "u".into(),
            id: 1,
            enabled: true,
            superuser: false,
            any_password: false,
            credentials: Vec::new(),
            certificates: Vec::new(),
            restriction: None,
        };
        let line = View::of(&principal, grants).draft.line("u");
        let line = String::from_utf8(line).unwrap();
        // Commands are another test's.
        line[..line.find(" +@all").unwrap()].to_owned()
    }

    fn key(scope: &str, text: &str, verbs: Verbs) -> Grant {
        give(
            false,
            scope,
            Kind::Key,
            Pattern::glob(text.as_bytes()).unwrap(),
            verbs,
        )
    }

    #[test]
    fn grants_of_elsewhere_are_never_shown_as_more() {
        for (grants, want) in [
            (vec![], "user u on resetchannels"),
            (vec![key("*", "*", BOTH)], "user u on ~* resetchannels"),
            (
                vec![key("*", "a*", Verbs::READ), key("*", "b", Verbs::ALL)],
                "user u on %R~a* ~b resetchannels",
            ),
            (
                vec![key("*", "a", Verbs::DESCRIBE)],
                "user u on resetchannels",
            ),
            (
                vec![key("default", "a", BOTH)],
                "user u on ~a resetchannels db=0",
            ),
            (
                vec![key("default", "a", BOTH), key("db3", "a", Verbs::READ)],
                "user u on %R~a resetchannels db=0,3",
            ),
            (
                vec![key("default", "a", BOTH), key("db3", "b", Verbs::READ)],
                "user u on resetchannels db=0,3",
            ),
            (
                vec![key("default", "a", BOTH), key("*", "b", BOTH)],
                "user u on ~b resetchannels",
            ),
            (
                vec![
                    key("*", "a:*", BOTH),
                    key("*", "b:*", BOTH),
                    give(
                        true,
                        "db3",
                        Kind::Key,
                        Pattern::literal(b"a:x").unwrap(),
                        Verbs::READ,
                    ),
                ],
                "user u on ~b:* resetchannels",
            ),
            (vec![key("*", "a b", BOTH)], "user u on resetchannels"),
            (
                vec![give(
                    false,
                    "*",
                    Kind::Key,
                    Pattern::literal(b"a*b").unwrap(),
                    BOTH,
                )],
                r"user u on ~a\*b resetchannels",
            ),
            (
                vec![
                    give(
                        false,
                        "default",
                        Kind::Channel,
                        Pattern::glob(b"n.*").unwrap(),
                        BOTH,
                    ),
                    give(
                        false,
                        "default",
                        Kind::Channel,
                        Pattern::glob(b"m").unwrap(),
                        Verbs::READ,
                    ),
                    give(
                        false,
                        "db1",
                        Kind::Channel,
                        Pattern::glob(b"o").unwrap(),
                        BOTH,
                    ),
                ],
                "user u on resetchannels &n.*",
            ),
            (
                vec![give(
                    false,
                    "*",
                    Kind::Queue,
                    Pattern::glob(b"*").unwrap(),
                    Verbs::ALL,
                )],
                "user u on resetchannels",
            ),
        ] {
            assert_eq!(shown(grants.clone()), want, "{grants:?}");
        }
    }

    #[test]
    fn a_pattern_is_said_and_understood() {
        for (text, want) in [
            ("", Pattern::Literal(b""[..].into())),
            ("*", Pattern::Prefix(b""[..].into())),
            ("a*", Pattern::Prefix(b"a"[..].into())),
            (r"a\*", Pattern::Literal(b"a*"[..].into())),
            (r"a\**", Pattern::Prefix(b"a*"[..].into())),
            ("a?*", Pattern::Glob(b"a?*"[..].into())),
            ("a**", Pattern::Glob(b"a**"[..].into())),
            (r"a\", Pattern::Glob(br"a\"[..].into())),
        ] {
            let read = pattern(text.as_bytes()).unwrap();
            assert_eq!(read, want, "{text}");
            assert_eq!(&*glob(&read), text.as_bytes(), "{text}");
        }
    }
}
