//! A HyperLogLog as the bytes of a string, in Redis' two encodings.
//!
//! ```text
//! "HYLL" │ encoding u8 │ 0 0 0 │ count u64 │ registers          count: the last estimate; its top bit: it must be made anew
//!
//! dense   16,384 registers of 6 bits, the lowest bits of a byte first
//! sparse  runs:  00nnnnnn            n + 1 registers are 0        (up to 64)
//!                01nnnnnn nnnnnnnn   n + 1 registers are 0        (up to 16,384)
//!                1vvvvvnn            n + 1 registers are v + 1    (up to 4 of up to 32)
//! ```
//! The estimate is that of Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), as in Redis since 5.0.
//! The same elements in the same order give the same bytes as in Redis, so its quirks (where runs are joined) are kept.

use std::ops::Range;

/// Bits of a hash that choose a register.
const CHOOSE_BITS: u32 = 14;
const REGISTERS: usize = 1 << CHOOSE_BITS;
/// Bits of a hash in which the first one that is set is looked for.
const RUN_BITS: usize = 64 - CHOOSE_BITS as usize;
const REGISTER_BITS: usize = 6;

const MAGIC: &[u8] = b"HYLL";
const ENCODING: usize = 4;
const COUNT: Range<usize> = 8..16;
/// Of the count: where the bit is that says that it must be made anew.
const STALE: usize = 15;
const STALE_BIT: u8 = 0x80;
const HEAD: usize = 16;

const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const DENSE_LEN: usize = HEAD + REGISTERS * REGISTER_BITS / 8;
/// Redis' `hll-sparse-max-bytes`.
const SPARSE_MAX: usize = 3000;

const ZEROS_MAX: usize = 64;
const VALUE_MAX: u8 = 32;
const VALUES_MAX: usize = 4;

/// Runs that do not add up to the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corrupt;

/// One value per register.
pub(super) type Registers = Box<[u8; REGISTERS]>;

pub(super) fn no_registers() -> Registers {
    Box::new([0; REGISTERS])
}

/// One without elements.
pub(super) fn empty() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + 2);
    bytes.extend_from_slice(MAGIC);
    bytes.resize(HEAD, 0);
    if let Some(encoding) = bytes.get_mut(ENCODING) {
        *encoding = SPARSE;
    }
    zeros(&mut bytes, REGISTERS);
    bytes
}

/// Does a string look like one?
pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.len() >= HEAD
        && bytes.starts_with(MAGIC)
        && match bytes.get(ENCODING) {
            Some(&DENSE) => bytes.len() == DENSE_LEN,
            encoding => encoding == Some(&SPARSE),
        }
}

pub(super) fn is_dense(bytes: &[u8]) -> bool {
    bytes.get(ENCODING) == Some(&DENSE)
}

/// The estimate that it holds; `None`: it must be made anew.
pub(super) fn cached(bytes: &[u8]) -> Option<u64> {
    let count = bytes.get(COUNT)?.first_chunk()?;
    let count = u64::from_le_bytes(*count);
    (count >> 63 == 0).then_some(count)
}

/// Writes the estimate into its place: which bytes changed.
pub(super) fn cache(bytes: &mut [u8], count: u64) -> Range<usize> {
    if let Some(place) = bytes.get_mut(COUNT) {
        place.copy_from_slice(&count.to_le_bytes());
    }
    COUNT
}

/// The estimate must be made anew: which bytes changed, none when it was so.
pub(super) fn make_stale(bytes: &mut [u8]) -> Range<usize> {
    match bytes.get_mut(STALE) {
        Some(byte) if *byte & STALE_BIT == 0 => {
            *byte |= STALE_BIT;
            STALE..STALE + 1
        }
        _ => 0..0,
    }
}

/// Register and value of an element.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element, 0xadc8_3b19);
    let register = hash as usize & (REGISTERS - 1);
    let run = (hash >> CHOOSE_BITS | 1 << RUN_BITS).trailing_zeros() + 1;
    // At most 51.
    (register, run as u8)
}

/// `MurmurHash64A`, by Austin Appleby, who gave it to the public.
fn murmur(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> R;
        hash ^= word.wrapping_mul(M);
        hash = hash.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u64::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> R
}

/// Adds an element to a dense one: which bytes changed, none when nothing did.
pub(super) fn add_dense(bytes: &mut [u8], element: &[u8]) -> Range<usize> {
    let (register, value) = place(element);
    raise_dense(bytes, register, value)
}

/// Adds an element; true when a register changed. A sparse one becomes dense when it must.
pub(super) fn add(bytes: &mut Vec<u8>, element: &[u8]) -> Result<bool, Corrupt> {
    let (register, value) = place(element);
    raise(bytes, register, value)
}

/// Gives a register at least this value.
pub(super) fn raise(bytes: &mut Vec<u8>, register: usize, value: u8) -> Result<bool, Corrupt> {
    if is_dense(bytes) {
        return Ok(!raise_dense(bytes, register, value).is_empty());
    }
    if value <= VALUE_MAX
        && let Some(changed) = raise_sparse(bytes, register, value)?
    {
        return Ok(changed);
    }
    make_dense(bytes)?;
    Ok(!raise_dense(bytes, register, value).is_empty())
}

