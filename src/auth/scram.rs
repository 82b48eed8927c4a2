//! The server's side of SCRAM (RFC 5802, RFC 7677), without channel binding.
//!
//! ```text
//! client-first  n,,n=user,r=cnonce                 server-first  r=cnonce+snonce,s=salt,i=iterations
//! client-final  c=biws,r=cnonce+snonce,p=proof     server-final  v=signature
//! ```
//! Passwords are their UTF-8 octets as they are: Kafka, too, does not prepare them (RFC 4013).

use broker::access::CredentialKind;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::api::base64;

/// Kafka's smallest, and its default; RFC 7677 §4 asks for no less.
const ITERATIONS: u32 = 4096;
const SALT: usize = 16;
/// Octets of a client's message; a name and two nonces are far less.
const MESSAGE_MAX: usize = 2048;
const VERSION: u8 = 1;

/// Which hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Sha256 = 0,
    Sha512 = 1,
}

impl Mechanism {
    /// By its SASL name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "SCRAM-SHA-256" => Some(Self::Sha256),
            "SCRAM-SHA-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Its SASL name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    pub(super) const fn credential(self) -> CredentialKind {
        match self {
            Self::Sha256 => CredentialKind::ScramSha256,
            Self::Sha512 => CredentialKind::ScramSha512,
        }
    }

    const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn hash(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length.
        match self {
            Self::Sha256 => Hmac::<Sha256>::new_from_slice(key)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
            Self::Sha512 => Hmac::<Sha512>::new_from_slice(key)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
        }
        .unwrap_or_default()
    }

    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut out = vec![0; self.length()];
        match self {
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut out),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut out),
        }
        out
    }
}

/// What the server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    mechanism: Mechanism,
    iterations: u32,
    salt: Vec<u8>,
    stored: Vec<u8>,
    server: Vec<u8>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.mechanism.name())
    }
}

impl Keys {
    /// With a new salt.
    pub(super) fn derive(mechanism: Mechanism, password: &[u8]) -> std::io::Result<Self> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(std::io::Error::other)?;
        Ok(Self::salted(mechanism, password, &salt))
    }

    /// With this salt, of which only the first octets count.
    pub(super) fn salted(mechanism: Mechanism, password: &[u8], salt: &[u8]) -> Self {
        let salt = salt.get(..SALT).unwrap_or(salt);
        Self::with(mechanism, password, salt, ITERATIONS)
    }

    fn with(mechanism: Mechanism, password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = mechanism.salted(password, salt, iterations);
        let client = mechanism.hmac(&salted, b"Client Key");
        Self {
            mechanism,
            iterations,
            salt: salt.into(),
            stored: mechanism.hash(&client),
            server: mechanism.hmac(&salted, b"Server Key"),
        }
    }

    /// Keys of no password.
    pub(super) fn fake(mechanism: Mechanism, salt: &[u8], secret: &[u8]) -> Self {
        Self {
            mechanism,
            iterations: ITERATIONS,
            salt: salt.get(..SALT).unwrap_or(salt).into(),
            stored: mechanism.hash(secret),
            server: mechanism.hash(secret),
        }
    }

    /// `version u8 | iterations u32 LE | salt len u8 | salt | stored key | server key`.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.iterations.to_le_bytes());
        bytes.push(u8::try_from(self.salt.len()).unwrap_or(u8::MAX));
        for part in [&self.salt, &self.stored, &self.server] {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    pub(super) fn from_bytes(mechanism: Mechanism, bytes: &[u8]) -> Option<Self> {
        let (&[VERSION], rest) = bytes.split_first_chunk::<1>()? else {
            return None;
        };
        let (iterations, rest) = rest.split_first_chunk::<4>()?;
        let (salt_length, rest) = rest.split_first()?;
        let (salt, rest) = rest.split_at_checked(usize::from(*salt_length))?;
        let (stored, server) = rest.split_at_checked(mechanism.length())?;
        (server.len() == mechanism.length()).then(|| Self {
            mechanism,
            iterations: u32::from_le_bytes(*iterations),
            salt: salt.into(),
            stored: stored.into(),
            server: server.into(),
        })
    }
}

/// Why an exchange ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("not a SCRAM message")]
    Malformed,
    #[error("channel binding, another authorization identity and extensions are not supported")]
    Unsupported,
    #[error("the nonce is not the one that was sent")]
    Nonce,
    #[error("the proof is wrong")]
    Proof,
}

