//! Credentials: made from a password, imported from Redis and RabbitMQ, verified.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use broker::access::{Credential, CredentialKind, Principal};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::scram::{Keys, Mechanism};
use crate::api::base64;

/// RabbitMQ's salt, in octets.
const RABBIT_SALT: usize = 4;

/// Everything that a password is verified with: argon2id for passwords that come in clear, and both SCRAM verifiers.
///
/// # Errors
/// When the system has no random numbers.
pub fn from_password(password: &[u8]) -> std::io::Result<Vec<Credential>> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(std::io::Error::other)?;
    let phc = Argon2::default()
        .hash_password_with_salt(password, &salt)
        .map_err(std::io::Error::other)?
        .to_string();
    let credential = |kind, bytes: &[u8]| Credential {
        kind,
        bytes: bytes.into(),
    };
    let mut all = vec![credential(CredentialKind::Argon2id, phc.as_bytes())];
    for mechanism in [Mechanism::Sha256, Mechanism::Sha512] {
        let keys = Keys::derive(mechanism, password)?;
        all.push(credential(mechanism.credential(), &keys.to_bytes()));
    }
    Ok(all)
}

/// Why an imported hash is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("redis-sha256 is 64 hexadecimal digits")]
    Redis,
    #[error("a RabbitMQ hash is the base64 of a salt of 4 octets and the hash")]
    Rabbit,
    #[error("the kinds that can be imported are redis-sha256, rabbitmq-sha256 and rabbitmq-sha512")]
    Kind,
}

/// A hash as Redis (`ACL GETUSER`) or RabbitMQ (`password_hash` of its definitions) show it. It becomes argon2id and SCRAM at the
/// first login with it.
///
/// # Errors
/// When it is not what its kind says.
pub fn imported(kind: &str, text: &str) -> Result<Credential, ImportError> {
    let (kind, bytes) = match kind {
        "redis-sha256" => {
            let text = text.strip_prefix('#').unwrap_or(text).to_ascii_lowercase();
            let digits = text.bytes().all(|digit| digit.is_ascii_hexdigit());
            if text.len() != 64 || !digits {
                return Err(ImportError::Redis);
            }
            (CredentialKind::RedisSha256, text.into_bytes())
        }
        "rabbitmq-sha256" | "rabbitmq-sha512" => {
            let (kind, length) = if kind.ends_with("256") {
                (CredentialKind::RabbitSha256, 32)
            } else {
                (CredentialKind::RabbitSha512, 64)
            };
            let bytes = base64::decode(text.as_bytes())
                .filter(|bytes| bytes.len() == RABBIT_SALT + length)
                .ok_or(ImportError::Rabbit)?;
            (kind, bytes)
        }
        _ => return Err(ImportError::Kind),
    };
    Ok(Credential {
        kind,
        bytes: bytes.into(),
    })
}

/// Is it the principal's password? `None`, for a principal that is not there, takes as long as a wrong one and is never right.
pub(super) fn verify(principal: Option<&Principal>, password: &[u8]) -> bool {
    let argon2id = principal.and_then(|known| known.credential(CredentialKind::Argon2id));
    let others = principal.map_or(&[][..], |known| &known.credentials);
    let found = others.iter().any(|credential| cheap(credential, password));
    match argon2id {
        _ if found => true,
        Some(credential) => argon2(&credential.bytes, password),
        None => {
            argon2(NOBODYS.as_bytes(), password);
            false
        }
    }
}

/// SHA-256 of a password in hexadecimal, as Redis shows it.
pub(crate) fn redis_hash(password: &[u8]) -> String {
    Sha256::digest(password)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A hash of nothing that anybody knows, to spend the time on.
static NOBODYS: LazyLock<String> = LazyLock::new(|| {
    let made = Argon2::default().hash_password_with_salt(b"", b"nobody's salt 16");
    made.map(|hash| hash.to_string()).unwrap_or_default()
});

fn argon2(phc: &[u8], password: &[u8]) -> bool {
    let parsed = std::str::from_utf8(phc)
        .ok()
        .and_then(|text| PasswordHash::new(text).ok());
    parsed.is_some_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

fn cheap(credential: &Credential, password: &[u8]) -> bool {
    let bytes = &*credential.bytes;
    let salted = || bytes.split_at_checked(RABBIT_SALT);
    let same = |a: &[u8], b: &[u8]| a.ct_eq(b).into();
    match credential.kind {
        CredentialKind::RedisSha256 | CredentialKind::AclSha256 => {
            same(redis_hash(password).as_bytes(), bytes)
        }
        CredentialKind::RabbitSha256 => salted().is_some_and(|(salt, hash)| {
            let made = Sha256::new().chain_update(salt).chain_update(password);
            same(&made.finalize(), hash)
        }),
        CredentialKind::RabbitSha512 => salted().is_some_and(|(salt, hash)| {
            let made = Sha512::new().chain_update(salt).chain_update(password);
            same(&made.finalize(), hash)
        }),
        CredentialKind::Argon2id | CredentialKind::ScramSha256 | CredentialKind::ScramSha512 => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(credentials: Vec<Credential>) -> Principal {
        Principal {
            name: "a".into(),
            id: 1,
            enabled: true,
            superuser: false,
            any_password: false,
            credentials,
            certificates: Vec::new(),
            restriction: None,
        }
    }

    #[test]
    fn right_and_wrong_passwords() {
        let made = from_password(b"correct horse").unwrap();
        assert_eq!(made.len(), 3);
        let phc = String::from_utf8(made[0].bytes.to_vec()).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        // `printf correct | sha256sum`, and RabbitMQ's hash of test12 from its documentation.
        let redis = imported(
            "redis-sha256",
            "#5A8B4A9B35A1D5B9C0A6E6A9F8F6E6B0D5E3E3C8C3C5A5B5C5D5E5F505152535",
        )
        .unwrap();
        assert!(!verify(Some(&with(vec![redis])), b"correct"));
        let rabbit = imported(
            "rabbitmq-sha256",
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
        )
        .unwrap();
        let rabbit = with(vec![rabbit]);
        assert!(verify(Some(&rabbit), b"test12") && !verify(Some(&rabbit), b"test13"));
        let alice = with(made);
        assert!(verify(Some(&alice), b"correct horse"));
        assert!(!verify(Some(&alice), b"correct horse ") && !verify(None, b""));
        assert!(!verify(Some(&with(Vec::new())), b""));
    }

    #[test]
    fn redis_hashes() {
        let hex = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let redis = with(vec![imported("redis-sha256", hex).unwrap()]);
        assert!(verify(Some(&redis), b"secret") && !verify(Some(&redis), hex.as_bytes()));
        assert_eq!(imported("redis-sha256", "abc"), Err(ImportError::Redis));
        assert_eq!(
            imported("rabbitmq-sha512", "abcd"),
            Err(ImportError::Rabbit)
        );
        assert_eq!(imported("md5", ""), Err(ImportError::Kind));
    }
}
