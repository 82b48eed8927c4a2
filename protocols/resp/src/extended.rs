//! Numbers with the 64 bits of mantissa that Redis' `long double` has on x86: what `INCRBYFLOAT` and `HINCRBYFLOAT` read,
//! add and print. Every step is exact and then rounded once, ties to even, as `strtold`, the processor and `printf` do.

use std::cmp::Ordering;

/// `±mantissa × 2^exponent`, not normalised; infinite when the exponent is [`INFINITE`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Extended {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

const INFINITE: i32 = i32::MAX;
/// The exponent of the smallest number that is not zero.
const EXPONENT_MIN: i32 = -16_445;
/// Finite numbers are below two to this.
const MAGNITUDE_MAX: i32 = 16_384;
/// Redis reads no longer text (`MAX_LONG_DOUBLE_CHARS`).
const TEXT_MAX: usize = 5 * 1024;
/// Digits behind the point that Redis prints (`%.17Lf`).
const FRACTION: usize = 17;

impl Extended {
    /// Reads a whole text as Redis' `string2ld`: decimal or hexadecimal, `inf`, `infinity`; no blanks, no NaN, nothing too
    /// large, and nothing so small that it would become zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_MAX {
            return None;
        }
        let (negative, body) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if body.eq_ignore_ascii_case(b"inf") || body.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::infinite(negative));
        }
        let (digits, scale, base) = match body {
            [b'0', b'x' | b'X', rest @ ..] => scan(rest, 16)?,
            _ => scan(body, 10)?,
        };
        let value = if digits.is_zero() {
            round(negative, &digits, 0, false)
        } else if base == 16 {
            round(negative, &digits, scale, false)
        } else {
            decimal(negative, digits, scale)?
        };
        let vanished = value.mantissa == 0 && !digits_are_zero(body);
        (!value.is_infinite() && !vanished).then_some(value)
    }

    fn infinite(negative: bool) -> Self {
        Self {
            negative,
            mantissa: 0,
            exponent: INFINITE,
        }
    }

    /// The largest finite number, or its opposite.
    pub fn largest(negative: bool) -> Self {
        Self {
            negative,
            mantissa: u64::MAX,
            exponent: MAGNITUDE_MAX - 64,
        }
    }

    pub fn is_negative(self) -> bool {
        self.negative
    }

    #[must_use]
    pub fn opposite(self) -> Self {
        Self {
            negative: !self.negative,
            ..self
        }
    }

    /// In the order of numbers; zeros are equal.
    pub fn compare(self, other: Self) -> Ordering {
        let side = |value: Self| match (value.is_infinite(), value.negative) {
            (true, true) => -1,
            (true, false) => 1,
            (false, _) => 0,
        };
        let sides = side(self).cmp(&side(other));
        if sides != Ordering::Equal || self.is_infinite() {
            return sides;
        }
        match self.plus(other.opposite()) {
            Some(difference) if difference.mantissa == 0 => Ordering::Equal,
            Some(difference) if difference.negative => Ordering::Less,
            Some(_) => Ordering::Greater,
            // Of opposite signs.
            None if self.negative => Ordering::Less,
            None => Ordering::Greater,
        }
    }

    pub fn is_infinite(self) -> bool {
        self.exponent == INFINITE
    }

    /// The sum; `None` when it is infinite or not a number.
    pub fn plus(self, other: Self) -> Option<Self> {
        if self.is_infinite() || other.is_infinite() {
            return None;
        }
        let exponent = self.exponent.min(other.exponent);
        let lift = |value: Self| {
            let mut natural = Natural::from(value.mantissa);
            natural.shift_left(value.exponent.abs_diff(exponent));
            natural
        };
        let (mut a, mut b) = (lift(self), lift(other));
        let sum = if self.negative == other.negative {
            a.add(&b);
            round(self.negative, &a, exponent, false)
        } else if a.is_less(&b) {
            b.subtract(&a);
            round(other.negative, &b, exponent, false)
        } else {
            a.subtract(&b);
            round(self.negative, &a, exponent, false)
        };
        (!sum.is_infinite()).then_some(sum)
    }

    /// The digits as `%.17Lf` gives them, without zeros at the end; never `-0`.
    pub fn to_text(self) -> Vec<u8> {
        let (whole, fraction) = if self.exponent >= 0 {
            let mut whole = Natural::from(self.mantissa);
            whole.shift_left(self.exponent.unsigned_abs());
            (whole.into_digits(), String::new())
        } else {
            // At most 64 and 57 bits.
            let scaled = u128::from(self.mantissa) * 10u128.pow(FRACTION as u32);
            let shift = self.exponent.unsigned_abs();
            let scaled = if shift < 128 {
                let (kept, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
                let half = 1u128 << (shift - 1);
                kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
            } else {
                0
            };
            let digits = format!("{scaled:0width$}", width = FRACTION + 1);
            let (whole, fraction) = digits.split_at(digits.len() - FRACTION);
            (whole.to_owned(), fraction.trim_end_matches('0').to_owned())
        };
        let sign = if self.negative && (whole != "0" || !fraction.is_empty()) {
            "-"
        } else {
            ""
        };
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{whole}{point}{fraction}").into_bytes()
    }
}