/// The client's first message.
#[derive(Debug)]
pub(super) struct ClientFirst {
    /// Channel binding flag and authorization identity, as they came.
    header: String,
    /// What both proofs are about.
    bare: String,
    pub(super) user: String,
    nonce: String,
}

impl ClientFirst {
    pub(super) fn parse(message: &[u8]) -> Result<Self, ServerError> {
        if message.len() > MESSAGE_MAX {
            return Err(ServerError::Malformed);
        }
        let text = std::str::from_utf8(message).map_err(|_| ServerError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(binding), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(ServerError::Malformed);
        };
        if !matches!(binding, "n" | "y") {
            return Err(ServerError::Unsupported);
        }
        let mut fields = bare.split(',');
        let (name, nonce) = (fields.next(), fields.next());
        let name = name
            .and_then(|field| field.strip_prefix("n="))
            .ok_or(ServerError::Malformed)?;
        let nonce = nonce
            .and_then(|field| field.strip_prefix("r="))
            .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or(ServerError::Malformed)?;
        let user = unescape(name).ok_or(ServerError::Malformed)?;
        let authzid = authzid.strip_prefix("a=").map(unescape);
        if fields.next().is_some() || authzid.is_some_and(|id| id.as_ref() != Some(&user)) {
            return Err(ServerError::Unsupported);
        }
        let header = text.get(..text.len() - bare.len()).unwrap_or_default();
        Ok(Self {
            header: header.to_owned(),
            bare: bare.to_owned(),
            user,
            nonce: nonce.to_owned(),
        })
    }
}

/// `=2C` is a comma and `=3D` an equals sign; no other `=` may stand in a name.
fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        let (letter, code) = match after.get(..2)? {
            "2C" => (',', 2),
            "3D" => ('=', 2),
            _ => return None,
        };
        out.push(letter);
        rest = after.get(code..)?;
    }
    out.push_str(rest);
    (!out.is_empty()).then_some(out)
}

/// The server between its two messages.
#[derive(Debug)]
pub(super) struct Server {
    keys: Keys,
    header: String,
    nonce: String,
    /// client-first-bare, server-first, and a comma.
    so_far: String,
}

impl Server {
    /// Also the server's first message.
    pub(super) fn begin(first: ClientFirst, keys: Keys, nonce: &[u8]) -> (Self, String) {
        let nonce = format!("{}{}", first.nonce, base64::encode(nonce));
        Self::with_nonce(first, keys, nonce)
    }

    fn with_nonce(first: ClientFirst, keys: Keys, nonce: String) -> (Self, String) {
        let salt = base64::encode(&keys.salt);
        let message = format!("r={nonce},s={salt},i={}", keys.iterations);
        let server = Self {
            so_far: format!("{},{message},", first.bare),
            header: first.header,
            keys,
            nonce,
        };
        (server, message)
    }

    /// The server's last message, if the client has proved that it knows the password.
    pub(super) fn finish(self, message: &[u8]) -> Result<String, ServerError> {
        let text = std::str::from_utf8(message)
            .ok()
            .filter(|text| text.len() <= MESSAGE_MAX)
            .ok_or(ServerError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ServerError::Malformed)?;
        let mut fields = without_proof.split(',');
        let (binding, nonce) = (fields.next(), fields.next());
        let binding = binding
            .and_then(|field| field.strip_prefix("c="))
            .and_then(|field| base64::decode(field.as_bytes()))
            .ok_or(ServerError::Malformed)?;
        let nonce = nonce
            .and_then(|field| field.strip_prefix("r="))
            .ok_or(ServerError::Malformed)?;
        if binding != self.header.as_bytes() || fields.next().is_some() {
            return Err(ServerError::Unsupported);
        }
        // CVE-2024-56128: the whole nonce, the client's half and ours.
        if nonce != self.nonce {
            return Err(ServerError::Nonce);
        }
        let mut client_key = base64::decode(proof.as_bytes()).ok_or(ServerError::Malformed)?;
        let Keys {
            mechanism,
            stored,
            server,
            ..
        } = &self.keys;
        let spoken = self.so_far + without_proof;
        let signature = mechanism.hmac(stored, spoken.as_bytes());
        if client_key.len() != signature.len() {
            return Err(ServerError::Malformed);
        }
        for (byte, with) in client_key.iter_mut().zip(&signature) {
            *byte ^= with;
        }
        if !bool::from(mechanism.hash(&client_key).ct_eq(stored)) {
            return Err(ServerError::Proof);
        }
        let verifier = mechanism.hmac(server, spoken.as_bytes());
        Ok(format!("v={}", base64::encode(&verifier)))
    }
}

