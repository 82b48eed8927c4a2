//! `BITFIELD`: integers of any width at any bit of a string.

use broker::cache::Member;
use protocol_resp::Args;

use super::bits::offset;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, OOM};
use crate::resp::parse::{int, is};
use crate::resp::permission::{self, Rights};
use crate::resp::spec::*;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "bitfield",
        -2,
        WRITE.and(DENYOOM),
        ONE,
        bitfield,
        "3.2.0",
        "Reads and changes integers of any width inside a string.",
    )
    .needing(Rights::With(permission::bitfield)),
    on_keys(
        "bitfield_ro",
        -2,
        READ.and(FAST),
        ONE,
        bitfield_ro,
        "6.0.0",
        "Reads integers of any width inside a string.",
    ),
];

/// How wide an integer is, and whether it has a sign: `i1` to `i64`, `u1` to `u63`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    bits: u32,
    signed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Debug, Clone, Copy)]
struct Step {
    width: Width,
    /// Of its first bit.
    at: usize,
    change: Change,
    overflow: Overflow,
}

fn width(text: &[u8]) -> Result<Width, Fail> {
    const ERROR: Fail = Fail::Text(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
    );
    let (signed, digits) = match text {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => return Err(ERROR),
    };
    let most = if signed { 64 } else { 63 };
    protocol_resp::number::parse_i64(digits)
        .and_then(|bits| u32::try_from(bits).ok())
        .filter(|bits| (1..=most).contains(bits))
        .map(|bits| Width { bits, signed })
        .ok_or(ERROR)
}

/// A place in bits; behind `#` it counts integers of this width.
fn place(text: &[u8], width: Width) -> Result<usize, Fail> {
    match text {
        [b'#', digits @ ..] => offset(digits, width.bits.into()),
        _ => offset(text, 1),
    }
}

fn steps(args: &Args<'_>) -> Result<Vec<Step>, Fail> {
    let mut steps = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let left = args.len() - at - 1;
        if is(word, "OVERFLOW") && left >= 1 {
            let word = args.at(at + 1);
            overflow = if is(word, "WRAP") {
                Overflow::Wrap
            } else if is(word, "SAT") {
                Overflow::Saturate
            } else if is(word, "FAIL") {
                Overflow::Fail
            } else {
                return Err(Fail::Text("ERR Invalid OVERFLOW type specified"));
            };
            at += 2;
            continue;
        }
        let change: Option<fn(i64) -> Change> = if is(word, "GET") && left >= 2 {
            None
        } else if is(word, "SET") && left >= 3 {
            Some(Change::Set)
        } else if is(word, "INCRBY") && left >= 3 {
            Some(Change::Add)
        } else {
            return Err(Fail::Syntax);
        };
        let width = width(args.at(at + 1))?;
        let place = place(args.at(at + 2), width)?;
        let (change, words) = match change {
            None => (Change::Get, 3),
            Some(change) => (change(int(args.at(at + 3))?), 4),
        };
        steps.push(Step {
            width,
            at: place,
            change,
            overflow,
        });
        at += words;
    }
    Ok(steps)
}

impl Width {
    fn min(self) -> i128 {
        if self.signed {
            -(1 << (self.bits - 1))
        } else {
            0
        }
    }

    fn max(self) -> i128 {
        if self.signed {
            (1 << (self.bits - 1)) - 1
        } else {
            (1 << self.bits) - 1
        }
    }

    /// The integer whose lowest bits these are.
    fn value_of(self, bits: u64) -> i128 {
        let low = i128::from(bits) & ((1 << self.bits) - 1);
        if self.signed && low > self.max() {
            low - (1 << self.bits)
        } else {
            low
        }
    }

    /// `value` as it fits, or `None` when it must not be written.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i128> {
        if (self.min()..=self.max()).contains(&value) {
            return Some(value);
        }
        match overflow {
            // The low bits of a number are the same in any width.
            Overflow::Wrap => Some(self.value_of(value as u64)),
            Overflow::Saturate if value < 0 => Some(self.min()),
            Overflow::Saturate => Some(self.max()),
            Overflow::Fail => None,
        }
    }
}

/// The integer at a bit; behind the end of the string all bits are clear.
fn read(bytes: &[u8], step: &Step) -> i128 {
    let mut value = 0u64;
    for bit in step.at..step.at + step.width.bits as usize {
        let byte = bytes.get(bit / 8).copied().unwrap_or(0);
        value = value << 1 | u64::from(byte >> (7 - bit % 8) & 1);
    }
    step.width.value_of(value)
}

fn write(bytes: &mut [u8], step: &Step, value: i128) {
    for (place, bit) in (step.at..step.at + step.width.bits as usize)
        .rev()
        .enumerate()
    {
        if let Some(byte) = bytes.get_mut(bit / 8) {
            let mask = 0x80 >> (bit % 8);
            *byte = if value >> place & 1 == 1 {
                *byte | mask
            } else {
                *byte & !mask
            };
        }
    }
}

