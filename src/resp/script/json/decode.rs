//! JSON as Lua values.

use mlua::{Lua, Value};

use super::{DEPTH_MAX, Settings};
use crate::resp::script::api::Trouble;

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    /// As errors name it.
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Error(why) => why,
        }
    }
}

struct Parser<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    /// Where the last token began, or broke.
    token_at: usize,
    depth: i64,
    settings: &'a Settings,
}

pub(super) fn decode(lua: &Lua, text: &[u8], settings: &Settings) -> Result<Value, Trouble> {
    if matches!(text, [0, _, ..] | [_, 0, ..]) {
        return Err("JSON parser does not support UTF-16 or UTF-32".into());
    }
    let mut parser = Parser {
        lua,
        text,
        at: 0,
        token_at: 0,
        depth: 0,
        settings,
    };
    let token = parser.next();
    let value = parser.value(token)?;
    match parser.next() {
        Token::End => Ok(value),
        token => Err(parser.expected("the end", &token)),
    }
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, what: &str, token: &Token) -> Trouble {
        Trouble::Text(format!(
            "Expected {what} but found {} at character {}",
            token.name(),
            self.token_at + 1
        ))
    }

    /// An error is at the place where the reader stands.
    fn broken(&mut self, why: &'static str) -> Token {
        self.token_at = self.at;
        Token::Error(why)
    }

    fn next(&mut self) -> Token {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.token_at = self.at;
        let token = match self.peek(0) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            0 if self.at >= self.text.len() => return Token::End,
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => {
                if !self.settings.decode_invalid && self.is_invalid_number() {
                    return self.broken("invalid number");
                }
                return self.number();
            }
            _ => {
                for (word, token) in [
                    (&b"true"[..], Token::Boolean(true)),
                    (b"false", Token::Boolean(false)),
                    (b"null", Token::Null),
                ] {
                    if self.rest().starts_with(word) {
                        self.at += word.len();
                        return token;
                    }
                }
                if self.settings.decode_invalid && self.is_invalid_number() {
                    return self.number();
                }
                return self.broken("invalid token");
            }
        };
        self.at += 1;
        token
    }

    /// What C reads as a number and JSON does not have.
    fn is_invalid_number(&self) -> bool {
        if self.peek(0) == b'+' {
            return true;
        }
        let sign = usize::from(self.peek(0) == b'-');
        let after = self.rest().get(sign..).unwrap_or_default();
        match after {
            [b'0', b'x' | b'X' | b'0'..=b'9', ..] => true,
            [b'0'..=b'9', ..] => false,
            _ => [&b"inf"[..], b"nan"].iter().any(|word| {
                after
                    .get(..3)
                    .is_some_and(|start| start.eq_ignore_ascii_case(word))
            }),
        }
    }

    fn number(&mut self) -> Token {
        match strtod(self.rest()) {
            Some((value, length)) => {
                self.at += length;
                Token::Number(value)
            }
            None => self.broken("invalid number"),
        }
    }

    fn string(&mut self) -> Token {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let plain = self.rest();
            let length = plain
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0))
                .unwrap_or(plain.len());
            text.extend_from_slice(plain.get(..length).unwrap_or_default());
            self.at += length;
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Token::Text(text);
                }
                b'\\' => {}
                _ => return self.broken("unexpected end of string"),
            }
            let byte = match self.peek(1) {
                byte @ (b'"' | b'\\' | b'/') => byte,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let Some((code, length)) = self.unicode() else {
                        return self.broken("invalid unicode escape code");
                    };
                    let mut buffer = [0; 4];
                    text.extend_from_slice(code.encode_utf8(&mut buffer).as_bytes());
                    self.at += length;
                    continue;
                }
                _ => return self.broken("invalid escape code"),
            };
            text.push(byte);
            self.at += 2;
        }
    }

    fn hex(&self, ahead: usize) -> Option<u32> {
        (0..4).try_fold(0, |value, place| {
            Some(value << 4 | char::from(self.peek(ahead + place)).to_digit(16)?)
        })
    }

    /// `\uXXXX`, or two of them that are one character; how long it is written.
    fn unicode(&self) -> Option<(char, usize)> {
        let high = self.hex(2)?;
        if high & 0xf800 != 0xd800 {
            return Some((char::from_u32(high)?, 6));
        }
        if high & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
            return None;
        }
        let low = self.hex(8)?;
        if low & 0xfc00 != 0xdc00 {
            return None;
        }
        let code = 0x1_0000 + ((high & 0x3ff) << 10) + (low & 0x3ff);
        Some((char::from_u32(code)?, 12))
    }

    fn descend(&mut self) -> Result<(), Trouble> {
        self.depth += 1;
        if self.depth <= self.settings.decode_depth.min(DEPTH_MAX) {
            return Ok(());
        }
        Err(Trouble::Text(format!(
            "Found too many nested data structures ({}) at character {}",
            self.depth, self.at
        )))
    }

    fn value(&mut self, token: Token) -> Result<Value, Trouble> {
        Ok(match token {
            Token::Text(text) => Value::String(self.lua.create_string(text)?),
            Token::Number(number) => Value::Number(number),
            Token::Boolean(yes) => Value::Boolean(yes),
            Token::Null => Value::NULL,
            Token::ObjectBegin => self.object()?,
            Token::ArrayBegin => self.array()?,
            other => return Err(self.expected("value", &other)),
        })
    }

    fn object(&mut self) -> Result<Value, Trouble> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if !matches!(token, Token::ObjectEnd) {
            loop {
                let Token::Text(key) = token else {
                    return Err(self.expected("object key string", &token));
                };
                token = self.next();
                if !matches!(token, Token::Colon) {
                    return Err(self.expected("colon", &token));
                }
                token = self.next();
                let value = self.value(token)?;
                table.raw_set(self.lua.create_string(key)?, value)?;
                token = self.next();
                match token {
                    Token::ObjectEnd => break,
                    Token::Comma => token = self.next(),
                    other => return Err(self.expected("comma or object end", &other)),
                }
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }

    fn array(&mut self) -> Result<Value, Trouble> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if !matches!(token, Token::ArrayEnd) {
            for place in 1_usize.. {
                let value = self.value(token)?;
                table.raw_set(place, value)?;
                token = self.next();
                match token {
                    Token::ArrayEnd => break,
                    Token::Comma => token = self.next(),
                    other => return Err(self.expected("comma or array end", &other)),
                }
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }
}

/// The number at the front, and its length, as C's `strtod` reads it: hexadecimal, `inf` and `nan` too.
fn strtod(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let negative = text.first() == Some(&b'-');
    let signed = |value: f64| if negative { -value } else { value };
    let rest = text.get(sign..)?;
    let word = |word: &[u8]| {
        rest.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    for (name, value) in [
        (&b"infinity"[..], f64::INFINITY),
        (b"inf", f64::INFINITY),
        (b"nan", f64::NAN),
    ] {
        if word(name) {
            return Some((signed(value), sign + name.len()));
        }
    }
    if let [b'0', b'x' | b'X', digits @ ..] = rest
        && let Some((value, length)) = hexadecimal(digits)
    {
        return Some((signed(value), sign + 2 + length));
    }
    let digits = |from: usize| {
        let part = rest.get(from..).unwrap_or_default();
        part.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut end = whole;
    if rest.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if end == 0 {
        return None;
    }
    if matches!(rest.get(end), Some(b'e' | b'E')) {
        let exponent = end + 1 + usize::from(matches!(rest.get(end + 1), Some(b'-' | b'+')));
        let length = digits(exponent);
        if length > 0 {
            end = exponent + length;
        }
    }
    let number = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
    Some((signed(number), sign + end))
}

/// Digits, a point and a binary exponent behind `0x`.
fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let (mut value, mut at, mut scale, mut point, mut any) = (0.0_f64, 0, 0_i32, false, false);
    while let Some(byte) = text.get(at) {
        if *byte == b'.' && !point {
            point = true;
        } else if let Some(digit) = char::from(*byte).to_digit(16) {
            value = value * 16.0 + f64::from(digit);
            scale -= if point { 4 } else { 0 };
            any = true;
        } else {
            break;
        }
        at += 1;
    }
    if !any {
        return None;
    }
    if matches!(text.get(at), Some(b'p' | b'P')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'-' | b'+')));
        let digits = text.get(at + 1 + sign..).unwrap_or_default();
        let length = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if length > 0 {
            let exponent = std::str::from_utf8(text.get(at + 1..at + 1 + sign + length)?).ok()?;
            scale = scale.saturating_add(exponent.parse::<i32>().unwrap_or(i32::MAX / 2));
            at += 1 + sign + length;
        }
    }
    Some((value * 2.0_f64.powi(scale), at))
}
