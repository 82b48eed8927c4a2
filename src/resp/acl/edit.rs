//! `ACL SETUSER` and `DELUSER`: a draft becomes settings, grants and a restriction, in one record with its row of the audit log.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use broker::access::{
    self, AccessError, Credential, CredentialKind, DEFAULT, GRANTS_MAX, Grant, Identity, Kind,
    Namespace, Pattern, Principal, Restriction, Scope, Settings, Share, Shares, Verbs, Wanted,
};
use broker::{Effects, Locked, Lsn, Millis, ShardId};

use super::draft::{Draft, Patterns, Selector, Why, is_space, merged};
use super::view::{View, gives, is_shown, needs, shares};
use crate::audit::{Event, Outcome};
use crate::config::Face;
use crate::node::Node;
use crate::resp::commands;
use crate::resp::fail::{Fail, lossy};
use crate::resp::permission::BOTH;

/// Rules of one `ACL SETUSER`.
const RULES_MAX: usize = 4096;
/// Words of them, those of selectors each by itself: what they make is kept in less.
const WORDS_MAX: usize = 8192;
/// Octets of them together: what is kept of them is less (`RESTRICTION_MAX`), but some may take others back.
const RULES_OCTETS_MAX: usize = 256 << 10;
/// Octets of the rules in the audit log.
const AUDITED: usize = 1024;

/// Who changes something.
#[derive(Debug, Clone, Copy)]
pub(in crate::resp) struct By<'a> {
    pub(in crate::resp) who: &'a Identity,
    pub(in crate::resp) from: IpAddr,
    pub(in crate::resp) face: Face,
    pub(in crate::resp) now: Millis,
    /// `acl-pubsub-default` is `allchannels`.
    pub(in crate::resp) all_channels: bool,
}

/// Rules about one user.
#[derive(Debug)]
pub(in crate::resp) struct Rules<'a> {
    pub(in crate::resp) name: &'a str,
    /// Those of a selector are one.
    rules: Vec<Vec<u8>>,
    /// Nobody has this name yet, but `default`.
    pub(in crate::resp) is_new: bool,
}

impl<'a> Rules<'a> {
    /// `rules` word by word.
    pub(in crate::resp) fn read(name: &'a str, rules: &[&[u8]]) -> Result<Self, Fail> {
        let rules = read(rules)?;
        let is_new = false;
        Ok(Self {
            name,
            rules,
            is_new,
        })
    }
}

/// `ACL SETUSER name rule…`: where the log has it.
pub(in crate::resp) fn set(
    node: &Node,
    by: &By<'_>,
    name: &str,
    rules: &[&[u8]],
) -> Result<Lsn, Fail> {
    let users = [Rules::read(name, rules)?];
    set_all(node, by, "acl setuser", &users).map_err(|(_, fail)| fail)
}

/// The same for all of these users, or none; with an error, at which place the user is that it is about.
pub(in crate::resp) fn set_all(
    node: &Node,
    by: &By<'_>,
    what: &str,
    users: &[Rules<'_>],
) -> Result<Lsn, (Option<usize>, Fail)> {
    let access = &node.broker.access;
    // What rules make of users takes a while, so it is computed before the lock is taken, and again under it only if rights have
    // changed meanwhile.
    let epoch = access.epoch();
    let mut wanted = all_wanted(node, by, users)?;
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    if access.epoch() != epoch {
        wanted = all_wanted(node, by, users)?;
    }
    let mut fx = Effects::new();
    access::put_all(&mut locked, wanted, &mut fx).map_err(|error| (None, refused(&error)))?;
    for user in users {
        note(
            &mut locked,
            by,
            what,
            shown(user.name, &user.rules),
            &mut fx,
        );
    }
    Ok(locked.commit(by.now, &mut fx))
}

fn all_wanted<'n>(
    node: &Node,
    by: &By<'_>,
    users: &[Rules<'n>],
) -> Result<Vec<Wanted<'n>>, (Option<usize>, Fail)> {
    let mut all = Vec::with_capacity(users.len() + 1);
    for (place, user) in users.iter().enumerate() {
        all.push(wanted(node, by, user).map_err(|fail| (Some(place), fail))?);
    }
    // The first user of all would end the open access that `default` is in Redis until somebody ends it.
    if node.auth.knows_nobody() && users.iter().all(|user| user.name != DEFAULT) {
        all.push(Wanted {
            name: DEFAULT,
            settings: Settings {
                enabled: true,
                superuser: true,
                any_password: true,
                ..Settings::default()
            },
            grants: Vec::new(),
        });
    }
    Ok(all)
}

