//! Who the client is: logins under way, and what follows when its rights change.

use std::time::Instant;

use broker::access::{DEFAULT, Identity, Standing};
use protocol_resp::{Args, Encoder, Version};

use super::{Replies, Session};
use crate::audit;
use crate::auth::{Attempt, Refused, Seat};
use crate::config::Face;
use crate::net::Outbox;
use crate::resp::acl::log::{Context, Reason};
use crate::resp::commands;
use crate::resp::fail::{Done, Fail};
use crate::resp::permission::{self, Asking, Denied};
use crate::resp::spec::Spec;
use crate::tls::Certificate;

/// A login whose end the connection waits for.
#[derive(Debug)]
pub(super) struct Pending {
    attempt: Attempt,
    then: Then,
    /// The command's name as it was typed, for `ACL LOG`.
    word: Box<[u8]>,
}

impl Pending {
    pub(super) fn look_at(&self) -> Instant {
        self.attempt.look_at()
    }
}

/// What a login is followed by.
#[derive(Debug)]
pub(in crate::resp) enum Then {
    Auth,
    Hello {
        version: Version,
        name: Option<String>,
    },
}

impl Session {
    /// Whether some commands are refused, so that each must be looked at.
    #[inline]
    pub(super) fn is_restricted(&self) -> bool {
        !self.identity.is_free(&self.node.broker.access)
    }

    /// The certificate is the AUTH, if it is somebody's.
    pub(super) fn certified(&mut self, certificate: &Certificate) {
        let (auth, peer) = (&self.node.auth, self.client.peer.ip());
        if let Some((identity, name)) = auth.by_certificate(certificate.names(), peer) {
            let seated = self.sit(&identity).is_ok();
            audit::login(&self.node, Face::Resp, name.as_bytes(), peer, seated);
            if seated {
                self.identify(identity);
            }
        }
    }

    /// Takes a place among the connections of the user.
    fn sit(&mut self, identity: &Identity) -> Done {
        let name = identity.name();
        if self.seat.as_ref().map(Seat::user) != name {
            // The former user's is free first: a user may take its own again.
            self.seat = None;
            let full = |_| Fail::Text("ERR max number of clients of this user reached");
            self.seat = self.node.auth.seat(name).map_err(full)?;
        }
        Ok(())
    }

    pub(in crate::resp) fn identify(&mut self, identity: Identity) {
        let user = identity.name().unwrap_or("default");
        self.client.facts.lock().user = user.to_owned();
        let authenticated = identity.is_somebody();
        self.identity = identity;
        self.set_authenticated(authenticated);
    }

    /// May the client run this command now, in this database?
    #[inline(never)]
    pub(super) fn permit(
        &mut self,
        db: usize,
        spec: &Spec,
        args: &Args<'_>,
        context: Context,
    ) -> Done {
        self.stand();
        if !self.identity.is_somebody() {
            return Err(Fail::Text("NOAUTH Authentication required."));
        }
        if self.identity.is_superuser() {
            return Ok(());
        }
        let denied = match permission::check(&self.asking(db), spec, args) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        let place = spec.key_places(args).first().copied().unwrap_or(1);
        let (who, from) = (self.identity.name(), self.client.peer.ip());
        let object = match denied {
            Denied::Command => args.get(place).unwrap_or_default(),
            _ => denied.object(spec, args),
        };
        self.node
            .audit
            .denied(Face::Resp, who, from, spec.name, object);
        let (name, object) = (who.unwrap_or(DEFAULT), denied.object(spec, args));
        self.note_denied(denied.reason(), context, object, name.as_bytes());
        Err(denied.fail(&self.identity, spec))
    }

    /// Whether the client may run it, and nothing is noted: `redis.acl_check_cmd`.
    pub(super) fn might(&mut self, db: usize, spec: &Spec, args: &Args<'_>) -> bool {
        self.stand();
        self.identity.is_superuser()
            || (self.identity.is_somebody()
                && permission::check(&self.asking(db), spec, args).is_ok())
    }

    /// Who it is, as of the last look.
    pub(in crate::resp) fn identity(&self) -> &Identity {
        &self.identity
    }

    #[cold]
    fn note_denied(&self, reason: Reason, context: Context, object: &[u8], user: &[u8]) {
        // A script's own session shows nothing of itself.
        if self.last != 0 {
            self.show();
        }
        let now = self.ctx.now.0;
        let client = commands::client::line(&self.client, now);
        self.hub
            .acl_log
            .add(reason, context, object, user, client, now);
    }

