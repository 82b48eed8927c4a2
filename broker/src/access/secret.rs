//! A secret of the node that stays: what unknown users are shown must be the same after a restart as before.
//!
//! Row: nothing → `version u8 | secret (32)`. The caller has chance, the broker has none.

use storage::{Engine, Error, Keyspace, ShardId};

use crate::rows::{self, Tag};
use crate::{Effects, Locked, Slot};

/// Chance, made once.
pub type Secret = [u8; 32];

const VERSION: u8 = 1;

pub(super) fn load(engine: &Engine) -> Result<Option<Secret>, Error> {
    let key = rows::prefix(Slot::CATALOG, Tag::Secret);
    let Some(row) = engine.get(Keyspace::Rows, &key)? else {
        return Ok(None);
    };
    match row.split_first() {
        Some((&VERSION, secret)) if secret.len() == size_of::<Secret>() => {
            Ok(secret.first_chunk().copied())
        }
        _ => Err(rows::unreadable(&key, &row, VERSION, super::UNREADABLE)),
    }
}

/// Keeps `new` unless there is a secret; the one that counts. Locks: the catalog.
pub fn keep_secret(locked: &mut Locked<'_>, new: Secret, fx: &mut Effects) -> Secret {
    let _catalog = locked.catalog();
    let place = &locked.broker().access.secret;
    if let Some(known) = place.get() {
        return *known;
    }
    let mut value = vec![VERSION];
    value.extend_from_slice(&new);
    let key = rows::prefix(Slot::CATALOG, Tag::Secret);
    fx.put(ShardId::CATALOG, &key, &value);
    *place.get_or_init(|| new)
}
