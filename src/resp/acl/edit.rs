//! `ACL SETUSER` and `DELUSER`: a draft becomes settings, grants and a restriction, in one record with its row of the audit log.

use std::net::IpAddr;
use std::sync::Arc;

use broker::access::{
    self, AccessError, Credential, CredentialKind, DEFAULT, Grant, Identity, Kind, Namespace,
    Pattern, Principal, Restriction, Scope, Settings, Share, Verbs,
};
use broker::{Effects, Locked, Lsn, Millis, ShardId};

use super::draft::{Draft, Patterns, Selector, Why, merged};
use super::view::{View, is_shown, needs, shares};
use crate::audit::{Event, Outcome};
use crate::config::Face;
use crate::node::Node;
use crate::resp::commands;
use crate::resp::fail::{Fail, lossy};

/// Rules of one `ACL SETUSER`.
const RULES_MAX: usize = 4096;
/// Octets of them together: what is kept of them is less (`RESTRICTION_MAX`), but some may take others back.
const RULES_OCTETS_MAX: usize = 256 << 10;
/// Octets of the rules in the audit log.
const AUDITED: usize = 1024;

/// Who changes something.
#[derive(Debug, Clone, Copy)]
pub(in crate::resp) struct By<'a> {
    pub(in crate::resp) who: &'a Identity,
    pub(in crate::resp) from: IpAddr,
    pub(in crate::resp) now: Millis,
    /// `acl-pubsub-default` is `allchannels`.
    pub(in crate::resp) all_channels: bool,
}

/// `ACL SETUSER name rule…`: where the log has it.
pub(in crate::resp) fn set(
    node: &Node,
    by: &By<'_>,
    name: &str,
    rules: &[&[u8]],
) -> Result<Lsn, Fail> {
    let octets: usize = rules.iter().map(|rule| rule.len()).sum();
    if rules.len() > RULES_MAX || octets > RULES_OCTETS_MAX {
        return Err(Fail::Text("ERR too many rules for one ACL SETUSER"));
    }
    let rules = merged(rules.iter().copied()).map_err(|begins| {
        Fail::Owned(format!(
            "ERR Unmatched parenthesis in acl selector starting at '{}'.",
            lossy(begins, 1024)
        ))
    })?;
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let mut fx = Effects::new();
    let done = change(node, &mut locked, by, name, &rules, &mut fx);
    if done.is_ok() {
        note(&mut locked, by, "acl setuser", shown(name, &rules), &mut fx);
    } else {
        fx.clear();
    }
    let lsn = locked.commit(by.now, &mut fx);
    done.map(|()| lsn)
}