/// Does a step to a string that is long enough for it: what to answer.
fn run(bytes: &mut [u8], step: &Step) -> Option<i128> {
    let old = read(bytes, step);
    match step.change {
        Change::Get => Some(old),
        Change::Set(value) => {
            // Redis reads what is set as unsigned when the integer is.
            let value = if step.width.signed {
                i128::from(value)
            } else {
                i128::from(value.cast_unsigned())
            };
            let fitting = step.width.fit(value, step.overflow)?;
            // Redis' difference to the largest integer overflows for what is far below: it counts as too large.
            let far = step.width.max() - value > i128::from(i64::MAX);
            let fitting = if far && step.overflow == Overflow::Saturate && step.width.bits < 64 {
                step.width.max()
            } else {
                fitting
            };
            write(bytes, step, fitting);
            Some(old)
        }
        Change::Add(delta) => {
            let new = step.width.fit(old + i128::from(delta), step.overflow)?;
            write(bytes, step, new);
            Some(new)
        }
    }
}

fn bitfield(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let steps = steps(args)?;
    let ends = steps
        .iter()
        .filter(|step| !matches!(step.change, Change::Get))
        .map(|step| (step.at + step.width.bits as usize).div_ceil(8));
    let Some(needed) = ends.max() else {
        return look(cx, args.at(1), &steps);
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let most = view.string_max();
    let answers = view.edit_string(&name, |bytes| {
        let length = bytes.len();
        if length < needed && needed > most {
            return (None, 0..0);
        }
        if length < needed {
            bytes.resize(needed, 0);
        }
        // Pages before the first change and behind the last one are not written.
        let mut touched = if length < needed {
            length..needed
        } else {
            0..0
        };
        let answers: Vec<_> = steps
            .iter()
            .map(|step| {
                let answer = run(bytes, step);
                if answer.is_some() && !matches!(step.change, Change::Get) {
                    let (from, to) = (step.at / 8, step.at + step.width.bits as usize);
                    touched = if touched.is_empty() {
                        from..to.div_ceil(8)
                    } else {
                        touched.start.min(from)..touched.end.max(to.div_ceil(8))
                    };
                }
                answer
            })
            .collect();
        (Some(answers), touched)
    })?;
    let answers = answers.ok_or(Fail::Text(OOM))?;
    out.array(answers.len());
    for answer in answers {
        match answer {
            // At most i64 or u63.
            Some(value) => out.integer(value as i64),
            None => out.null(),
        }
    }
    Ok(())
}

fn look(cx: &mut Exec<'_, '_>, key: &[u8], steps: &[Step]) -> Done {
    let (name, mut view, out) = cx.on(key);
    let value = view.string(&name)?.unwrap_or(Member::Text(b""));
    out.array(steps.len());
    value.with(|bytes| {
        for step in steps {
            out.integer(read(bytes, step) as i64);
        }
    });
    Ok(())
}

fn bitfield_ro(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let steps = steps(args)?;
    if steps.iter().any(|step| !matches!(step.change, Change::Get)) {
        return Err(Fail::Text(
            "ERR BITFIELD_RO only supports the GET subcommand",
        ));
    }
    look(cx, args.at(1), &steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overflow_has_three_answers() {
        let u2 = Width {
            bits: 2,
            signed: false,
        };
        let i8 = Width {
            bits: 8,
            signed: true,
        };
        let i64_ = Width {
            bits: 64,
            signed: true,
        };
        for (width, value, wrapped, saturated) in [
            (u2, 4, 0, 3),
            (u2, -1, 3, 0),
            (i8, 128, -128, 127),
            (i8, -129, 127, -128),
            (
                i64_,
                i128::from(i64::MAX) + 1,
                i128::from(i64::MIN),
                i128::from(i64::MAX),
            ),
        ] {
            assert_eq!(width.fit(value, Overflow::Wrap), Some(wrapped));
            assert_eq!(width.fit(value, Overflow::Saturate), Some(saturated));
            assert_eq!(width.fit(value, Overflow::Fail), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_and_its_neighbours_stay(
            before in prop::collection::vec(any::<u8>(), 24),
            at in 0usize..100,
            bits in 1u32..=64,
            signed in any::<bool>(),
            value in any::<i64>(),
        ) {
            let width = Width { bits: if signed { bits } else { bits.min(63) }, signed };
            let step = |at, width, change| Step { width, at, change, overflow: Overflow::Wrap };
            let mut bytes = before.clone();
            run(&mut bytes, &step(at, width, Change::Set(value)));
            prop_assert_eq!(read(&bytes, &step(at, width, Change::Get)), width.value_of(value as u64));
            let bit = |bytes: &[u8], bit: usize| bytes[bit / 8] >> (7 - bit % 8) & 1;
            for other in (0..at).chain(at + width.bits as usize..before.len() * 8) {
                prop_assert_eq!(bit(&bytes, other), bit(&before, other));
            }
        }
    }
}
