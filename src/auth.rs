//! Who a client is. One principal for now: the configured name and password, known to every protocol.

use std::net::IpAddr;

use crate::config::Config;

/// Decides whether a client may go on, for all faces alike.
#[derive(Debug)]
pub struct Auth {
    principal: Option<Principal>,
}

#[derive(Debug)]
struct Principal {
    user: String,
    password: crate::config::Secret,
}

impl Auth {
    /// The configured principal, or none.
    pub fn new(config: &Config) -> Self {
        let principal = (!config.password.is_empty()).then(|| Principal {
            user: config.user.clone(),
            password: config.password.clone(),
        });
        Self { principal }
    }

    /// True when clients must log in before anything else. With a password set that holds for this machine too: whoever
    /// comes through a proxy or a tunnel looks local.
    pub fn required(&self) -> bool {
        self.principal.is_some()
    }

    /// The configured name, for faces that show it.
    pub fn user(&self) -> Option<&str> {
        self.principal
            .as_ref()
            .map(|principal| principal.user.as_str())
    }

    /// The user that a verified client certificate with these names stands for: the principal whose name one of them is. Without
    /// a principal everybody may in, under the first name.
    pub fn certified<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
        let name = match &self.principal {
            Some(principal) => names.find(|name| *name == principal.user)?,
            None => names.next()?,
        };
        Some(name.to_owned())
    }

    /// True when the name and password are right.
    ///
    /// Redis' `AUTH <password>` comes as the user `default`, which is the principal under Redis' name. Without a principal the
    /// only right pair is RabbitMQ's `guest`/`guest` from this machine.
    pub fn login(&self, user: &[u8], password: &[u8], peer: IpAddr) -> bool {
        match &self.principal {
            Some(principal) => {
                let known = same(user, principal.user.as_bytes()) | same(user, b"default");
                known & same(password, principal.password.expose().as_bytes())
            }
            None => user == b"guest" && password == b"guest" && is_local(peer),
        }
    }
}

/// True for this machine, also when IPv4 arrives in an IPv6 socket.
pub fn is_local(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Value;

    #[test]
    fn who_may_in() {
        let near: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let far: IpAddr = "10.0.0.1".parse().unwrap();
        let open = Auth::new(&Config::default());
        assert!(!open.required());
        assert!(
            open.login(b"guest", b"guest", near)
                && !open.login(b"guest", b"guest", far)
                && !open.login(b"a", b"b", near)
        );

        let config = Config {
            password: crate::config::Secret::parse("s3cret").unwrap(),
            ..Config::default()
        };
        let closed = Auth::new(&config);
        assert!(closed.required());
        let names = |auth: &Auth| auth.certified(["cn", "flowmesh"].into_iter());
        assert_eq!(names(&closed).as_deref(), Some("flowmesh"));
        assert_eq!(names(&open).as_deref(), Some("cn"));
        assert_eq!(
            closed.certified(["default", "CN=flowmesh"].into_iter()),
            None
        );
        assert!(
            closed.login(b"flowmesh", b"s3cret", far) && closed.login(b"default", b"s3cret", far)
        );
        for (user, password) in [
            ("guest", "guest"),
            ("flowmesh", "s3cre"),
            ("flowmesh", ""),
            ("x", "s3cret"),
        ] {
            assert!(
                !closed.login(user.as_bytes(), password.as_bytes(), near),
                "{user}/{password}"
            );
        }
    }
}