fn dense_value(bytes: &[u8], register: usize) -> u8 {
    let bit = register * REGISTER_BITS;
    let at = |place: usize| u16::from(bytes.get(HEAD + place).copied().unwrap_or(0));
    let both = at(bit / 8) | at(bit / 8 + 1) << 8;
    (both >> (bit % 8)) as u8 & 63
}

fn raise_dense(bytes: &mut [u8], register: usize, value: u8) -> Range<usize> {
    if value <= dense_value(bytes, register) {
        return 0..0;
    }
    let bit = register * REGISTER_BITS;
    let first = HEAD + bit / 8;
    let (mask, value) = (63u16 << (bit % 8), u16::from(value) << (bit % 8));
    for (place, mask, value) in [
        (first, mask as u8, value as u8),
        (first + 1, (mask >> 8) as u8, (value >> 8) as u8),
    ] {
        if let Some(byte) = bytes.get_mut(place) {
            *byte = *byte & !mask | value;
        }
    }
    first..(first + 2).min(bytes.len())
}

/// A run of registers of one value, and how many bytes say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    len: usize,
    value: u8,
    size: usize,
}

/// The run at a place.
fn run(bytes: &[u8], at: usize) -> Option<Run> {
    let first = *bytes.get(at)?;
    Some(match first >> 6 {
        0 => Run {
            len: usize::from(first & 63) + 1,
            value: 0,
            size: 1,
        },
        1 => Run {
            len: (usize::from(first & 63) << 8 | usize::from(*bytes.get(at + 1)?)) + 1,
            value: 0,
            size: 2,
        },
        _ => Run {
            len: usize::from(first & 3) + 1,
            value: (first >> 2 & 31) + 1,
            size: 1,
        },
    })
}

/// Appends a run of zeros.
fn zeros(bytes: &mut Vec<u8>, len: usize) {
    let stored = len.saturating_sub(1);
    // `len` is at most 16,384.
    if len > ZEROS_MAX {
        bytes.extend_from_slice(&[0x40 | (stored >> 8) as u8, stored as u8]);
    } else if len > 0 {
        bytes.push(stored as u8);
    }
}

fn value_byte(value: u8, len: usize) -> u8 {
    // `value` is 1 to 32, `len` 1 to 4.
    0x80 | (value - 1) << 2 | (len - 1) as u8
}

/// Appends a run of a value.
fn values(bytes: &mut Vec<u8>, value: u8, len: usize) {
    if len > 0 {
        bytes.push(value_byte(value, len));
    }
}

/// Visits every run with its first register.
fn each_run(bytes: &[u8], visit: &mut dyn FnMut(usize, Run)) -> Result<(), Corrupt> {
    let (mut at, mut register) = (HEAD, 0);
    while at < bytes.len() {
        let run = run(bytes, at).ok_or(Corrupt)?;
        if register + run.len > REGISTERS {
            return Err(Corrupt);
        }
        visit(register, run);
        register += run.len;
        at += run.size;
    }
    if register == REGISTERS {
        Ok(())
    } else {
        Err(Corrupt)
    }
}

/// Gives a register of a sparse one at least this value. `None`: it must become dense first.
fn raise_sparse(bytes: &mut Vec<u8>, register: usize, value: u8) -> Result<Option<bool>, Corrupt> {
    let (mut at, mut first, mut before) = (HEAD, 0, None);
    let found = loop {
        let found = run(bytes, at).ok_or(Corrupt)?;
        if register < first + found.len {
            break found;
        }
        before = Some(at);
        at += found.size;
        first += found.len;
    };
    if found.value >= value {
        return Ok(Some(false));
    }
    let (left, right) = (register - first, first + found.len - 1 - register);
    let mut new = Vec::with_capacity(5);
    if found.value == 0 {
        zeros(&mut new, left);
        values(&mut new, value, 1);
        zeros(&mut new, right);
    } else {
        values(&mut new, found.value, left);
        values(&mut new, value, 1);
        values(&mut new, found.value, right);
    }
    if new.len() > found.size && bytes.len() + new.len() - found.size > SPARSE_MAX {
        return Ok(None);
    }
    bytes.splice(at..at + found.size, new);
    join(bytes, before.unwrap_or(HEAD));
    make_stale(bytes);
    Ok(Some(true))
}

/// Joins neighbouring runs of one value, in five steps from a place on.
fn join(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Some(here) = run(bytes, at) else {
            return;
        };
        let next = run(bytes, at + here.size);
        if here.value != 0
            && let Some(next) = next
            && next.value == here.value
            && here.len + next.len <= VALUES_MAX
        {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value_byte(here.value, here.len + next.len);
            }
            bytes.remove(at + 1);
            continue;
        }
        at += here.size;
    }
}