/// `ACL DELUSER name…`: how many there were, and where the log has it.
pub(in crate::resp) fn delete<'n>(
    node: &Node,
    by: &By<'_>,
    names: impl Iterator<Item = &'n [u8]>,
) -> Result<(usize, Lsn), Fail> {
    let names: Vec<&str> = names
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect();
    if names.contains(&DEFAULT) {
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
fn not_the_last(node: &Node, names: &[&str]) -> Result<(), Fail> {
    let principals = || node.broker.access.principals();
    if node.config.open_address().is_none() || node.auth.user().is_some() {
        return Ok(());
    }
    let (gone, others): (Vec<_>, Vec<_>) = principals()
        .into_iter()
        .filter(|principal| principal.can_log_in())
        .partition(|principal| names.contains(&&*principal.name));
    match gone.first() {
        Some(last) if others.is_empty() => Err(refused(&AccessError::Last(Arc::clone(&last.name)))),
        _ => Ok(()),
    }
}

/// Who is no superuser may change users that only Redis clients are: of others its rules would reach further than its own rights.
fn may_touch(by: &By<'_>, principal: &Principal, grants: &[Grant]) -> Result<(), Fail> {
    if by.who.is_superuser() {
        return Ok(());
    }
    let of_redis = |grant: &Grant| matches!(grant.kind, Kind::Key | Kind::Channel | Kind::Redis);
    let ours = grants.iter().all(of_redis) && principal.certificates.is_empty();
    if principal.superuser || !ours {
        return Err(Fail::Owned(format!(
            "NOPERM The user '{}' has rights besides those of Redis' ACL: only a superuser may change it",
            principal.name
        )));
    }
    Ok(())
}

fn change(
    node: &Node,
    locked: &mut Locked<'_>,
    by: &By<'_>,
    name: &str,
    rules: &[Vec<u8>],
    fx: &mut Effects,
) -> Result<(), Fail> {
    if node.auth.is_configured(name) {
        return Err(configured(name));
    }
    let access = &node.broker.access;
    let known = access.principal(name);
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
    for rule in rules {
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
    if !superuser {
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
        settings.superuser = false;
        let (restriction, own) = compiled(&draft);
        settings.restriction = Some(Arc::new(restriction));
        let name: Arc<str> = name.into();
        grants = before.hidden;
        for share in own {
            // What is denied by the same names stays denied.
            let known = grants.iter_mut().find(|grant| share.is_of(grant));
            match known {
                Some(grant) => grant.verbs = grant.verbs.and(share.verbs),
                None => grants.push(share.grant(&name)),
            }
        }
    }
    let can_log_in =
        settings.enabled && !(settings.credentials.is_empty() && settings.certificates.is_empty());
    if !can_log_in && known.is_some() {
        not_the_last(node, &[name])?;
    }
    // The first user of all would end the open access that `default` is in Redis until somebody ends it.
    if access.is_empty() && name != DEFAULT && !node.auth.required() {
        let open = Settings {
            enabled: true,
            superuser: true,
            any_password: true,
            ..Settings::default()
        };
        access::put(locked, DEFAULT, open, Vec::new(), fx).map_err(|error| refused(&error))?;
    }
    access::put(locked, name, settings, grants, fx).map_err(|error| refused(&error))
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
        if unsaid && (resets || of(&before.draft, names) != of(draft, names)) {
            return Err(Fail::Owned(format!(
                "ERR '{name}' has grants of kind {} that Redis' ACL cannot say: change them with flowmesh grant",
                kind.word()
            )));
        }
    }
    Ok(())
}

/// What the draft is as a restriction and as grants.
fn compiled(draft: &Draft) -> (Restriction, Vec<Share>) {
    let root = shares(&draft.root);
    let others: Vec<Vec<Share>> = draft.others.iter().map(shares).collect();
    let mut all: Vec<Share> = Vec::new();
    for share in root.iter().chain(others.iter().flatten()) {
        add(&mut all, share.clone());
    }
    let mut hidden = Vec::new();
    for share in &all {
        let own = root.iter().filter(|own| is_about(own, share));
        let own = own.fold(Verbs::NONE, |verbs, own| verbs.and(own.verbs));
        let verbs = share.verbs.without(own);
        if !verbs.is_empty() {
            hidden.push(Share {
                verbs,
                ..share.clone()
            });
        }
    }
    for (_, spec) in commands::all() {
        for spec in std::iter::once(spec).chain(spec.sub) {
            let passes = || {
                draft
                    .selectors()
                    .any(|selector| selector.commands.may_pass(spec))
            };
            if let Some((area, verb, _)) = needs(spec)
                && passes()
            {
                let pattern = Pattern::Literal(area.as_bytes().into());
                add(
                    &mut all,
                    Share {
                        scope: Scope::In(Namespace::DEFAULT),
                        kind: Kind::Redis,
                        pattern,
                        verbs: verb,
                    },
                );
            }
        }
    }
    let restriction = Restriction {
        commands: draft.root.commands.to_string().into(),
        hidden,
        selectors: draft
            .others
            .iter()
            .zip(others)
            .map(|(selector, shares)| access::Selector {
                commands: selector.commands.to_string().into(),
                shares,
            })
            .collect(),
    };
    (restriction, all)
}

fn is_about(one: &Share, other: &Share) -> bool {
    one.scope == other.scope && one.kind == other.kind && one.pattern == other.pattern
}

fn add(all: &mut Vec<Share>, share: Share) {
    match all.iter_mut().find(|known| is_about(known, &share)) {
        Some(known) => known.verbs = known.verbs.and(share.verbs),
        None => all.push(share),
    }
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
    tracing::info!(user = %object, by = who, what);
    let event = Event {
        face: Face::Resp,
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
