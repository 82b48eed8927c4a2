//! Integers and doubles as Redis reads and writes them.

use std::io::Write;

/// Parses a signed decimal the strict way of Redis (`string2ll`): no sign `+`, no leading zeros, no blanks, no overflow.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative {
        0i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

/// Parses a double as Redis' `getDoubleFromObject`: whole text, no blanks, `inf`/`infinity` in any case, no NaN.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        if hex.is_empty() || hex.len() > 13 {
            return None;
        }
        let value = i64::from_str_radix(hex, 16).ok()? as f64;
        return Some(if text.starts_with('-') { -value } else { value });
    }
    let value: f64 = text.parse().ok()?;
    if value.is_nan() || (value.is_infinite() && !body.starts_with(['i', 'I'])) {
        return None;
    }
    // Too small for a double is out of range as well (ERANGE), unless it is written as zero.
    let mantissa = body.split(['e', 'E']).next().unwrap_or_default();
    if value == 0.0 && mantissa.contains(|digit| matches!(digit, '1'..='9')) {
        return None;
    }
    Some(value)
}

/// Parses the bound of a range as Redis does, by a bare `strtod`: blanks before it are skipped, nothing at all is zero,
/// too large is infinite and too small is zero.
pub fn parse_bound(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let text = text.trim_ascii_start();
    parse_f64(text).or_else(|| {
        let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        (!value.is_nan()).then_some(value)
    })
}

/// Appends an integer in decimal.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the shortest text that reads back as `value`, laid out as Redis 7.2 does: plain up to seven extra zeros or
/// six leading ones, else with an exponent (`1e+21`, `1.5e-10`), `inf`, `-inf`, `nan`.
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"nan");
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
        return;
    }
    if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() {
            b"-0"
        } else {
            b"0"
        });
        return;
    }
    // Below 2^63 an integral double is an integer; Valkey prints those in full.
    if value.abs() < 9_223_372_036_854_775_807.0 && value.trunc() == value {
        write_i64(out, value as i64);
        return;
    }
    if value < 0.0 {
        out.push(b'-');
    }
    let (digits, count, point) = shortest_digits(value.abs());
    let digits = digits.get(..count).unwrap_or_default();
    let count_i = count as i32;
    // value = digits × 10^k
    let k = point - count_i;
    let exponent = point - 1;
    if k >= 0 && exponent.abs() < count_i + 7 {
        out.extend_from_slice(digits);
        out.resize(out.len() + k.unsigned_abs() as usize, b'0');
    } else if k < 0 && (k > -7 || exponent.abs() < 4) {
        if point <= 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + point.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(point.unsigned_abs() as usize);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    } else {
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        write_i64(out, i64::from(exponent.abs()));
    }
}

/// The shortest decimal digits of a positive finite double, how many, and where the point stands after them
/// (`0.d₁d₂… × 10^point`).
fn shortest_digits(value: f64) -> ([u8; 20], usize, i32) {
    let mut text = [0u8; 32];
    let mut cursor = text.as_mut_slice();
    // `{:e}` prints the shortest digits: at most 17 of them, a point, and an exponent of up to four characters.
    let _ = write!(cursor, "{value:e}");
    let left = cursor.len();
    let used = text.len() - left;
    let mut digits = [0u8; 20];
    let mut count = 0;
    let mut exponent = 0i32;
    let mut negative = false;
    let mut in_exponent = false;
    for &byte in text.iter().take(used) {
        match byte {
            b'e' => in_exponent = true,
            b'-' => negative = true,
            b'0'..=b'9' if in_exponent => exponent = exponent * 10 + i32::from(byte - b'0'),
            b'0'..=b'9' => {
                if let Some(slot) = digits.get_mut(count) {
                    *slot = byte;
                    count += 1;
                }
            }
            _ => {}
        }
    }
    (
        digits,
        count,
        if negative { 1 - exponent } else { 1 + exponent },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: f64) -> String {
        let mut out = Vec::new();
        write_f64(&mut out, value);
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn integers_are_strict() {
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        for bad in [
            "",
            "-",
            "-0",
            "+1",
            "01",
            " 1",
            "1 ",
            "9223372036854775808",
            "1a",
            "-9223372036854775809",
        ] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn doubles_look_like_redis() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (3.1, "3.1"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (0.000001, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (1e21, "1e+21"),
            (1.0e17, "100000000000000000"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (17179869184.5, "17179869184.5"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn doubles_read_back() {
        assert_eq!(parse_f64(b"+inf"), Some(f64::INFINITY));
        assert_eq!(parse_f64(b"-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_f64(b"0x10"), Some(16.0));
        assert_eq!(parse_f64(b"0e-400"), Some(0.0));
        for bad in ["", "nan", " 1", "1 ", "abc", "1e400", "1e-400", "1,5"] {
            assert_eq!(parse_f64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn bounds_are_read_leniently() {
        for (text, value) in [
            ("", 0.0),
            (" 1", 1.0),
            ("1e400", f64::INFINITY),
            ("-1e400", f64::NEG_INFINITY),
            ("1e-400", 0.0),
            ("1.5", 1.5),
        ] {
            assert_eq!(parse_bound(text.as_bytes()), Some(value), "{text:?}");
        }
        for bad in [" ", "1 ", "nan", "abc", "("] {
            assert_eq!(parse_bound(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
