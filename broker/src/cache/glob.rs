//! Patterns as in `KEYS`, `SCAN MATCH` and `PSUBSCRIBE`: `*`, `?`, `[a-c]`, `[^x]`, `\` before any of them.

/// Does the whole text match? Linear in the text for each `*`: only the last star is tried again.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    // After the last star: the pattern behind it and the text it has not swallowed yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match p {
            [b'*', rest @ ..] => {
                star = Some((rest, t));
                p = rest;
                continue;
            }
            [] if t.is_empty() => return true,
            [] => None,
            _ => t
                .split_first()
                .and_then(|(&byte, tail)| one(p, byte).map(|rest| (rest, tail))),
        };
        match (step, star) {
            (Some((rest, tail)), _) => (p, t) = (rest, tail),
            (None, Some((behind, swallowed))) => {
                let Some((_, tail)) = swallowed.split_first() else {
                    return false;
                };
                star = Some((behind, tail));
                (p, t) = (behind, tail);
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte with the front of the pattern (not a star); the pattern behind it.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut p) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    loop {
        match p {
            // A class that is not closed ends with the pattern.
            [] => break,
            [b']', rest @ ..] => {
                p = rest;
                break;
            }
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                p = rest;
            }
            [from, b'-', to, rest @ ..] if *to != b']' || !rest.is_empty() => {
                let (low, high) = if from <= to { (from, to) } else { (to, from) };
                found |= (*low..=*high).contains(&byte);
                p = rest;
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                p = rest;
            }
        }
    }
    (found != negated).then_some(p)
}

/// The literal text that every match begins with.
#[must_use]
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern
        .iter()
        .position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
        .unwrap_or(pattern.len());
    pattern.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn like_redis() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("*a", "ba", true),
            ("[", "", false),
            ("a[", "ab", false),
            ("**", "x", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
        assert!(!matches(&b"a*".repeat(50), &b"a".repeat(49)));
    }
}