/// Rules as they are taken one by one.
fn read(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, Fail> {
    let octets: usize = rules.iter().map(|rule| rule.len()).sum();
    let words = || {
        let words = rules
            .iter()
            .flat_map(|rule| rule.split(|byte| is_space(*byte)));
        words.filter(|word| !word.is_empty())
    };
    if rules.len() > RULES_MAX || octets > RULES_OCTETS_MAX || words().nth(WORDS_MAX).is_some() {
        return Err(Fail::Text("ERR too many rules for one ACL SETUSER"));
    }
    merged(rules.iter().copied()).map_err(|begins| {
        Fail::Owned(format!(
            "ERR Unmatched parenthesis in acl selector starting at '{}'.",
            lossy(begins, 1024)
        ))
    })
}

/// `ACL DELUSER name…`: how many there were, and where the log has it.
pub(in crate::resp) fn delete<'n>(
    node: &Node,
    by: &By<'_>,
    names: impl Iterator<Item = &'n [u8]>,
) -> Result<(usize, Lsn), Fail> {
    let names: BTreeSet<&str> = names
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect();
    if names.contains(DEFAULT) {
        return Err(Fail::Text("ERR The 'default' user cannot be removed"));
    }
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let access = &node.broker.access;
    // All or none.
    for name in &names {
        if node.auth.is_configured(name) {
            return Err(configured(name));
        }
        if let Some(principal) = access.principal(name) {
            may_touch(by, &principal, &access.grants(Some(name)))?;
        }
    }
    not_the_last(node, &names)?;
    not_all(node, by, &names)?;
    let (mut fx, mut deleted) = (Effects::new(), 0);
    for name in &names {
        if access::remove(&mut locked, name, &mut fx).is_ok() {
            deleted += 1;
            note(&mut locked, by, "acl deluser", (*name).to_owned(), &mut fx);
        }
    }
    let lsn = locked.commit(by.now, &mut fx);
    Ok((deleted, lsn))
}

fn configured(name: &str) -> Fail {
    Fail::Owned(format!(
        "ERR The user '{name}' is of the server's configuration (user, password) and cannot be changed here"
    ))
}

fn refused(error: &AccessError) -> Fail {
    Fail::Owned(format!("ERR {error}"))
}

/// Without anybody who can log in, other machines must not reach the server.
fn not_the_last(node: &Node, names: &BTreeSet<&str>) -> Result<(), Fail> {
    let principals = || node.broker.access.principals();
    if node.config.open_address().is_none() || node.auth.user().is_some() {
        return Ok(());
    }
    let (gone, others): (Vec<_>, Vec<_>) = principals()
        .into_iter()
        .filter(|principal| principal.can_log_in())
        .partition(|principal| names.contains(&*principal.name));
    match gone.first() {
        Some(last) if others.is_empty() => Err(refused(&AccessError::Last(Arc::clone(&last.name)))),
        _ => Ok(()),
    }
}

/// Without any user everybody of this machine is a superuser: only one may make that so.
fn not_all(node: &Node, by: &By<'_>, names: &BTreeSet<&str>) -> Result<(), Fail> {
    let all = node.broker.access.names();
    let stays = all.is_empty() || all.iter().any(|name| !names.contains(&**name));
    if stays || by.who.is_superuser() || node.auth.user().is_some() {
        return Ok(());
    }
    Err(Fail::Text(
        "NOPERM Without users this server is open: only a superuser may remove the last one",
    ))
}