/// The mantissa's digits are all zeros: the number is zero, not only close to it.
fn digits_are_zero(body: &[u8]) -> bool {
    let hex = matches!(body, [b'0', b'x' | b'X', ..]);
    let ends = |byte: &u8| matches!(byte, b'p' | b'P') || (!hex && matches!(byte, b'e' | b'E'));
    body.iter()
        .take_while(|byte| !ends(byte))
        .all(|byte| matches!(byte, b'0' | b'.' | b'x' | b'X'))
}

/// Digits with a point and an exponent as a whole number and a scale: powers of ten, or of two for hexadecimals.
fn scan(text: &[u8], base: u32) -> Option<(Natural, i32, u32)> {
    let (mut digits, mut scale) = (Natural::default(), 0i32);
    let (mut any, mut behind_point) = (false, false);
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        if *byte == b'.' && !behind_point {
            behind_point = true;
        } else if let Some(digit) = char::from(*byte).to_digit(base) {
            digits.multiply_add(base, digit);
            any = true;
            scale -= i32::from(behind_point) * if base == 16 { 4 } else { 1 };
        } else {
            break;
        }
        rest = tail;
    }
    if !any {
        return None;
    }
    let exponent = match rest {
        [] => 0,
        [b'p' | b'P', exponent @ ..] if base == 16 => whole(exponent)?,
        [b'e' | b'E', exponent @ ..] if base == 10 => whole(exponent)?,
        _ => return None,
    };
    Some((digits, scale + exponent, base))
}

/// A signed exponent. What is beyond any number's is as good as the largest.
fn whole(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i32, |value, digit| {
        (value * 10 + i32::from(digit - b'0')).min(1_000_000)
    });
    Some(if negative { -value } else { value })
}

/// `digits × 10^scale`; `None` when it is beyond all numbers.
fn decimal(negative: bool, mut digits: Natural, scale: i32) -> Option<Extended> {
    // The text's length bounds the digits, and this the powers.
    let magnitude = i64::from(scale) * 10 / 3 + i64::from(digits.bits());
    if magnitude > 2 * i64::from(MAGNITUDE_MAX) {
        return None;
    }
    if magnitude < 2 * i64::from(EXPONENT_MIN) {
        return Some(round(negative, &Natural::default(), 0, false));
    }
    if scale >= 0 {
        (0..scale).for_each(|_| digits.multiply_add(10, 0));
        return Some(round(negative, &digits, 0, false));
    }
    let mut divisor = Natural::from(1);
    (scale..0).for_each(|_| divisor.multiply_add(10, 0));
    // Shifted so that the quotient has 66 or 67 bits: 64, one to round by, and a rest for the ties.
    let up = 66 + i32::try_from(divisor.bits()).ok()? - i32::try_from(digits.bits()).ok()?;
    if up >= 0 {
        digits.shift_left(up.unsigned_abs());
    } else {
        divisor.shift_left(up.unsigned_abs());
    }
    let (quotient, rest) = digits.divide(divisor, 67);
    Some(round(negative, &quotient, -up, rest))
}

/// The nearest number to `natural × 2^exponent`; `rest` says that a bit more than that was meant.
fn round(negative: bool, natural: &Natural, exponent: i32, rest: bool) -> Extended {
    let bits = i32::try_from(natural.bits()).unwrap_or(i32::MAX);
    let drop = (bits - 64).max(EXPONENT_MIN.saturating_sub(exponent));
    let mut exponent = exponent;
    let mut mantissa = natural.low_u64();
    if drop > 0 {
        let drop_bits = drop.unsigned_abs();
        mantissa = natural.bits_from(drop_bits);
        exponent += drop;
        let half = natural.bit(drop_bits - 1);
        let more = rest || natural.any_below(drop_bits - 1);
        if half && (more || mantissa & 1 == 1) {
            mantissa = mantissa.wrapping_add(1);
            if mantissa == 0 {
                mantissa = 1 << 63;
                exponent += 1;
            }
        }
    }
    let magnitude = i64::from(exponent) + i64::from(64 - mantissa.leading_zeros());
    if mantissa == 0 {
        exponent = 0;
    } else if magnitude > i64::from(MAGNITUDE_MAX) {
        return Extended::infinite(negative);
    }
    Extended {
        negative,
        mantissa,
        exponent,
    }
}

/// A natural number of any size, its lowest 32 bits first, no zeros on top.
#[derive(Clone, Debug, Default)]
struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(value: u64) -> Self {
        let mut natural = Self(vec![low(value), low(value >> 32)]);
        natural.trim();
        natural
    }
}

fn low(value: u64) -> u32 {
    (value & u64::from(u32::MAX)) as u32
}

impl Natural {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> u32 {
        self.0
            .last()
            .map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }

    fn limb(&self, at: u32) -> u32 {
        self.0.get(at as usize).copied().unwrap_or(0)
    }

    fn bit(&self, at: u32) -> bool {
        self.limb(at / 32) >> (at % 32) & 1 == 1
    }

