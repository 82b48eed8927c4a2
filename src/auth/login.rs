//! One login, from the credentials to an identity or a refusal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::{self, Credential, Identity, Principal};
use broker::{Effects, Millis, ShardId, Wake};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;

use super::scram::{Keys, Mechanism, Server, ServerError};
use super::{ANSWER_WITHIN, Auth, PASSWORD_MAX, credential, is_local};
use crate::node::Node;

/// From the attempt to its refusal: Kafka's `connection.failed.authentication.delay.ms`.
pub const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// Why a login was refused. What the client is told must not say which of the first it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Unknown, disabled, wrong password, too long, or locked out.
    Wrong,
    /// Too many are being verified: worth another try.
    Busy,
}

/// A login under way. Its session is paused until [`Attempt::poll`] gives the end.
#[derive(Debug)]
pub struct Attempt {
    user: Box<[u8]>,
    peer: IpAddr,
    /// When a refusal may be told.
    tells_at: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Working(Arc<Ticket>),
    Accepted(Identity),
    Refused(Refused),
    /// Was told.
    Over,
}

/// What the pool gives back.
struct Ticket {
    answer: Mutex<Option<Answer>>,
    wake: Arc<dyn Wake>,
}

#[derive(Debug)]
enum Answer {
    Wrong,
    Right {
        principal: Arc<Principal>,
        /// Better credentials than those that were verified.
        upgrade: Option<Vec<Credential>>,
    },
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Auth {
    /// Begins a login with a password. `wake` is rung when [`Attempt::poll`] has something new.
    pub fn login(
        self: &Arc<Self>,
        user: &[u8],
        password: &[u8],
        peer: IpAddr,
        wake: Arc<dyn Wake>,
    ) -> Attempt {
        self.begin(user, password, peer, wake, false)
    }

    /// The same for a Redis client: a principal may take any password from it.
    pub fn login_redis(
        self: &Arc<Self>,
        user: &[u8],
        password: &[u8],
        peer: IpAddr,
        wake: Arc<dyn Wake>,
    ) -> Attempt {
        self.begin(user, password, peer, wake, true)
    }

    fn begin(
        self: &Arc<Self>,
        user: &[u8],
        password: &[u8],
        peer: IpAddr,
        wake: Arc<dyn Wake>,
        redis: bool,
    ) -> Attempt {
        let now = Instant::now();
        let attempt = |state| Attempt {
            user: user
                .get(..user.len().min(access::NAME_MAX))
                .unwrap_or_default()
                .into(),
            peer,
            tells_at: now + FAILURE_DELAY,
            state,
        };
        let refused = || attempt(State::Refused(Refused::Wrong));
        if user.len() > access::NAME_MAX || password.len() > PASSWORD_MAX {
            return refused();
        }
        if self.attempts.is_locked(user, peer, now) {
            return refused();
        }
        if self.open_pair(user, password, peer) {
            return attempt(State::Accepted(Identity::anyone(&self.access)));
        }
        if let Some(configured) = self.configured(user) {
            return if configured.accepts(password) {
                self.attempts.succeeded(user, peer);
                let identity = Identity::configured(&self.access, &configured.user);
                attempt(State::Accepted(identity))
            } else {
                self.note_failure(user, peer, now);
                refused()
            };
        }
        let principal = std::str::from_utf8(user)
            .ok()
            .and_then(|name| self.access.principal(name))
            .filter(|principal| principal.enabled);
        if let Some(known) = &principal
            && redis
            && known.any_password
            // As Redis' protected mode: who is `default` without a password is of this machine.
            && (*known.name != *access::DEFAULT || is_local(peer))
            && let Some(identity) = self.access.identity(&known.name)
        {
            return attempt(State::Accepted(identity));
        }
        if let Some(known) = &principal
            && self.cache.has(known, password, now)
            && let Some(identity) = self.access.identity(&known.name)
        {
            return attempt(State::Accepted(identity));
        }
        let ticket = Arc::new(Ticket {
            answer: Mutex::new(None),
            wake,
        });
        let (auth, theirs) = (Arc::clone(self), Arc::clone(&ticket));
        let password = password.to_vec();
        let job = Box::new(move || {
            let answer = auth.verify(principal, &password);
            *theirs.answer.lock() = Some(answer);
            theirs.wake.wake();
        });
        if self.pool.run(job) {
            attempt(State::Working(ticket))
        } else {
            attempt(State::Refused(Refused::Busy))
        }
    }

    /// On a thread of the pool.
    fn verify(&self, principal: Option<Arc<Principal>>, password: &[u8]) -> Answer {
        let right = credential::verify(principal.as_deref(), password);
        let Some(principal) = principal.filter(|_| right) else {
            return Answer::Wrong;
        };
        self.cache.keep(&principal, password, Instant::now());
        let best = access::CredentialKind::Argon2id;
        let stays = access::CredentialKind::AclSha256;
        let upgrade =
            if principal.credential(best).is_none() && principal.credential(stays).is_none() {
                // Without random numbers the old ones stay.
                credential::from_password(password).ok()
            } else {
                None
            };
        Answer::Right { principal, upgrade }
    }

    fn note_failure(&self, user: &[u8], peer: IpAddr, now: Instant) {
        if self.attempts.failed(user, peer, now) {
            tracing::warn!(user = %user.escape_ascii(), %peer, "too many failed logins: refused for a while");
        }
    }

    /// Begins a SCRAM exchange: the server's first message, and what it needs for the second. Unknown users get a salt that is
    /// always the same, and who is locked out gets the usual one, so that names cannot be found out.
    ///
    /// # Errors
    /// When the client's message is not one.
    pub(crate) fn scram(
        &self,
        mechanism: Mechanism,
        client_first: &[u8],
        peer: IpAddr,
    ) -> Result<(ScramExchange, String), ServerError> {
        let first = super::scram::ClientFirst::parse(client_first)?;
        let user = first.user.clone();
        let salt = self.shown(b"salt", mechanism, &user);
        // Under its own name only: its salt under two would tell that they are one.
        let configured = self.configured.as_ref().filter(|own| own.user == user);
        let (identity, keys) = match configured {
            Some(configured) => (
                Some(Identity::configured(&self.access, &configured.user)),
                configured.scram(mechanism, &salt).cloned(),
            ),
            None => {
                let principal = self.access.principal(&user);
                let keys = principal.and_then(|principal| {
                    let credential = principal.credential(mechanism.credential())?;
                    Keys::from_bytes(mechanism, &credential.bytes)
                });
                (self.access.identity(&user), keys)
            }
        };
        let (identity, keys) = match keys {
            Some(keys) => (identity, keys),
            None => {
                let keys = self.shown(b"keys", mechanism, &user);
                (None, Keys::fake(mechanism, &salt, &keys))
            }
        };
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(|_| ServerError::Malformed)?;
        let (server, message) = Server::begin(first, keys, &nonce);
        let exchange = ScramExchange {
            server,
            identity,
            user: user
                .as_bytes()
                .get(..user.len().min(access::NAME_MAX))
                .unwrap_or_default()
                .into(),
            peer,
        };
        Ok((exchange, message))
    }

    /// Octets that look like chance, and are the same for a user as long as the node's data lives.
    fn shown(&self, purpose: &[u8], mechanism: Mechanism, user: &str) -> [u8; 32] {
        // A key of 32 octets is never refused.
        Hmac::<Sha256>::new_from_slice(&self.secret)
            .map(|mac| {
                let mac = mac.chain_update(purpose).chain_update([mechanism as u8]);
                mac.chain_update(user).finalize().into_bytes().into()
            })
            .unwrap_or_default()
    }
}

/// The second half of a SCRAM login.
#[derive(Debug)]
pub(crate) struct ScramExchange {
    server: Server,
    /// `None`: whatever comes is refused.
    identity: Option<Identity>,
    user: Box<[u8]>,
    peer: IpAddr,
}

impl ScramExchange {
    /// With the client's final message: the login's end, and the server's final message when it is accepted.
    pub(crate) fn finish(self, auth: &Auth, client_final: &[u8]) -> (Attempt, String) {
        let now = Instant::now();
        let proved = self.server.finish(client_final);
        // Now, not at the first message: exchanges may have been begun in advance.
        let locked = auth.attempts.is_locked(&self.user, self.peer, now);
        let (state, message) = match (self.identity.filter(|_| !locked), proved) {
            (Some(identity), Ok(message)) => {
                auth.attempts.succeeded(&self.user, self.peer);
                (State::Accepted(identity), message)
            }
            _ => {
                auth.note_failure(&self.user, self.peer, now);
                (State::Refused(Refused::Wrong), String::new())
            }
        };
        let attempt = Attempt {
            user: self.user,
            peer: self.peer,
            tells_at: now + FAILURE_DELAY,
            state,
        };
        (attempt, message)
    }
}

impl Attempt {
    /// A refusal for a message that could not be read.
    pub fn refused(peer: IpAddr) -> Self {
        Self {
            user: Box::default(),
            peer,
            tells_at: Instant::now() + FAILURE_DELAY,
            state: State::Refused(Refused::Wrong),
        }
    }

