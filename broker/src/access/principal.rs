//! One principal, and how it lies on disk.
//!
//! ```text
//! Principal  name → version u8 | id u64 LE | flags u8 | count u8 | (kind u8 | len u16 LE | octets)… | count u8 | (len u16 LE | name)…
//!            | restriction, if a flag says so
//! ```
//! The version is 1 where that build could have written the row, so that it can be opened by it again.

use std::fmt;
use std::sync::Arc;

use storage::ShardId;

use super::restriction::Restriction;
use super::{CERTIFICATES_MAX, CREDENTIAL_MAX};
use crate::rows::{self, Tag};
use crate::{Effects, Slot};

pub(super) const VERSION: u8 = 2;
const ENABLED: u8 = 1;
const SUPERUSER: u8 = 2;
/// From version 2 on.
const ANY_PASSWORD: u8 = 4;
const RESTRICTED: u8 = 8;

/// How a password can be verified. The byte is part of the on-disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CredentialKind {
    /// A PHC string.
    Argon2id = b'a',
    /// Salt, iterations, stored key and server key.
    ScramSha256 = b's',
    ScramSha512 = b'S',
    /// As Redis keeps it: SHA-256 of the password, in hexadecimal.
    RedisSha256 = b'r',
    /// The same, and it stays so: there may be several, and `ACL GETUSER` shows them.
    AclSha256 = b'A',
    /// As RabbitMQ keeps it: salt and hash.
    RabbitSha256 = b'm',
    RabbitSha512 = b'M',
}

impl CredentialKind {
    const ALL: [Self; 7] = [
        Self::Argon2id,
        Self::ScramSha256,
        Self::ScramSha512,
        Self::RedisSha256,
        Self::AclSha256,
        Self::RabbitSha256,
        Self::RabbitSha512,
    ];

    /// Its name for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Argon2id => "argon2id",
            Self::ScramSha256 => "scram-sha-256",
            Self::ScramSha512 => "scram-sha-512",
            Self::RedisSha256 => "redis-sha256",
            Self::AclSha256 => "acl-sha256",
            Self::RabbitSha256 => "rabbitmq-sha256",
            Self::RabbitSha512 => "rabbitmq-sha512",
        }
    }
}

/// What a password is verified with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub kind: CredentialKind,
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for Credential {
    /// Without the octets: they must not come into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.word())
    }
}

/// Who a client can be. Changes make a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub name: Arc<str>,
    /// Never used twice: who is made anew under the same name is somebody else.
    pub id: u64,
    pub enabled: bool,
    pub superuser: bool,
    /// Redis clients may log in with whatever password they like; those of other faces may not.
    pub any_password: bool,
    /// At most one of each kind, but for [`CredentialKind::AclSha256`].
    pub credentials: Vec<Credential>,
    /// Names in certificates that mean this principal.
    pub certificates: Vec<Arc<str>>,
    /// What Redis clients may do of what the grants allow; of no meaning to a superuser.
    pub restriction: Option<Arc<Restriction>>,
}

impl Principal {
    /// The credential of a kind.
    #[must_use]
    pub fn credential(&self, kind: CredentialKind) -> Option<&Credential> {
        self.credentials
            .iter()
            .find(|credential| credential.kind == kind)
    }

    /// Whether it has anything to log in with, and may.
    #[must_use]
    pub fn can_log_in(&self) -> bool {
        self.enabled && !(self.credentials.is_empty() && self.certificates.is_empty())
    }

    pub(super) fn put(&self, fx: &mut Effects) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(self.enabled, ENABLED)
            | flag(self.superuser, SUPERUSER)
            | flag(self.any_password, ANY_PASSWORD)
            | flag(self.restriction.is_some(), RESTRICTED);
        let new = flags & (ANY_PASSWORD | RESTRICTED) != 0
            || self.credential(CredentialKind::AclSha256).is_some();
        let mut value = vec![if new { VERSION } else { 1 }];
        value.extend_from_slice(&self.id.to_le_bytes());
        value.push(flags);
        // Both counts and all lengths were checked against their limits.
        value.push(u8::try_from(self.credentials.len()).unwrap_or(u8::MAX));
        for credential in &self.credentials {
            value.push(credential.kind as u8);
            push(&mut value, &credential.bytes);
        }
        value.push(u8::try_from(self.certificates.len()).unwrap_or(u8::MAX));
        for name in &self.certificates {
            push(&mut value, name.as_bytes());
        }
        if let Some(restriction) = &self.restriction {
            restriction.put(&mut value);
        }
        fx.put(ShardId::CATALOG, &key(&self.name), &value);
    }

    pub(super) fn delete(&self, fx: &mut Effects) {
        fx.del(ShardId::CATALOG, &key(&self.name));
    }

    /// Of a whole key and value; `None` when it does not read.
    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(key.get(3..)?).ok()?;
        let (&[version], rest) = value.split_first_chunk::<1>()?;
        let known = match version {
            1 => ENABLED | SUPERUSER,
            VERSION => ENABLED | SUPERUSER | ANY_PASSWORD | RESTRICTED,
            _ => return None,
        };
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (&[flags, credentials], mut rest) = rest.split_first_chunk::<2>()?;
        if flags & !known != 0 {
            return None;
        }
        let mut principal = Self {
            name: name.into(),
            id: u64::from_le_bytes(*id),
            enabled: flags & ENABLED != 0,
            superuser: flags & SUPERUSER != 0,
            any_password: flags & ANY_PASSWORD != 0,
            credentials: Vec::new(),
            certificates: Vec::new(),
            restriction: None,
        };
        for _ in 0..credentials {
            let (kind, after) = rest.split_first()?;
            let kind = CredentialKind::ALL
                .into_iter()
                .find(|known| *known as u8 == *kind)?;
            let (bytes, after) = pull(after, CREDENTIAL_MAX)?;
            principal.credentials.push(Credential {
                kind,
                bytes: bytes.into(),
            });
            rest = after;
        }
        let (certificates, mut rest) = rest.split_first()?;
        for _ in 0..usize::from(*certificates).min(CERTIFICATES_MAX) {
            let (name, after) = pull(rest, usize::from(u16::MAX))?;
            principal
                .certificates
                .push(std::str::from_utf8(name).ok()?.into());
            rest = after;
        }
        if flags & RESTRICTED != 0 {
            principal.restriction = Some(Arc::new(Restriction::read(rest)?));
            rest = &[];
        }
        rest.is_empty().then_some(principal)
    }
}

fn key(name: &str) -> Vec<u8> {
    let mut key = rows::prefix(Slot::CATALOG, Tag::Principal).to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

fn push(value: &mut Vec<u8>, part: &[u8]) {
    value.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
    value.extend_from_slice(part);
}

fn pull(bytes: &[u8], max: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    if length > max {
        return None;
    }
    rest.split_at_checked(length)
}