    fn any_below(&self, at: u32) -> bool {
        let whole = self.0.iter().take((at / 32) as usize);
        whole.into_iter().any(|limb| *limb != 0) || self.limb(at / 32) & ((1 << (at % 32)) - 1) != 0
    }

    fn low_u64(&self) -> u64 {
        self.bits_from(0)
    }

    /// 64 bits from bit `at`.
    fn bits_from(&self, at: u32) -> u64 {
        let limb = |place: u32| u128::from(self.limb(at / 32 + place)) << (32 * place);
        let three = limb(0) | limb(1) | limb(2);
        ((three >> (at % 32)) & u128::from(u64::MAX)) as u64
    }

    fn multiply_add(&mut self, factor: u32, term: u32) {
        let mut carry = u64::from(term);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = low(carry);
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(low(carry));
        }
    }

    fn shift_left(&mut self, count: u32) {
        if self.is_zero() {
            return;
        }
        let (limbs, bits) = (count / 32, count % 32);
        let mut carry = 0u64;
        for limb in &mut self.0 {
            carry |= u64::from(*limb) << bits;
            *limb = low(carry);
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(low(carry));
        }
        let zeros = std::iter::repeat_n(0, limbs as usize);
        self.0.splice(0..0, zeros);
    }

    fn is_less(&self, other: &Self) -> bool {
        self.0.len() < other.0.len()
            || (self.0.len() == other.0.len() && self.0.iter().rev().lt(other.0.iter().rev()))
    }

    fn add(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        let mut carry = 0u64;
        for (at, limb) in (0u32..).zip(&mut self.0) {
            carry += u64::from(*limb) + u64::from(other.limb(at));
            *limb = low(carry);
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(low(carry));
        }
    }

    /// `other` is not larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = 0u64;
        for (at, limb) in (0u32..).zip(&mut self.0) {
            let taken = u64::from(other.limb(at)) + borrow;
            borrow = u64::from(taken > u64::from(*limb));
            *limb = low(u64::from(*limb).wrapping_sub(taken));
        }
        self.trim();
    }

    /// The quotient, which has at most `bits` bits, and whether there is a rest.
    fn divide(mut self, mut divisor: Self, bits: u32) -> (Self, bool) {
        let mut quotient = Self::default();
        let mut shifted = bits;
        divisor.shift_left(bits);
        loop {
            quotient.shift_left(1);
            if !self.is_less(&divisor) {
                self.subtract(&divisor);
                quotient.add(&Self::from(1));
            }
            if shifted == 0 {
                return (quotient, !self.is_zero());
            }
            divisor.halve();
            shifted -= 1;
        }
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.0.iter_mut().rev() {
            let next = *limb & 1;
            *limb = *limb >> 1 | carry << 31;
            carry = next;
        }
        self.trim();
    }

    fn into_digits(mut self) -> String {
        const CHUNK: u64 = 1_000_000_000;
        let mut chunks = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                rest = rest << 32 | u64::from(*limb);
                *limb = low(rest / CHUNK);
                rest %= CHUNK;
            }
            self.trim();
            chunks.push(rest);
        }
        let Some(top) = chunks.pop() else {
            return "0".to_owned();
        };
        let mut digits = top.to_string();
        for chunk in chunks.iter().rev() {
            digits.push_str(&format!("{chunk:09}"));
        }
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let sum = Extended::parse(a.as_bytes())?.plus(Extended::parse(b.as_bytes())?)?;
        Some(String::from_utf8(sum.to_text()).expect("ascii"))
    }

    // Each as Valkey 9.1.2 answered on x86-64.
    #[test]
    fn sums_are_those_of_a_long_double() {
        for (a, b, wanted) in [
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "200", "5200"),
            ("-0.1", "0.1", "0"),
            ("-0", "-0", "0"),
            ("0", "-1e-19", "0"),
            ("9007199254740993", "0x1p3", "9007199254741001"),
            ("9.5", "0x.8", "10"),
            (
                "10",
                "17179869184.123456789",
                "17179869194.12345678918063641",
            ),
            ("10", "1e-4940", "10"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "2", "18446744073709551616"),
            ("18446744073709551615", "3", "18446744073709551618"),
            (".5", "5.", "5.5"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(wanted), "{a} + {b}");
        }
        let large = sum("1e400", "0").expect("fits");
        assert!(
            large.starts_with("1000000000000000000028188068394758"),
            "{large}"
        );
        let large = sum("1e4932", "1e4931").expect("fits");
        assert!(
            large.starts_with("11000000000000000000388685811252787432534"),
            "{large}"
        );
        assert_eq!(large.len(), 4933);
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for bad in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            "0x",
            "0x1p",
            " 1",
            "1 ",
            "nan",
            "1e5000",
            "1e-5000",
            "1_0",
            "0x1p16384",
            "1e99999999999",
        ] {
            assert!(Extended::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e4932", "1e4932"), None);
        assert_eq!(sum("0e99999999999", "1").as_deref(), Some("1"));
        assert_eq!(sum("0x1p16383", "-0x1p16383").as_deref(), Some("0"));
    }
}