/// Who is no superuser may change users that only Redis clients are: of others its rules would reach further than its own rights.
fn may_touch(by: &By<'_>, principal: &Principal, grants: &[Grant]) -> Result<(), Fail> {
    if by.who.is_superuser() {
        return Ok(());
    }
    let of_redis = |grant: &Grant| matches!(grant.kind, Kind::Key | Kind::Channel | Kind::Redis);
    let mut credentials = principal.credentials.iter();
    let ours = grants.iter().all(of_redis)
        && principal.certificates.is_empty()
        && credentials.all(|credential| is_shown(credential.kind));
    if principal.superuser || !ours {
        return Err(Fail::Owned(format!(
            "NOPERM The user '{}' has rights or passwords besides those of Redis' ACL: only a superuser may change it",
            principal.name
        )));
    }
    Ok(())
}

/// What rules make of a user.
fn wanted<'n>(node: &Node, by: &By<'_>, user: &Rules<'n>) -> Result<Wanted<'n>, Fail> {
    let name = user.name;
    if node.auth.is_configured(name) {
        return Err(configured(name));
    }
    let access = &node.broker.access;
    let known = access.principal(name);
    if user.is_new && known.is_some() && name != DEFAULT {
        return Err(refused(&AccessError::Exists(name.into())));
    }
    let before = match &known {
        Some(principal) => {
            let grants = access.grants(Some(name));
            may_touch(by, principal, &grants)?;
            View::of(principal, grants)
        }
        None => View {
            draft: super::view::implied(node, name).unwrap_or_else(|| Draft::new(by.all_channels)),
            shown: Vec::new(),
            hidden: Vec::new(),
        },
    };
    let mut draft = before.draft.clone();
    for rule in &user.rules {
        draft
            .apply(rule, by.all_channels)
            .map_err(|why| wrong(rule, why))?;
    }
    // `default` before it has a row is whoever is here.
    let superuser = match &known {
        Some(principal) => principal.superuser,
        None => name == DEFAULT && !node.auth.required(),
    };
    let old = known
        .as_ref()
        .map(|known| Settings::of(known))
        .unwrap_or_default();
    let mut settings = settings(&before.draft, &draft, old);
    settings.superuser = superuser;
    if name == DEFAULT {
        may_open(by, known.as_deref(), &settings)?;
    }
    if !superuser || name == DEFAULT {
        can_change(name, &before, &draft)?;
    }
    let same = before.draft.root == draft.root && before.draft.others == draft.others;
    let mut grants = [&before.shown[..], &before.hidden[..]].concat();
    if known.is_none() && !superuser || !same {
        if superuser && name != DEFAULT {
            return Err(Fail::Owned(format!(
                "ERR '{name}' is a superuser, of every protocol: no rule of Redis' ACL can take something away from it"
            )));
        }
        let of_others: usize = draft.others.iter().map(Selector::shares).sum();
        if draft.root.shares() > GRANTS_MAX || of_others > GRANTS_MAX {
            return Err(refused(&AccessError::Grants));
        }
        settings.superuser = false;
        let old = settings.restriction.take();
        let restriction;
        (restriction, grants) = compiled(&name.into(), before, old.as_deref(), &draft);
        settings.restriction = Some(Arc::new(restriction));
    }
    let can_log_in =
        settings.enabled && !(settings.credentials.is_empty() && settings.certificates.is_empty());
    if !can_log_in && known.is_some() {
        not_the_last(node, &BTreeSet::from([name]))?;
    }
    Ok(Wanted {
        name,
        settings,
        grants,
    })
}

/// Whose `default` takes any password lets in who does not log in, on every face: that is for superusers.
fn may_open(by: &By<'_>, known: Option<&Principal>, settings: &Settings) -> Result<(), Fail> {
    let took = known.is_some_and(|known| known.any_password);
    let was_open = took && known.is_some_and(|known| known.enabled);
    let opens = settings.any_password && (!took || (settings.enabled && !was_open));
    if opens && !by.who.is_superuser() {
        return Err(Fail::Text(
            "NOPERM The user 'default' with any password is who does not log in, on every protocol: only a superuser may make it so",
        ));
    }
    Ok(())
}

