//! Slots and shards: where an object lives.

use storage::ShardId;

/// Shards that hold data; one more holds the catalog.
pub const DATA_SHARDS: usize = storage::SHARDS - 1;

/// One of 16,384 hash slots, as in Redis Cluster: CRC16 (XMODEM) of the key, or of its `{hash tag}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Number of slots that hold data. The catalog's rows stand behind them, see [`Slot::CATALOG`].
    pub const COUNT: u16 = 16384;
    /// The pseudo-slot of everything that the catalog shard owns.
    pub const CATALOG: Self = Self(Self::COUNT);
    const PER_SHARD: u16 = Self::COUNT / DATA_SHARDS as u16;

    /// The slot of a key: of the part between the first `{` and the next `}` if that part is not empty.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % Self::COUNT)
    }

    /// `None` when `raw` is no slot.
    #[must_use]
    pub fn from_raw(raw: u16) -> Option<Self> {
        (raw <= Self::COUNT).then_some(Self(raw))
    }

    #[must_use]
    pub fn raw(self) -> u16 {
        self.0
    }

    /// The shard that owns this slot.
    #[must_use]
    pub fn shard(self) -> ShardId {
        if self == Self::CATALOG {
            return ShardId::CATALOG;
        }
        // At most 7, see `PER_SHARD`.
        ShardId((self.0 / Self::PER_SHARD) as u8)
    }

    /// First and last slot of a data shard; the catalog's own slot for the catalog.
    #[must_use]
    pub fn range_of(shard: ShardId) -> (Self, Self) {
        if shard == ShardId::CATALOG {
            return (Self::CATALOG, Self::CATALOG);
        }
        let first = u16::from(shard.0) * Self::PER_SHARD;
        (Self(first), Self(first + Self::PER_SHARD - 1))
    }
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    let inner = key.get(open + 1..).unwrap_or_default();
    match memchr::memchr(b'}', inner) {
        Some(close) if close > 0 => inner.get(..close).unwrap_or(key),
        _ => key,
    }
}

/// Bytes taken in one step.
const CRC16_STEP: usize = 8;

/// `[n][byte]`: what a byte with `n` bytes behind it adds to the checksum.
static CRC16_TABLES: [[u16; 256]; CRC16_STEP] = {
    let mut tables = [[0u16; 256]; CRC16_STEP];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut behind = 0;
        while behind < CRC16_STEP {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 != 0 {
                    (crc << 1) ^ 0x1021
                } else {
                    crc << 1
                };
                bit += 1;
            }
            tables[behind][byte] = crc;
            behind += 1;
        }
        byte += 1;
    }
    tables
};

/// CRC16/XMODEM: polynomial 0x1021, initial value 0, not reflected (Redis Cluster specification, key distribution model).
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    // Eight look-ups that do not wait for each other, instead of a chain of them: every key of every command comes by here.
    let (steps, rest) = bytes.as_chunks::<CRC16_STEP>();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &CRC16_TABLES;
    let crc = steps.iter().fold(0, |crc: u16, step| {
        let [high, low] = crc.to_be_bytes();
        let [a, b, c, d, e, f, g, h] = step.map(usize::from);
        t7[a ^ usize::from(high)]
            ^ t6[b ^ usize::from(low)]
            ^ t5[c]
            ^ t4[d]
            ^ t3[e]
            ^ t2[f]
            ^ t1[g]
            ^ t0[h]
    });
    rest.iter().fold(crc, |crc, &byte| {
        (crc << 8) ^ t0[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// A set of shards, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet(u16);

impl ShardSet {
    pub const EMPTY: Self = Self(0);
    /// Every data shard and the catalog.
    pub const ALL: Self = Self((1 << storage::SHARDS) - 1);
    /// Every data shard, without the catalog.
    pub const DATA: Self = Self((1 << DATA_SHARDS) - 1);
    pub const CATALOG: Self = Self(1 << ShardId::CATALOG.0);

    #[must_use]
    pub fn of(shard: ShardId) -> Self {
        Self(1 << shard.0)
    }

    #[must_use]
    pub fn with(self, shard: ShardId) -> Self {
        Self(self.0 | 1 << shard.0)
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn contains(self, shard: ShardId) -> bool {
        self.0 & 1 << shard.0 != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// In ascending order, which is the lock order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = (left != 0).then(|| ShardId(left.trailing_zeros() as u8));
            left &= left.wrapping_sub(1);
            next
        })
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        shards.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // In steps or byte by byte, at every length.
        let bytes: Vec<u8> = (0..40u8).map(|byte| byte.wrapping_mul(37)).collect();
        for length in 0..bytes.len() {
            let slow = bytes[..length].iter().fold(0u16, |crc, &byte| {
                (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
                    crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
                })
            });
            assert_eq!(crc16(&bytes[..length]), slow);
        }
        assert_eq!(Slot::of(b"foo").raw(), 12182);
        assert_eq!(Slot::of(b"{foo}bar"), Slot::of(b"foo"));
        assert_eq!(Slot::of(b"x{foo}{bar}"), Slot::of(b"foo"));
        assert_ne!(Slot::of(b"{}foo"), Slot::of(b""));
    }

    #[test]
    fn shards_cover_all_slots_in_order() {
        for shard in ShardSet::DATA.iter() {
            let (first, last) = Slot::range_of(shard);
            assert_eq!((first.shard(), last.shard()), (shard, shard));
        }
        assert_eq!(Slot::from_raw(16383).map(Slot::shard), Some(ShardId(7)));
        assert_eq!(Slot::CATALOG.shard(), ShardId::CATALOG);
    }

    #[test]
    fn a_set_iterates_in_lock_order() {
        let set: ShardSet = [ShardId(8), ShardId(3), ShardId(0)].into_iter().collect();
        assert_eq!(set.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 3, 8]);
        assert_eq!(set.len(), 3);
    }
}
