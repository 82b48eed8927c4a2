//! Names that the server makes, and names that clients may not take.

use super::fault::{Fault, Result};

/// Consumed from, it means: what is published with this as reply-to comes straight back to this channel.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// A name from the wire: UTF-8, carriage returns and line feeds dropped as RabbitMQ does.
pub(super) fn text(raw: &[u8]) -> Result<String> {
    match std::str::from_utf8(raw) {
        Ok(text) if !text.contains(['\r', '\n']) => Ok(text.to_owned()),
        Ok(text) => Ok(text.replace(['\r', '\n'], "")),
        Err(_) => Err(Fault::connection(
            protocol_amqp::ReplyCode::SyntaxError,
            "a name is not valid UTF-8",
        )),
    }
}

/// `amq.gen-…`, `amq.ctag-…`: 16 random octets in URL-safe base64.
pub(super) fn random(prefix: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut octets = [0; 16];
    if getrandom::fill(&mut octets).is_err() {
        // Without a random source a clash is answered by the declaration of an existing queue, never by harm.
        tracing::warn!("no random numbers from the operating system");
    }
    let mut name = String::from(prefix);
    let bits = u128::from_be_bytes(octets);
    for index in 0..22 {
        let shift = 122_i32 - 6 * index;
        let six = if shift >= 0 {
            bits >> shift
        } else {
            bits << -shift
        } & 63;
        name.push(char::from(ALPHABET[six as usize]));
    }
    name
}

/// Refuses `amq.…`.
pub(super) fn check_reserved(kind: &str, name: &str) -> Result {
    if name.starts_with("amq.") {
        return Err(Fault::refused(format!(
            "{kind} name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn random_names_have_22_characters() {
        let (one, two) = (super::random("amq.gen-"), super::random("amq.gen-"));
        assert_eq!((one.len(), one == two), (30, false));
    }
}
