//! What principals and grants say for [`crate::law`].

use super::catalog::Access;
use crate::law::{Facts, hash};
use crate::rows::Tag;

pub(crate) use super::grant::principal_of;

pub(crate) fn catalog(access: &Access, facts: &mut Facts) {
    for principal in access.principals() {
        facts.own_name(Tag::Principal, &principal.name);
        // A difference is logged, so of the secrets only a hash.
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
