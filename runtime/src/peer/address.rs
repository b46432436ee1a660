//! Where a farm is, as a user writes it: `host:port`, `[IPv6]:port`, `http://host:port`,
//! `https://host:port`, or several of them separated by commas. Everything else is refused with a
//! sentence that names the setting.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use darkroom_core::error::UserError;

use crate::tls::{ClientSettings, ClientTls};

/// Most addresses that one setting may hold.
const MOST: usize = 16;
/// Longest part of a wrong value that is quoted in a sentence.
const SHOWN: usize = 100;
const ACCEPTED: &str = "accepted: host:port, [IPv6 address]:port, http://host:port or https://host:port, and several of them separated by commas";

/// One host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address; IPv6 without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// Whether to speak TLS.
    pub tls: bool,
}

impl Address {
    /// The same as a URI.
    #[must_use]
    pub fn uri(&self) -> String {
        if self.tls { self.to_string() } else { format!("http://{self}") }
    }

    /// Whether it is an address of this machine, of whatever network. What is sent there does not
    /// leave the machine.
    pub(crate) fn is_this_machines(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        self.is_here() || ip.is_ok_and(|ip| std::net::UdpSocket::bind((ip, 0)).is_ok())
    }

    /// Whether it is surely on this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https://" } else { "" };
        if self.host.contains(':') {
            write!(f, "{scheme}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}{}:{}", self.host, self.port)
        }
    }
}

/// One address or several, in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

impl Addresses {
    /// Parses the value of the setting `farm`.
    ///
    /// # Errors
    /// A sentence with the setting, the value, and what is accepted.
    pub fn parse(text: &str) -> Result<Self, UserError> {
        if text.is_empty() {
            return Err(refused("farm is empty"));
        }
        let mut addresses = Vec::new();
        for entry in text.split(',') {
            let address = address(entry)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() > MOST {
            return Err(refused(&format!(
                "farm names {} addresses; the limit is {MOST}",
                addresses.len()
            )));
        }
        Ok(Self(addresses))
    }

    /// The TLS of a client of these addresses, if one of them is `https://`.
    ///
    /// # Errors
    /// One sentence for settings that cannot be used, and for settings of TLS beside an address of
    /// another machine that is plain text.
    pub fn secure(&self, settings: &ClientSettings) -> Result<Option<ClientTls>, UserError> {
        settings.check()?;
        let plain = self.0.iter().find(|address| !address.tls && !address.is_here());
        if let (Some(set), Some(plain)) = (settings.asked_by(), plain) {
            return Err(UserError::invalid(
                "farm",
                format!(
                    "farm is {plain}, which is plain text, and {set} is set; write https://{plain}, or leave {set} out"
                ),
            ));
        }
        if self.0.iter().any(|address| address.tls) { settings.open().map(Some) } else { Ok(None) }
    }

    /// The addresses; at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[Address] {
        &self.0
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, address) in self.0.iter().enumerate() {
            let before = if position == 0 { "" } else { ", " };
            write!(f, "{before}{address}")?;
        }
        Ok(())
    }
}

fn refused(what: &str) -> UserError {
    UserError::invalid("farm", format!("{what}; {ACCEPTED}"))
}

fn address(entry: &str) -> Result<Address, UserError> {
    let wrong = |why: &str| {
        let shown: String = entry.chars().take(SHOWN).collect();
        refused(&format!("farm is {shown:?}, {why}"))
    };
    if entry.is_empty() {
        return Err(refused("farm has a comma with no address beside it"));
    }
    if entry.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err(wrong("which has a space or a control character in it"));
    }
    if entry.contains('@') {
        // The value is not quoted, because it may contain a password.
        return Err(refused(
            "farm has a user name or a password in it, which a farm does not ask for",
        ));
    }
    let (place, tls) = match entry.split_once("://") {
        None if entry.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("unix:")) => {
            return Err(wrong("a Unix socket, which is not supported"));
        }
        None => (entry, false),
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" => (rest.strip_suffix('/').unwrap_or(rest), false),
            "https" | "grpcs" => (rest.strip_suffix('/').unwrap_or(rest), true),
            _ => return Err(wrong("which begins with an unknown scheme")),
        },
    };
    if place.contains(['/', '?', '#', '\\']) {
        return Err(wrong(
            "which has a path after the port; a farm's address is only a host and a port",
        ));
    }
    let (host, port) = split(place).map_err(wrong)?;
    let port = match port.parse::<u16>() {
        Ok(0) | Err(_) => Err(wrong("whose port is not a number from 1 to 65535")),
        // Rust would parse `+80` as a number.
        Ok(_) if !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(wrong("whose port is not a number from 1 to 65535"))
        }
        Ok(port) => Ok(port),
    }?;
    Ok(Address { host, port, tls })
}

