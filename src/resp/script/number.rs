//! Numbers as C's `printf("%.*g")` writes them, which is what scripts of Redis see everywhere.

/// `%.<digits>g` of a number.
pub(super) fn general(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return if value.is_sign_negative() {
            "-nan"
        } else {
            "nan"
        }
        .into();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-inf" } else { "inf" }.into();
    }
    let digits = digits.max(1);
    // Rounded to so many digits, which may carry into the exponent.
    let text = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let wanted = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= wanted {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.unsigned_abs());
    }
    let places = usize::try_from(wanted - 1 - exponent).unwrap_or(0);
    let fixed = format!("{value:.places$}");
    trim(&fixed).to_owned()
}

/// Without zeros at the end of a fraction.
fn trim(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

/// As C converts to `long long` on x86-64: what does not fit is the smallest.
pub(super) fn truncated(value: f64) -> i64 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if (-END..END).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_printf_writes_them() {
        let cases: [(f64, usize, &str); 16] = [
            (0.0, 14, "0"),
            (-0.0, 14, "-0"),
            (1.0, 14, "1"),
            (0.1, 14, "0.1"),
            (0.1, 17, "0.10000000000000001"),
            (1.5, 17, "1.5"),
            (1e20, 17, "1e+20"),
            (1e14, 14, "1e+14"),
            (99_999_999_999_999.0, 14, "99999999999999"),
            (999_999_999_999_999.0, 14, "1e+15"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (1.0 / 3.0, 14, "0.33333333333333"),
            (-1234.5678, 5, "-1234.6"),
            (3.0e-310, 14, "3e-310"),
            (f64::INFINITY, 14, "inf"),
        ];
        for (value, digits, text) in cases {
            assert_eq!(general(value, digits), text);
        }
        assert_eq!(truncated(-1.9), -1);
        assert_eq!(truncated(f64::NAN), i64::MIN);
        assert_eq!(truncated(1e30), i64::MIN);
    }
}
