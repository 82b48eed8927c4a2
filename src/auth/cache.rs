//! Passwords that were right a moment ago, so that a client that reconnects does not cost a hash each time.

use std::time::{Duration, Instant};

use broker::access::Principal;
use hashbrown::HashMap;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;

/// How long a verification counts.
const LASTS: Duration = Duration::from_secs(60);
/// Verifications kept, 40 octets each; with more the cache begins anew.
const ENTRIES_MAX: usize = 4096;

type Seal = [u8; 32];

/// See the module. What is kept is a keyed hash of principal, credentials and password: a change of the credentials makes
/// another one, so nothing need be dropped then.
#[derive(Debug)]
pub(super) struct Cache {
    key: [u8; 32],
    entries: Mutex<HashMap<Seal, Instant, foldhash::fast::RandomState>>,
}

impl Cache {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            entries: Mutex::default(),
        }
    }

    fn seal(&self, principal: &Principal, password: &[u8]) -> Option<Seal> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(&principal.id.to_le_bytes());
        for credential in &principal.credentials {
            mac.update(&(credential.bytes.len() as u64).to_le_bytes());
            mac.update(&credential.bytes);
        }
        mac.update(password);
        Some(mac.finalize().into_bytes().into())
    }

    /// Was it right within the last minute?
    pub(super) fn has(&self, principal: &Principal, password: &[u8], now: Instant) -> bool {
        let Some(seal) = self.seal(principal, password) else {
            return false;
        };
        self.entries
            .lock()
            .get(&seal)
            .is_some_and(|until| now < *until)
    }

    /// It was right.
    pub(super) fn keep(&self, principal: &Principal, password: &[u8], now: Instant) {
        let Some(seal) = self.seal(principal, password) else {
            return;
        };
        let mut entries = self.entries.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, until| now < *until);
            if entries.len() >= ENTRIES_MAX {
                entries.clear();
            }
        }
        entries.insert(seal, now + LASTS);
    }
}
