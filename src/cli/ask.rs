//! Asking a running server over its HTTP API.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::config::Config;

/// `method path` on the first HTTP address, logged in as the configured user; the answer's JSON, or what went wrong in words.
/// `why`: why the server is needed, for the message that it cannot be asked.
pub(super) fn ask(
    config: &Config,
    method: &str,
    path: &str,
    body: &Value,
    why: &str,
) -> Result<Value, String> {
    let addrs = config.http_addr.shifted(config.port_offset)?;
    let addr = addrs.0.first().map(reachable);
    let addr =
        addr.ok_or_else(|| format!("{why} and http-addr is off, so its server cannot be asked"))?;
    let unreachable = |error: std::io::Error| {
        format!(
            "{why}, and its server does not answer on http://{addr} (is --http-addr the server's?): {error}"
        )
    };
    let mut socket =
        TcpStream::connect_timeout(&addr, Duration::from_secs(5)).map_err(unreachable)?;
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let login = if config.password.is_empty() {
        String::new()
    } else {
        let pair = format!("{}:{}", config.user, config.password.expose());
        format!(
            "authorization: Basic {}\r\n",
            crate::api::base64::encode(pair.as_bytes())
        )
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\n{login}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).map_err(unreachable)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(unreachable)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("http://{addr} did not answer in HTTP"))?;
    let value = serde_json::from_str::<Value>(body).unwrap_or(Value::Null);
    let code = head.split(' ').nth(1).unwrap_or_default();
    if code.starts_with('2') {
        return Ok(value);
    }
    let told = value["error"].as_str().map(str::to_owned);
    let told = told.unwrap_or_else(|| match body.trim() {
        "" => head.lines().next().unwrap_or("").to_owned(),
        text => text.to_owned(),
    });
    if code == "401" {
        return Err(format!(
            "{told}: give the server's superuser with --user and FLOWMESH_PASSWORD or --password-file"
        ));
    }
    Err(told)
}

/// A text as a part of a path.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Where a client connects to a server that listens there.
fn reachable(addr: &SocketAddr) -> SocketAddr {
    let mut addr = *addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    addr
}
