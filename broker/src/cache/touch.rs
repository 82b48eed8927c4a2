//! Bringing keys near the processor before the commands of a pipeline come to them.
//!
//! A lookup goes from the index to the cell to the block, and each step waits for memory when there are more keys than the
//! processor caches. Going each step for many keys at once lets these waits overlap.

use std::hint::black_box;

use parking_lot::MutexGuard;

use super::Name;
use super::blocks::Place;
use crate::{Broker, DATA_SHARDS, Shard};

/// Keys of one call.
pub const TOUCH_MAX: usize = 16;

/// Looks at up to [`TOUCH_MAX`] keys of a database; keys of shards that are busy are passed over.
pub fn touch(broker: &Broker, db: usize, names: &[Name<'_>]) {
    let mut shards: [Option<MutexGuard<'_, Shard>>; DATA_SHARDS] = [const { None }; DATA_SHARDS];
    let mut numbers = [None; TOUCH_MAX];
    let mut places: [Option<Place>; TOUCH_MAX] = [None; TOUCH_MAX];
    for name in names {
        let index = usize::from(name.slot.shard().0);
        if let (Some(guard @ None), Some(shard)) = (shards.get_mut(index), broker.shards.get(index))
        {
            *guard = shard.try_lock();
        }
    }
    let db_of = |name: &Name<'_>| {
        let shard = shards.get(usize::from(name.slot.shard().0))?.as_ref()?;
        Some((&shard.cache, shard.cache.dbs.get(db)?))
    };
    for (name, number) in names.iter().zip(&mut numbers) {
        *number = db_of(name).and_then(|(cache, db)| db.probable(cache.hash(name.bytes)));
    }
    for ((name, number), place) in names.iter().zip(numbers).zip(&mut places) {
        *place = number.and_then(|number| db_of(name)?.1.slab.place(number));
    }
    let mut seen = 0;
    for (name, place) in names.iter().zip(places) {
        let first = place.and_then(|place| db_of(name)?.1.slab.first_byte(place));
        seen ^= first.unwrap_or_default();
    }
    black_box(seen);
}
