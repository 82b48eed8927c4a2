//! The types a knob can have: each reads and shows itself as the text that flags, environment variables and files share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use storage::Durability;

/// A value that a person writes in a flag, a variable or a file.
pub trait Value: Sized {
    /// What may be written, for help texts and tables.
    const KIND: &'static str;
    /// The text that leaves an optional value to the server.
    const UNSET: &'static str = "auto";
    /// Reads the text; the error says what was expected.
    fn parse(text: &str) -> Result<Self, String>;
    /// The text that [`Value::parse`] reads back to the same value.
    fn show(&self) -> String;
}

/// An amount of bytes. `unlimited` is [`Size::UNLIMITED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// No bound.
    pub const UNLIMITED: Self = Self(u64::MAX);

    /// The size as an in-memory length.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl Value for Size {
    const KIND: &'static str = "size (512, 64KiB, 1GiB)";

    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("unlimited") {
            return Ok(Self::UNLIMITED);
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or("").to_ascii_lowercase();
        // As in redis.conf, kb and mb count in 1024s too: a limit that is 2.4 % off surprises nobody, two meanings of "mb" do.
        let factor = match unit.as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1u64 << 40,
            _ => {
                return Err(format!(
                    "`{text}` is not a size; write for example 512, 64KiB, 1GiB or unlimited"
                ));
            }
        };
        let count: u64 = digits.trim().parse().map_err(|_| {
            format!("`{text}` is not a size; write for example 512, 64KiB, 1GiB or unlimited")
        })?;
        count
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is more than 16 EiB"))
    }

    fn show(&self) -> String {
        if *self == Self::UNLIMITED {
            return "unlimited".into();
        }
        for (name, factor) in UNITS {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return format!("{}{name}", self.0 / factor);
            }
        }
        "0".into()
    }
}

impl Value for Duration {
    const KIND: &'static str = "duration (500ms, 10s, 5m, 24h, 7d)";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a duration; write a number and a unit: 500ms, 10s, 5m, 24h, 7d, or unlimited"
            )
        };
        if text.eq_ignore_ascii_case("unlimited") {
            return Ok(Self::MAX);
        }
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let count: u64 = digits.trim().parse().map_err(|_| wrong())?;
        let unit_ms = match text.get(digits.len()..).unwrap_or("") {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        count
            .checked_mul(unit_ms)
            .map(Self::from_millis)
            .ok_or_else(wrong)
    }

    fn show(&self) -> String {
        if *self == Self::MAX {
            return "unlimited".into();
        }
        let ms = self.as_millis();
        for (name, unit) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
        ] {
            // 24h reads better than 1d, 90s better than 1500ms.
            if ms >= unit && ms.is_multiple_of(unit) && !(name == "d" && ms == unit) {
                return format!("{}{name}", ms / unit);
            }
        }
        if ms == 0 {
            "0".into()
        } else {
            format!("{ms}ms")
        }
    }
}

impl Value for Durability {
    const KIND: &'static str = "os, interval or sync";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            // Redis users know the same three as appendfsync no, everysec and always.
            "os" | "no" => Ok(Self::Os),
            "interval" | "everysec" => Ok(Self::Interval),
            "sync" | "always" => Ok(Self::Sync),
            _ => Err(format!(
                "`{text}` is not a durability class; it is os, interval or sync"
            )),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Os => "os",
            Self::Interval => "interval",
            Self::Sync => "sync",
        }
        .into()
    }
}