/// The checked host, and the text of the port.
fn split(place: &str) -> Result<(String, &str), &'static str> {
    if let Some(rest) = place.strip_prefix('[') {
        let (inner, behind) = rest.split_once(']').ok_or("whose bracket is not closed")?;
        let host: Ipv6Addr =
            inner.parse().map_err(|_| "whose brackets do not hold an IPv6 address")?;
        let port = behind.strip_prefix(':').ok_or("which has no port")?;
        return Ok((host.to_string(), port));
    }
    if place.parse::<Ipv6Addr>().is_ok() || place.matches(':').count() > 1 {
        return Err("which looks like an IPv6 address without brackets around it");
    }
    let (host, port) = place.split_once(':').ok_or("which has no port")?;
    if port.is_empty() {
        return Err("which has no port");
    }
    if host.is_empty() {
        return Err("which has no host");
    }
    if !host.is_ascii() {
        return Err("whose host is not ASCII: write it in its xn-- form");
    }
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 253 || !name.split('.').all(part) {
        return Err("whose host is neither a name nor an IP address");
    }
    let number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if number && name.parse::<Ipv4Addr>().is_err() {
        return Err("whose host is not a whole IPv4 address");
    }
    Ok((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_addresses_are_told_from_others() {
        let is = |text: &str| address(text).expect(text).is_this_machines();
        assert!(is("localhost:1") && is("127.0.0.1:1") && is("[::1]:1"));
        // Addresses for documentation, which no machine has.
        assert!(!is("192.0.2.1:1") && !is("[2001:db8::1]:1") && !is("farm.example.org:1"));
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, shown) in [
            ("localhost:7878", "localhost:7878"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:7878", "[::1]:7878"),
            ("[0:0::1]:7878", "[::1]:7878"),
            ("http://farm.example.org:65535", "farm.example.org:65535"),
            ("HTTP://Farm:80/", "farm:80"),
            ("http://[::1]:80", "[::1]:80"),
            ("my_farm:7878", "my_farm:7878"),
            ("farm.local.:7878", "farm.local.:7878"),
            ("a:1,b:2,http://c:3", "a:1, b:2, c:3"),
            ("a:1,a:1,A:1", "a:1"),
            ("https://Farm.example.org:7878/", "https://farm.example.org:7878"),
            ("HTTPS://[::1]:443", "https://[::1]:443"),
            ("a:1,grpcs://a:1", "a:1, https://a:1"),
        ] {
            assert_eq!(Addresses::parse(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn other_values_are_refused_with_the_setting_and_the_reason() {
        for (text, why) in [
            ("", "empty"),
            (",", "comma"),
            ("a:1,", "comma"),
            ("a:1,,b:2", "comma"),
            ("localhost", "no port"),
            ("localhost:", "no port"),
            ("http://localhost", "no port"),
            ("http://localhost/", "no port"),
            ("[::1]", "no port"),
            ("[::1]7878", "no port"),
            (":7878", "no host"),
            ("7878", "no port"),
            ("::1", "brackets"),
            ("::1:7878", "brackets"),
            ("::::", "brackets"),
            ("fe80::1%eth0:7878", "brackets"),
            ("[::1:7878", "not closed"),
            ("[fe80::1%eth0]:7878", "IPv6"),
            ("[localhost]:7878", "IPv6"),
            ("localhost:0", "1 to 65535"),
            ("localhost:65536", "1 to 65535"),
            ("localhost:+80", "1 to 65535"),
            ("localhost:http", "1 to 65535"),
            ("localhost:78 78", "space"),
            (" localhost:7878", "space"),
            ("a:1, b:2", "space"),
            ("localhost:7878\n", "space"),
            ("localhost:7878\u{a0}", "space"),
            ("HTTPS://localhost", "no port"),
            ("https://:443", "no host"),
            ("https://localhost:443/farm", "path"),
            ("unix:/run/farm.sock", "Unix"),
            ("unix:///run/farm.sock", "scheme"),
            ("dns:///farm:7878", "scheme"),
            ("ftp://farm:21", "scheme"),
            ("http://localhost:7878/farm", "path"),
            ("localhost:7878/", "path"),
            ("localhost:7878?x", "path"),
            ("http:///:80", "path"),
            ("farm..org:7878", "neither"),
            ("*:7878", "neither"),
            ("farm!:7878", "neither"),
            ("fárm:7878", "xn--"),
            ("127.1:7878", "IPv4"),
            ("256.0.0.1:7878", "IPv4"),
        ] {
            let error = Addresses::parse(text).expect_err(text);
            assert_eq!(error.field.as_deref(), Some("farm"), "{text}");
            let message = error.message;
            assert!(
                message.starts_with("farm ") && message.contains("accepted: host:port"),
                "{message}"
            );
            assert!(message.contains(why), "{text:?} should be refused for {why:?}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
        let long = format!("{}:7878", "x".repeat(10_000));
        assert!(Addresses::parse(&long).expect_err("long").message.len() < 400);
        let many = (1..=17).map(|port| format!("a:{port}")).collect::<Vec<_>>().join(",");
        assert!(Addresses::parse(&many).expect_err("many").message.contains("limit is 16"));
    }

    #[test]
    fn a_password_is_not_repeated() {
        let message = Addresses::parse("http://me:s3cr@farm:7878").expect_err("user info").message;
        assert!(message.contains("password") && !message.contains("s3cr"), "{message}");
    }
}