fn wrong(rule: &[u8], why: Why) -> Fail {
    Fail::Owned(format!(
        "ERR Error in ACL SETUSER modifier '{}': {why}",
        lossy(rule, 1024)
    ))
}

/// Credentials that cannot be shown stay, unless all passwords go.
fn settings(before: &Draft, after: &Draft, mut settings: Settings) -> Settings {
    settings.enabled = after.on;
    settings.any_password = after.nopass;
    if after.forgets {
        settings.credentials.clear();
    }
    if after.forgets || before.passwords != after.passwords {
        settings.credentials.retain(|credential| {
            let shown = std::str::from_utf8(&credential.bytes).unwrap_or_default();
            !is_shown(credential.kind) || after.passwords.iter().any(|kept| **kept == *shown)
        });
        for password in &after.passwords {
            let bytes = password.as_bytes();
            if !settings
                .credentials
                .iter()
                .any(|known| *known.bytes == *bytes)
            {
                settings.credentials.push(Credential {
                    kind: CredentialKind::AclSha256,
                    bytes: bytes.into(),
                });
            }
        }
    }
    settings
}

/// Grants that Redis' words cannot say stay as they are; rules about the same kind of names would mean something else than they say.
fn can_change(name: &str, before: &View, draft: &Draft) -> Result<(), Fail> {
    let of = |draft: &Draft, names: fn(&Selector) -> &Patterns| {
        let each = draft.selectors();
        each.map(|selector| names(selector).clone())
            .collect::<Vec<_>>()
    };
    let keys: fn(&Selector) -> &Patterns = |selector| &selector.keys;
    let channels: fn(&Selector) -> &Patterns = |selector| &selector.channels;
    for (kind, names, resets) in [
        (Kind::Key, keys, draft.resets_keys),
        (Kind::Channel, channels, draft.resets_channels),
    ] {
        let unsaid = before.hidden.iter().any(|grant| grant.kind == kind);
        let clears = draft.resets_selectors && !before.draft.others.is_empty();
        if unsaid && (resets || clears || of(&before.draft, names) != of(draft, names)) {
            return Err(Fail::Owned(format!(
                "ERR '{name}' has grants of kind {} that Redis' ACL cannot say: change them with flowmesh grant",
                kind.word()
            )));
        }
    }
    Ok(())
}

/// What the draft is as a restriction and as grants. What it cannot say stays, and counts with the same selectors as before.
fn compiled(
    name: &Arc<str>,
    before: View,
    old: Option<&Restriction>,
    draft: &Draft,
) -> (Restriction, Vec<Grant>) {
    let root: Shares = shares(&draft.root).into_iter().collect();
    let each = draft.others.iter();
    let mut others: Vec<Shares> = each
        .map(|other| shares(other).into_iter().collect())
        .collect();
    let mut all = root.clone();
    let of_others = others.iter().flat_map(Shares::iter);
    of_others.for_each(|share| all.add(share.clone()));
    // Selectors are only added where all is said, so those of before are at the same places.
    let stays: Shares = objects(&before.hidden).map(Share::of).collect();
    for (own, old) in others
        .iter_mut()
        .zip(old.iter().flat_map(|old| &old.selectors))
    {
        let kept = old.shares.iter();
        let kept = kept.filter(|share| !stays.verbs(share).is_empty());
        kept.for_each(|share| own.add(share.clone()));
    }
    let restriction = Restriction {
        commands: draft.root.commands.to_string().into(),
        hidden: hidden(&before, old, root, &all),
        selectors: draft
            .others
            .iter()
            .zip(others)
            .map(|(selector, shares)| access::Selector {
                commands: selector.commands.to_string().into(),
                shares: shares.into_vec(),
            })
            .collect(),
    };
    // Verbs that Redis does not know stay as long as their names.
    let shown: Shares = objects(&before.shown).map(Share::of).collect();
    let mut grants = before.hidden;
    for grant in &mut grants {
        grant.verbs = grant.verbs.and(all.of(grant));
    }
    let server = of_server(draft, &grants);
    for share in all.iter().filter(|share| stays.verbs(share).is_empty()) {
        let mut grant = share.grant(name);
        grant.verbs = grant.verbs.and(shown.verbs(share).without(BOTH));
        grants.push(grant);
    }
    grants.extend(server.iter().map(|share| share.grant(name)));
    (restriction, grants)
}