    fn asking(&self, db: usize) -> Asking<'_> {
        Asking::new(&self.identity, &self.node, db)
    }

    /// Takes note of changed rights; a client that is gone, or listens where it may not any more, is closed as Redis does.
    pub(super) fn stand(&mut self) {
        match self.identity.refresh(&self.node.broker.access) {
            Standing::Same => {}
            Standing::Gone => {
                self.set_authenticated(false);
                self.closing = true;
            }
            Standing::Changed if self.identity.is_superuser() => {}
            Standing::Changed => {
                let asking = self.asking(self.db);
                let listens = |names: &indexmap::IndexSet<bytes::Bytes>, glob| {
                    names.iter().all(|name| asking.listens(name, glob))
                };
                let may = listens(&self.channels, false)
                    && listens(&self.patterns, true)
                    && listens(&self.shard_channels, false)
                    && self.client.tracking.asked().is_none_or(|asked| {
                        let mut prefixes = asked.prefixes.iter();
                        prefixes.all(|prefix| asking.hears(prefix))
                    });
                if !may {
                    self.closing = true;
                }
            }
        }
    }

    /// A command that waits must still be allowed when its item comes.
    pub(super) fn stand_blocked(&mut self, out: &mut Vec<u8>) {
        let Some(blocked) = &self.blocked else {
            return;
        };
        let (spec, args) = (blocked.command.spec, blocked.command.args());
        let free = !self.closing && self.identity.is_superuser();
        if free || permission::check(&self.asking(blocked.command.db), spec, &args).is_ok() {
            return;
        }
        // Served already: it was allowed when it was.
        if blocked.waiter.claim() {
            self.unblock();
            let denied = Fail::Text("NOPERM No permissions to access a key");
            self.refuse(&denied, out);
        }
    }

    /// Begins a login; the answer comes at once or later.
    pub(in crate::resp) fn login(
        &mut self,
        (user, password): (&[u8], &[u8]),
        then: Then,
        word: &[u8],
        out: &mut Vec<u8>,
    ) -> Done {
        let wake = self.client.handle.wake();
        let peer = self.client.peer.ip();
        let attempt = self.node.auth.login_redis(user, password, peer, wake);
        let word = word.into();
        self.login = Some(Box::new(Pending {
            attempt,
            then,
            word,
        }));
        self.look_at_login(Instant::now(), out)
    }

    fn look_at_login(&mut self, now: Instant, out: &mut Vec<u8>) -> Done {
        let Some(pending) = &mut self.login else {
            return Ok(());
        };
        let Some(end) = pending.attempt.poll(&self.node, now) else {
            return Ok(());
        };
        let (peer, user) = (self.client.peer.ip(), pending.attempt.user());
        let user: Box<[u8]> = user.into();
        let (then, word) = match self.login.take() {
            Some(pending) => (Some(pending.then), pending.word),
            None => (None, Box::default()),
        };
        let seated = match &end {
            Ok(identity) => self.sit(identity),
            Err(_) => Ok(()),
        };
        let allowed = end.is_ok() && seated.is_ok();
        audit::login(&self.node, Face::Resp, &user, peer, allowed);
        if let Err(full) = seated {
            self.forget_identity();
            self.closing = true;
            return Err(full);
        }
        match end {
            Ok(identity) => self.identify(identity),
            Err(why) => {
                self.note_denied(Reason::Auth, Context::Toplevel, &word, &user);
                return Err(Fail::Text(match why {
                    Refused::Wrong => {
                        "WRONGPASS invalid username-password pair or user is disabled."
                    }
                    Refused::Busy => "WRONGPASS too many logins are being verified, try again",
                }));
            }
        }
        match then {
            Some(Then::Hello { version, name }) => {
                commands::connection::welcome(self, version, name, out);
            }
            _ => Encoder::new(out, self.version).ok(),
        }
        Ok(())
    }

    /// The end of a login, if it has come.
    pub(super) fn end_login(&mut self, now: Instant, out: &mut Outbox) {
        if self.login.is_none() {
            return;
        }
        let mark = out.bytes().len();
        if let Err(fail) = self.look_at_login(now, out.bytes()) {
            self.refuse(&fail, out.bytes());
        }
        if self.login.is_none() && self.replies != Replies::On {
            self.silence(mark, out.bytes());
        }
    }

    /// Nobody from now on to RESET, except where nobody need log in.
    pub(super) fn forget_identity(&mut self) {
        let identity = self.node.auth.before_login(self.client.peer.ip());
        self.seat = None;
        self.identify(identity);
    }

    /// Watches for changes of rights, until [`Session::unwatch_access`].
    pub(super) fn watch_access(&self) {
        let wake = self.client.handle.wake();
        self.node.broker.access.watch(self.client.id, wake);
    }

    pub(super) fn unwatch_access(&self) {
        self.node.broker.access.unwatch(self.client.id);
    }
}