macro_rules! numbers {
    ($($ty:ty),*) => {$(
        impl Value for $ty {
            const KIND: &'static str = "number";

            fn parse(text: &str) -> Result<Self, String> {
                text.replace('_', "").parse().map_err(|_| format!("`{text}` is not a whole number from 0 to {}", Self::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
numbers!(u16, u32, u64, usize);

impl Value for bool {
    const KIND: &'static str = "true or false";

    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";
    const UNSET: &'static str = "";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("an empty path".into())
        } else {
            Ok(text.into())
        }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Some of the 16 Redis databases: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Databases(pub u16);

impl Value for Databases {
    const KIND: &'static str = "databases (off, all, 0, 0,3)";

    fn parse(text: &str) -> Result<Self, String> {
        let mut all = 0;
        match text {
            "off" => return Ok(Self(0)),
            "all" => return Ok(Self(u16::MAX)),
            _ => {}
        }
        for number in text.split(',').map(str::trim) {
            match number.parse::<u32>() {
                Ok(number) if number < u16::BITS => all |= 1 << number,
                _ => {
                    return Err(format!(
                        "`{number}` is not a database; write off, all, or numbers from 0 to 15 with commas"
                    ));
                }
            }
        }
        Ok(Self(all))
    }

    fn show(&self) -> String {
        match self.0 {
            0 => "off".into(),
            u16::MAX => "all".into(),
            bits => {
                let numbers = (0..u16::BITS).filter(|number| bits >> number & 1 == 1);
                let texts: Vec<String> = numbers.map(|number| number.to_string()).collect();
                texts.join(",")
            }
        }
    }
}

/// Permissions of a file, as chmod(1) takes them in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    const KIND: &'static str = "octal mode (700, 770)";
    const UNSET: &'static str = "umask";

    fn parse(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!(
                "`{text}` is not a file mode; write it in octal, for example 700 or 770"
            )),
        }
    }

    fn show(&self) -> String {
        format!("{:o}", self.0)
    }
}

/// [`Value::UNSET`] leaves the choice to the server.
impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case(T::UNSET) {
            Ok(None)
        } else {
            T::parse(text).map(Some)
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| T::UNSET.into(), Value::show)
    }
}

/// Where the data lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// In the data directory.
    Disk,
    /// The same engine on a directory that goes when the process ends.
    Memory,
}

impl Value for StorageKind {
    const KIND: &'static str = "disk or memory";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "disk" => Ok(Self::Disk),
            "memory" => Ok(Self::Memory),
            _ => Err(format!(
                "`{text}` is not a kind of storage; it is disk or memory"
            )),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
        .into()
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; one that is shown must be valid.
    Optional,
    /// Without a valid one the handshake fails.
    Required,
}

impl Value for ClientAuth {
    const KIND: &'static str = "none, optional or required";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(format!("`{text}` is none of none, optional and required")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::None => "none",
            Self::Optional => "optional",
            Self::Required => "required",
        }
        .into()
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text with `key=value` fields.
    Text,
    /// One JSON object per line.
    Json,
}

impl Value for LogFormat {
    const KIND: &'static str = "text or json";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is not a log format; it is text or json")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
        .into()
    }
}

/// Who may use Redis' `DEBUG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugCommand {
    /// Nobody.
    No,
    /// Connections from this machine.
    Local,
    /// Everybody who may administer the server.
    Yes,
}

impl Value for DebugCommand {
    const KIND: &'static str = "no, local or yes";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "no" => Ok(Self::No),
            "local" => Ok(Self::Local),
            "yes" => Ok(Self::Yes),
            _ => Err(format!("`{text}` is not one of no, local, yes")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::No => "no",
            Self::Local => "local",
            Self::Yes => "yes",
        }
        .into()
    }
}

/// Whether Redis clients are told that this is a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterMode {
    /// No.
    Off,
    /// Yes: of this one node, which has all slots.
    Emulated,
}

impl Value for ClusterMode {
    const KIND: &'static str = "off or emulated";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "emulated" => Ok(Self::Emulated),
            _ => Err(format!("`{text}` is neither off nor emulated")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "off",
            Self::Emulated => "emulated",
        }
        .into()
    }
}

/// A password: never shown, not even by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself; only for comparing with what a client sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "(none)"
        } else {
            "(hidden)"
        })
    }
}

impl Value for Secret {
    const KIND: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            String::new()
        } else {
            "(hidden)".into()
        }
    }
}

/// Where a face listens: some `host:port`, or nowhere (`off`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addrs(pub Vec<SocketAddr>);

impl Addrs {
    /// True when nobody but this machine can connect.
    pub fn loopback_only(&self) -> bool {
        self.0.iter().all(|addr| addr.ip().is_loopback())
    }

    /// The same hosts with `offset` added to each port. A port of 0 (any free one) stays.
    pub fn shifted(&self, offset: u16) -> Result<Self, String> {
        let mut all = self.0.clone();
        for addr in &mut all {
            if addr.port() != 0 {
                let port = addr.port().checked_add(offset).ok_or_else(|| {
                    format!(
                        "port {} plus port-offset {offset} is above 65535",
                        addr.port()
                    )
                })?;
                addr.set_port(port);
            }
        }
        Ok(Self(all))
    }
}

