//! Who a client is: logins of all faces, against the configured principal and those in the catalog.
//!
//! ```text
//!  session ── Auth::login ─▶ Attempt ── poll ─▶ Identity, or why not
//!                │ too long, locked out: refused without a look      ▲ rung
//!                │ verified within the last minute (cache): at once  │
//!                └ else a job for the pool's threads ── argon2id ────┘
//! ```
//! A session with an attempt under way is paused; it is rung when the answer is there. A refusal is told [`FAILURE_DELAY`]
//! after the attempt came, whatever it took, so that unknown names, wrong passwords and locked out clients look alike.

mod attempts;
mod cache;
mod credential;
mod login;
mod pool;
pub(crate) mod scram;
mod seats;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker::access::{self, Access, Identity};
use broker::{Broker, Effects, Millis, ShardId};
use subtle::ConstantTimeEq;

use crate::config::{Config, Secret};

pub use attempts::LOCKED_FOR;
pub(crate) use credential::redis_hash;
pub use credential::{ImportError, from_password, imported};
pub(crate) use login::ScramExchange;
pub use login::{Attempt, FAILURE_DELAY, Refused};
pub use seats::{Seat, SeatsFull};

use attempts::Attempts;
use cache::Cache;
use pool::Pool;
use seats::Seats;

/// Octets of a password that is looked at: hashing costs its length, and nobody types more.
pub const PASSWORD_MAX: usize = 1024;

/// Decides whether a client may go on, for all faces alike.
#[derive(Debug)]
pub struct Auth {
    access: Arc<Access>,
    configured: Option<Configured>,
    /// Makes the salts that unknown users and the configured one are shown.
    secret: access::Secret,
    pool: Pool,
    cache: Cache,
    attempts: Attempts,
    seats: Arc<Seats>,
}

#[derive(Debug)]
struct Configured {
    user: String,
    password: Secret,
    scram: [OnceLock<scram::Keys>; 2],
}

impl Auth {
    /// With the configured principal, if a password is set, and those in the catalog.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(config: &Config, broker: &Broker, now: Millis) -> std::io::Result<Self> {
        let configured = (!config.password.is_empty()).then(|| Configured {
            user: config.user.clone(),
            password: config.password.clone(),
            scram: Default::default(),
        });
        Ok(Self {
            access: Arc::clone(&broker.access),
            configured,
            secret: secret(broker, now)?,
            pool: Pool::new(),
            cache: Cache::new(chance()?),
            attempts: Attempts::new(config.login_failures),
            seats: Arc::new(Seats::new(config.max_connections_per_user)),
        })
    }

    /// All principals of the catalog.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// True when clients must log in before anything else. With a password or principal that holds for this machine too: whoever
    /// comes through a proxy or a tunnel looks local. Only where the principal `default` takes any password need nobody of this
    /// machine log in.
    pub fn required(&self) -> bool {
        self.configured.is_some() || !self.access.is_open()
    }

    /// Whether there is nobody to be, so that whoever says who it is may be anybody.
    pub fn knows_nobody(&self) -> bool {
        self.configured.is_none() && self.access.is_empty()
    }

    /// Whether anybody could log in: only then other machines may reach the node.
    pub fn has_credential(&self) -> bool {
        self.configured.is_some() || self.access.has_credential(None)
    }

    /// Whether nobody could log in any more without this principal.
    pub fn depends_on(&self, principal: &str) -> bool {
        self.configured.is_none() && !self.access.has_credential(Some(principal))
    }

    /// The configured name, for faces that show it.
    pub fn user(&self) -> Option<&str> {
        self.configured
            .as_ref()
            .map(|configured| configured.user.as_str())
    }

    /// A place for one more connection of a user; `None` where none is counted, and for who has no name.
    ///
    /// # Errors
    /// The user has as many as it may.
    pub fn seat(&self, user: Option<&str>) -> Result<Option<Seat>, SeatsFull> {
        match user {
            Some(user) => self.seats.take(user),
            None => Ok(None),
        }
    }

    /// Who a client is before it has logged in: anyone, from this machine, while there is no credential.
    pub fn before_login(&self, peer: IpAddr) -> Identity {
        if self.configured.is_some() || !is_local(peer) {
            Identity::nobody()
        } else {
            Identity::anyone(&self.access)
        }
    }

    /// Who a verified client certificate with these names stands for, and under which name: the configured principal, if its name
    /// is one of them, or a principal of the catalog that one of them was given to. While there is nobody to be, anybody of this
    /// machine is let in, under the first name.
    pub fn by_certificate<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
        peer: IpAddr,
    ) -> Option<(Identity, String)> {
        let names: Vec<&str> = names.into_iter().collect();
        if self.knows_nobody() {
            let name = (*names.first()?).to_owned();
            let identity = self.before_login(peer);
            return identity.is_somebody().then_some((identity, name));
        }
        let identity = match &self.configured {
            Some(configured) if names.contains(&configured.user.as_str()) => {
                Identity::configured(&self.access, &configured.user)
            }
            _ => {
                let principal = self.access.by_certificate(names)?;
                self.access.identity(&principal.name)?
            }
        };
        let name = identity.name().unwrap_or_default().to_owned();
        Some((identity, name))
    }

    /// `None`: it is not the configured principal's name. Redis' `AUTH <password>` comes as the user `default`, which is the
    /// configured principal under Redis' name.
    fn configured(&self, user: &[u8]) -> Option<&Configured> {
        self.configured.as_ref().filter(|configured| {
            let own = user.ct_eq(configured.user.as_bytes());
            (own | user.ct_eq(b"default")).into()
        })
    }

    /// Whether this is a name of the configured principal.
    pub fn is_configured(&self, user: &str) -> bool {
        self.configured(user.as_bytes()).is_some()
    }

    /// RabbitMQ's `guest`/`guest` and Redis' `default` with any password, from this machine, while nobody need log in.
    fn open_pair(&self, user: &[u8], password: &[u8], peer: IpAddr) -> bool {
        let pair = user == b"default" || (user == b"guest" && password == b"guest");
        !self.required() && pair && is_local(peer)
    }
}

impl Configured {
    fn accepts(&self, password: &[u8]) -> bool {
        password.ct_eq(self.password.expose().as_bytes()).into()
    }

    /// Derived when first asked for.
    fn scram(&self, mechanism: scram::Mechanism, salt: &[u8]) -> Option<&scram::Keys> {
        let slot = self.scram.get(mechanism as usize)?;
        let password = self.password.expose().as_bytes();
        Some(slot.get_or_init(|| scram::Keys::salted(mechanism, password, salt)))
    }
}

fn chance() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

/// The node's secret; made at the first start.
fn secret(broker: &Broker, now: Millis) -> std::io::Result<access::Secret> {
    if let Some(known) = broker.access.secret() {
        return Ok(known);
    }
    let new = chance()?;
    let (mut fx, mut locked) = (Effects::new(), broker.lock_one(ShardId::CATALOG));
    let secret = access::keep_secret(&mut locked, new, &mut fx);
    locked.commit(now, &mut fx);
    Ok(secret)
}

/// SASL PLAIN (RFC 4616): authorization identity, user and password, separated by zero bytes.
pub(crate) fn plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.split(|byte| *byte == 0);
    let (authzid, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    // Nobody acts for another.
    let own = authzid.is_empty() || authzid == user;
    (own && parts.next().is_none()).then_some((user, password))
}

/// True for this machine, also when IPv4 arrives in an IPv6 socket.
pub fn is_local(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

/// How long the pool's answer may be waited for before a session takes it for lost; a full queue takes a second or two.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
