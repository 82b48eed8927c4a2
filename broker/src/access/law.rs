//! What principals and grants say for [`crate::law`].

use super::catalog::Access;
use crate::law::{Facts, hash};
use crate::rows::Tag;

pub(crate) use super::grant::principal_of;

pub(crate) fn catalog(access: &Access, facts: &mut Facts) {
    // Of secrets only a hash: differences are logged.
    if let Some(secret) = access.secret() {
        facts.say("secret".to_owned(), format!("{:016x}", hash([&secret[..]])));
    }
    for principal in access.principals() {
        facts.own_name(Tag::Principal, &principal.name);
        let secrets = hash(
            principal
                .credentials
                .iter()
                .map(|credential| &*credential.bytes),
        );
        facts.say(
            format!("principal {:?}", principal.name),
            format!("{principal:?} {secrets:016x}"),
        );
    }
    for grant in access.grants(None) {
        let what = format!(
            "grant of {:?}: {} {:?} {:?} {}",
            grant.principal,
            grant.scope,
            grant.kind,
            grant.pattern,
            if grant.deny { "deny" } else { "allow" }
        );
        facts.say(what, format!("{:?}", grant.verbs));
    }
}
