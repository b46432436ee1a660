//! Addresses as people read them.

use redis::ConnectionAddr;

/// An address for people; IPv6 is in brackets, as in URLs.
pub(super) fn shown(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
            if host.contains(':') =>
        {
            format!("[{host}]:{port}")
        }
        address => address.to_string(),
    }
}
