//! Which addresses are on the internet. Everything else may be a machine that only this farm
//! reaches: its own services, a router, a cloud's metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the internet, and not reserved for anything else.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IANA's registry of special IPv4 addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]          // this network, private, loopback
        | [100, 64..=127, ..]       // shared by customers of a provider
        | [169, 254, ..]            // link-local
        | [172, 16..=31, ..]        // private
        | [192, 0, 0 | 2, _]        // protocol assignments, documentation
        | [192, 88, 99, _]          // relays of 6to4
        | [192, 168, ..]            // private
        | [168, 63, 129, 16]        // services of a virtual machine's host (Azure)
        | [198, 18 | 19, ..]        // benchmarks
        | [198, 51, 100, _]         // documentation
        | [203, 0, 113, _]          // documentation
        | [224..=255, ..] // multicast, reserved, broadcast
    )
}

/// The addresses that are given out (2000::/3), without IANA's special ones. An address that stands
/// for one of IPv4 is as public as that one.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Mapped.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        // NAT64.
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4.
        | [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Protocol assignments, and tunnels (Teredo).
        [0x2001, 0..=0x1ff, ..] => false,
        // Documentation.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last address of each range that is not public, and their neighbours, which
    /// are, unless the next range begins there.
    const RANGES: &[(&str, &str, &str, &str)] = &[
        ("", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
        ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
        ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
        ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
        ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
        ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
        ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
        ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
        ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
        ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
        ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
        ("223.255.255.255", "224.0.0.0", "255.255.255.255", ""),
        ("", "::", "::fffe:ffff:ffff", ""),
        ("", "::ffff:10.0.0.0", "::ffff:10.255.255.255", "::ffff:11.0.0.0"),
        (
            "::ffff:126.255.255.255",
            "::ffff:127.0.0.1",
            "::ffff:127.255.255.255",
            "::ffff:128.0.0.0",
        ),
        ("", "::ffff:169.254.169.254", "::ffff:169.254.169.254", ""),
        ("", "::ffff:0.0.0.0", "::ffff:0.255.255.255", "::ffff:1.1.1.1"),
        ("", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8"),
        ("", "64:ff9b::192.168.0.1", "64:ff9b::169.254.169.254", "64:ff9b::1.1.1.1"),
        ("", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::8.8.8.8", ""),
        ("", "100::", "100::ffff:ffff:ffff:ffff", ""),
        ("", "1fff:ffff::", "1fff:ffff:ffff:ffff::", "2000::"),
        ("2000:ffff:ffff::", "2001::", "2001:1ff:ffff:ffff::", "2001:200::"),
        ("2001:db7:ffff::", "2001:db8::", "2001:db8:ffff:ffff::", "2001:db9::"),
        ("2001:ffff:ffff::", "2002:a00::", "2002:aff:ffff:ffff::", "2002:b00::"),
        ("2002:7eff:ffff::", "2002:7f00:1::", "2002:7fff:ffff::", "2002:8000::"),
        ("2002:a9fd:ffff::", "2002:a9fe:a9fe::", "2002:a9fe:ffff::", "2002:a9ff::"),
        ("3ffe:ffff:ffff::", "3fff::", "3fff:fff:ffff::", "3fff:1000::"),
        ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5fff:ffff::", ""),
        ("", "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
        ("", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
        ("", "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
        ("", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
        ("", "::1", "::127.0.0.1", ""),
    ];

    #[test]
    fn ranges_that_are_not_public_end_where_they_should() {
        for (before, first, last, after) in RANGES {
            let public = |text: &str| is_public(text.parse().expect(text));
            for inside in [first, last] {
                assert!(!public(inside), "{inside}");
            }
            for outside in [before, after].into_iter().filter(|text| !text.is_empty()) {
                assert!(public(outside), "{outside}");
            }
        }
        for address in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::200e"] {
            assert!(is_public(address.parse().expect(address)), "{address}");
        }
    }
}