/// What a client that knows the password says last.
#[cfg(test)]
pub(super) fn client_final(
    mechanism: Mechanism,
    password: &str,
    client_first: &str,
    server_first: &str,
) -> String {
    let mut fields = server_first.split(',').map(|field| &field[2..]);
    let (nonce, salt) = (fields.next().unwrap(), fields.next().unwrap());
    let salt = base64::decode(salt.as_bytes()).unwrap();
    let salted = mechanism.salted(password.as_bytes(), &salt, ITERATIONS);
    let mut proof = mechanism.hmac(&salted, b"Client Key");
    let bare = &client_first[3..];
    let last = format!("c=biws,r={nonce}");
    let spoken = format!("{bare},{server_first},{last}");
    let signature = mechanism.hmac(&mechanism.hash(&proof), spoken.as_bytes());
    for (byte, with) in proof.iter_mut().zip(signature) {
        *byte ^= with;
    }
    format!("{last},p={}", base64::encode(&proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn begun() -> Server {
        let salt = base64::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::with(Mechanism::Sha256, b"pencil", &salt, 4096);
        assert_eq!(
            Keys::from_bytes(Mechanism::Sha256, &keys.to_bytes()).as_ref(),
            Some(&keys)
        );
        assert_eq!(Keys::from_bytes(Mechanism::Sha512, &keys.to_bytes()), None);
        let first = ClientFirst::parse(FIRST).unwrap();
        let (server, message) = Server::with_nonce(first, keys, NONCE.to_owned());
        assert_eq!(
            message,
            format!("r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
        );
        server
    }

    /// RFC 7677 §3.
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(
            begun().finish(FINAL.as_bytes()),
            Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned())
        );
    }

    #[test]
    fn what_is_not_the_same_is_refused() {
        let say = |text: &str| begun().finish(text.as_bytes());
        assert_eq!(say(&FINAL.replace("k0,p", "k1,p")), Err(ServerError::Nonce));
        // Only the client's own half (CVE-2024-56128), and one that only begins so.
        assert_eq!(
            say(&FINAL.replace("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "")),
            Err(ServerError::Nonce)
        );
        assert_eq!(
            say(&FINAL.replace("k0,p", "k0x,p")),
            Err(ServerError::Nonce)
        );
        assert_eq!(say(&FINAL.replace("dHzb", "dHzc")), Err(ServerError::Proof));
        assert_eq!(
            say(&FINAL.replace("biws", "eSws")),
            Err(ServerError::Unsupported)
        );
        for text in ["", "c=biws", "p=AAAA", "c=biws,r=x,p=", "c=biws,r=x,p=!"] {
            assert!(say(text).is_err(), "{text}");
        }
    }

    #[test]
    fn first_messages() {
        let parse = |text: &str| ClientFirst::parse(text.as_bytes()).map(|first| first.user);
        assert_eq!(parse("y,,n=a=2Cb=3D,r=x"), Ok("a,b=".to_owned()));
        assert_eq!(parse("n,a=u,n=u,r=x"), Ok("u".to_owned()));
        assert_eq!(parse("n,a=v,n=u,r=x"), Err(ServerError::Unsupported));
        assert_eq!(
            parse("p=tls-unique,,n=u,r=x"),
            Err(ServerError::Unsupported)
        );
        assert_eq!(
            parse("n,,n=u,r=x,tokenauth=true"),
            Err(ServerError::Unsupported)
        );
        for text in [
            "",
            "n,",
            "n,,",
            "n,,n=u",
            "n,,n=,r=x",
            "n,,n=a=b,r=x",
            "n,,n=u,r=",
        ] {
            assert_eq!(parse(text), Err(ServerError::Malformed), "{text}");
        }
        assert!(ClientFirst::parse(&[b'n'; MESSAGE_MAX + 1]).is_err());
    }
}