/// Grants that a selector can share.
fn objects(grants: &[Grant]) -> impl Iterator<Item = &Grant> {
    let is_object = |grant: &&Grant| matches!(grant.kind, Kind::Key | Kind::Channel);
    grants
        .iter()
        .filter(move |grant| !grant.deny && is_object(grant))
}

/// What the first selector has not, of the shares of all and of the grants that stay.
fn hidden(view: &View, old: Option<&Restriction>, root: Shares, all: &Shares) -> Vec<Share> {
    let before = old.map(Restriction::hidden).unwrap_or_default();
    let (mut first, mut whole) = (root, all.clone());
    let mut stay = |grant: &Grant, verbs: Verbs, later: Verbs| {
        let hidden = before.of(grant);
        let share = |verbs| Share {
            verbs,
            ..Share::of(grant)
        };
        first.add(share(verbs.without(hidden)));
        // What is hidden stays so if the verb is granted again.
        whole.add(share(verbs.and(later)));
    };
    objects(&view.hidden).for_each(|grant| stay(grant, grant.verbs, before.of(grant)));
    for grant in objects(&view.shown) {
        if !all.of(grant).is_empty() {
            stay(grant, grant.verbs.without(BOTH), Verbs::NONE);
        }
    }
    let hidden = whole.iter().map(|share| Share {
        verbs: share.verbs.without(first.verbs(share)),
        ..share.clone()
    });
    hidden.filter(|share| !share.verbs.is_empty()).collect()
}

/// What the commands need of the server, and no grant of kind admin gives: that one must be able to take it back.
fn of_server(draft: &Draft, stay: &[Grant]) -> Shares {
    let mut needed = Shares::default();
    for (_, spec) in commands::all() {
        for spec in std::iter::once(spec).chain(spec.sub) {
            let Some((area, verb, admin)) = needs(spec) else {
                continue;
            };
            let share = Share {
                scope: Scope::In(Namespace::DEFAULT),
                kind: Kind::Redis,
                pattern: Pattern::Literal(area.as_bytes().into()),
                verbs: verb,
            };
            let known = needed.verbs(&share).has(verb);
            let passes = || {
                let mut selectors = draft.selectors();
                selectors.any(|selector| selector.commands.may_pass(spec))
            };
            if !known && passes() && !(admin && gives(stay, Kind::Admin, area, verb)) {
                needed.add(share);
            }
        }
    }
    needed
}

/// The rules as the audit log has them: without passwords.
fn shown(name: &str, rules: &[Vec<u8>]) -> String {
    let mut text = name.to_owned();
    for rule in rules {
        if text.len() >= AUDITED {
            text.push_str(" …");
            break;
        }
        text.push(' ');
        match rule.first() {
            Some(sign @ (b'>' | b'<' | b'#' | b'!')) => {
                text.push(char::from(*sign));
                text.push_str("(redacted)");
            }
            _ => text.push_str(&lossy(rule, AUDITED)),
        }
    }
    text
}

fn note(locked: &mut Locked<'_>, by: &By<'_>, what: &str, object: String, fx: &mut Effects) {
    let who = by.who.name().unwrap_or_default();
    tracing::info!(user = %object.escape_debug(), by = who, what);
    let event = Event {
        face: by.face,
        who: who.to_owned(),
        from: Some(by.from),
        what: what.to_owned(),
        object,
        outcome: Outcome::Changed,
    };
    event.write(locked, by.now, fx);
}

#[cfg(test)]
mod tests;