impl Value for Addrs {
    const KIND: &'static str =
        "addresses (127.0.0.1:6379, [::1]:6379, :6379 = every interface, 6379 = this machine, off)";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::default());
        }
        let mut all = Vec::new();
        for one in text.split(',').map(str::trim) {
            for addr in parse_addr(one)? {
                if !all.contains(&addr) {
                    all.push(addr);
                }
            }
        }
        Ok(Self(all))
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            return "off".into();
        }
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        texts.join(",")
    }
}

fn parse_addr(text: &str) -> Result<Vec<SocketAddr>, String> {
    let both = |v4: Ipv4Addr, v6: Ipv6Addr, port| {
        vec![
            SocketAddr::new(v4.into(), port),
            SocketAddr::new(v6.into(), port),
        ]
    };
    let wrong = || {
        format!(
            "`{text}` is not an address; write host:port with an IP or localhost, :port for every interface, or a port alone for this machine"
        )
    };
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(vec![addr]);
    }
    if let Ok(port) = text.parse::<u16>() {
        return Ok(both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, port));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` has no port; write {text}:PORT"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    match host {
        "" | "*" => Ok(both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, port)),
        "localhost" => Ok(both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, port)),
        // Names are not resolved: which interface a server opens must not depend on a name server.
        _ => Err(wrong()),
    }
}

/// The `host:port` that clients are told to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl Value for HostPort {
    const KIND: &'static str = "host:port";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not host:port, for example broker.example.com:9092");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    fn show(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round<T: Value>(text: &str) -> String {
        match T::parse(text) {
            Ok(value) => value.show(),
            Err(wrong) => format!("error: {wrong}"),
        }
    }

    #[test]
    fn sizes() {
        for (text, shown) in [
            ("0", "0"),
            ("1024", "1KiB"),
            ("64mb", "64MiB"),
            ("1G", "1GiB"),
            ("1500", "1500B"),
            ("unlimited", "unlimited"),
        ] {
            assert_eq!(round::<Size>(text), shown, "{text}");
        }
        for text in ["", "-1", "1.5GiB", "10 apples", "99999999999TiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn databases() {
        for (text, shown) in [("off", "off"), ("all", "all"), ("3, 0,3", "0,3")] {
            assert_eq!(round::<Databases>(text), shown, "{text}");
        }
        for text in ["", "16", "-1", "0,", "none"] {
            assert!(Databases::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn file_modes() {
        assert_eq!(round::<Option<FileMode>>("umask"), "umask");
        assert_eq!(round::<FileMode>("0770"), "770");
        for text in ["", "rw", "9", "1777"] {
            assert!(FileMode::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, shown) in [
            ("0", "0"),
            ("1500ms", "1500ms"),
            ("60s", "1m"),
            ("24h", "24h"),
            ("7d", "7d"),
            ("unlimited", "unlimited"),
        ] {
            assert_eq!(round::<Duration>(text), shown, "{text}");
        }
        for text in ["", "10", "-1s", "1 year", "99999999999999999d"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("127.0.0.1:6379", "127.0.0.1:6379"),
            (":50051", "0.0.0.0:50051,[::]:50051"),
            ("6379", "127.0.0.1:6379,[::1]:6379"),
            ("localhost:1", "127.0.0.1:1,[::1]:1"),
            ("127.0.0.1:1, [::1]:1", "127.0.0.1:1,[::1]:1"),
            ("off", "off"),
        ] {
            assert_eq!(round::<Addrs>(text), shown, "{text}");
        }
        for text in [
            "",
            "127.0.0.1",
            "::1",
            "example.com:80",
            "127.0.0.1:99999",
            "a,b",
        ] {
            assert!(Addrs::parse(text).is_err(), "{text}");
        }
        assert!(Addrs::parse("6379").is_ok_and(|a| a.loopback_only()));
        assert!(Addrs::parse(":6379").is_ok_and(|a| !a.loopback_only()));
        assert_eq!(
            Addrs::parse("127.0.0.1:0,127.0.0.1:5")
                .and_then(|a| a.shifted(10))
                .map(|a| a.show()),
            Ok("127.0.0.1:0,127.0.0.1:15".into())
        );
        assert!(
            Addrs::parse("127.0.0.1:65530")
                .and_then(|a| a.shifted(10))
                .is_err()
        );
    }

    #[test]
    fn passwords_are_never_shown() {
        let secret = Secret::parse("hunter2").unwrap();
        assert_eq!(
            (secret.show().as_str(), format!("{secret:?}").as_str()),
            ("(hidden)", "(hidden)")
        );
    }
}