/// Turns a sparse one into a dense one.
pub(super) fn make_dense(bytes: &mut Vec<u8>) -> Result<(), Corrupt> {
    if is_dense(bytes) {
        return Ok(());
    }
    let mut dense = bytes.get(..HEAD).ok_or(Corrupt)?.to_vec();
    dense.resize(DENSE_LEN, 0);
    if let Some(encoding) = dense.get_mut(ENCODING) {
        *encoding = DENSE;
    }
    each_run(bytes, &mut |first, run| {
        if run.value != 0 {
            for register in first..first + run.len {
                raise_dense(&mut dense, register, run.value);
            }
        }
    })?;
    *bytes = dense;
    Ok(())
}

/// Raises `all` to the registers of a sketch.
pub(super) fn merge(all: &mut Registers, bytes: &[u8]) -> Result<(), Corrupt> {
    if is_dense(bytes) {
        for (register, value) in all.iter_mut().enumerate() {
            *value = (*value).max(dense_value(bytes, register));
        }
        return Ok(());
    }
    each_run(bytes, &mut |first, run| {
        for value in all.get_mut(first..first + run.len).into_iter().flatten() {
            *value = (*value).max(run.value);
        }
    })
}

/// The estimate of a sketch.
pub(super) fn count(bytes: &[u8]) -> Result<u64, Corrupt> {
    let mut all = no_registers();
    merge(&mut all, bytes)?;
    Ok(estimate(&all))
}

/// How many distinct elements these registers saw.
pub(super) fn estimate(registers: &Registers) -> u64 {
    /// 1 / (2 ln 2)
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let mut histogram = [0u32; 64];
    for value in registers.iter() {
        if let Some(count) = histogram.get_mut(usize::from(value & 63)) {
            *count += 1;
        }
    }
    let with = |value: usize| f64::from(histogram.get(value).copied().unwrap_or(0));
    let m = REGISTERS as f64;
    let mut z = m * tau((m - with(RUN_BITS + 1)) / m);
    for value in (1..=RUN_BITS).rev() {
        z += with(value);
        z *= 0.5;
    }
    z += m * sigma(with(0) / m);
    (ALPHA * m * m / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registers(bytes: &[u8]) -> Registers {
        let mut all = no_registers();
        merge(&mut all, bytes).expect("whole");
        all
    }

    #[test]
    fn murmur_is_the_known_one() {
        // Values of the reference program.
        assert_eq!(murmur(b"", 0), 0);
        assert_eq!(place(b"a"), {
            let hash = murmur(b"a", 0xadc8_3b19);
            (
                hash as usize % REGISTERS,
                (hash >> 14).trailing_zeros() as u8 + 1,
            )
        });
    }

    #[test]
    fn sparse_turns_dense_and_counts_about_right() {
        let mut bytes = empty();
        assert_eq!((bytes.len(), cached(&bytes)), (18, Some(0)));
        for n in 0..20_000u32 {
            add(&mut bytes, n.to_string().as_bytes()).expect("whole");
            assert!(is_one(&bytes));
        }
        assert!(is_dense(&bytes));
        let counted = count(&bytes).expect("whole");
        assert!((19_500..20_500).contains(&counted), "{counted}");
        let dense = bytes.clone();
        for n in 0..20_000u32 {
            assert!(add_dense(&mut bytes, n.to_string().as_bytes()).is_empty());
        }
        assert_eq!(bytes, dense);
    }

    #[test]
    fn broken_runs_are_told() {
        let mut long = empty();
        long.push(0);
        let mut short = empty();
        short.truncate(HEAD);
        short.push(5);
        let mut cut = empty();
        cut.truncate(HEAD + 1);
        for mut bytes in [long, short, cut] {
            assert_eq!(count(&bytes), Err(Corrupt));
            assert_eq!(make_dense(&mut bytes), Err(Corrupt));
        }
    }

    proptest! {
        #[test]
        fn sparse_and_dense_agree(values in prop::collection::vec((0usize..REGISTERS, 1u8..=51), 1..400), near in any::<bool>()) {
            let mut sparse = empty();
            let mut dense = empty();
            make_dense(&mut dense).expect("whole");
            for (register, value) in values {
                let (register, value) = if near { (register % 50, value % 5 + 1) } else { (register, value) };
                let changed = raise(&mut sparse, register, value);
                prop_assert_eq!(changed, Ok(!raise_dense(&mut dense, register, value).is_empty()));
                let is_whole = is_dense(&sparse) || each_run(&sparse, &mut |_, _| ()).is_ok();
                prop_assert!(is_whole);
            }
            prop_assert_eq!(&registers(&sparse)[..], &registers(&dense)[..]);
            prop_assert_eq!(count(&sparse), count(&dense));
        }

        #[test]
        fn any_bytes_are_borne(rest in prop::collection::vec(any::<u8>(), 0..60), register in 0usize..REGISTERS, value in 1u8..=51) {
            let mut bytes = empty();
            bytes.truncate(HEAD);
            bytes.extend_from_slice(&rest);
            let _ = count(&bytes);
            let _ = raise(&mut bytes.clone(), register, value);
            let _ = make_dense(&mut bytes);
        }
    }
}