    /// Who tried.
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// When to look again at the latest.
    pub fn look_at(&self) -> Instant {
        match self.state {
            State::Working(_) => self.tells_at + ANSWER_WITHIN,
            _ => self.tells_at,
        }
    }

    /// The end, once it may be told; then it is over.
    pub fn poll(&mut self, node: &Node, now: Instant) -> Option<Result<Identity, Refused>> {
        if let State::Working(ticket) = &self.state {
            let answer = ticket.answer.lock().take();
            self.state = match answer {
                Some(Answer::Right { principal, upgrade }) => {
                    node.auth.attempts.succeeded(&self.user, self.peer);
                    if let Some(credentials) = upgrade {
                        upgraded(node, &principal, credentials);
                    }
                    // Removed or disabled meanwhile: then it is nobody's password.
                    match node.auth.access.identity(&principal.name) {
                        Some(identity) => State::Accepted(identity),
                        None => State::Refused(Refused::Wrong),
                    }
                }
                Some(Answer::Wrong) => {
                    node.auth.note_failure(&self.user, self.peer, now);
                    State::Refused(Refused::Wrong)
                }
                None if now >= self.look_at() => State::Refused(Refused::Busy),
                None => return None,
            };
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Accepted(identity) => Some(Ok(identity)),
            State::Refused(why) if now >= self.tells_at => Some(Err(why)),
            other => {
                self.state = other;
                None
            }
        }
    }
}

/// The password that an imported hash was right for is kept as our own are.
fn upgraded(node: &Node, verified: &Principal, credentials: Vec<Credential>) {
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let done = access::update(
        &mut locked,
        &verified.name,
        |now, settings| {
            // Only if they are still what was verified.
            if now.id == verified.id && now.credentials == verified.credentials {
                settings.credentials = credentials;
            }
        },
        &mut fx,
    );
    locked.commit(Millis(node.clock.now_ms()), &mut fx);
    if let Err(error) = done {
        tracing::debug!(%error, "credentials were not upgraded");
    }
}
