//! Why a client has no TLS connection to a farm.

/// Why a client has no TLS connection to a farm. The text continues "the farm at ADDRESS cannot be
/// reached over TLS: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody that this machine trusts has signed the certificate.
    #[error(
        "its certificate is signed by an authority that this machine does not know; name the file of that authority with --ca"
    )]
    UnknownAuthority,
    /// The certificate is an authority's own.
    #[error(
        "its certificate is that of an authority (CA:TRUE); it needs one for a server, signed by the authority"
    )]
    OwnAuthority,
    /// The certificate is over.
    #[error(
        "its certificate expired on {until}, and the clock of this machine says {now}; renew the certificate, or set the clock"
    )]
    Expired {
        /// The end of its validity, a date.
        until: String,
        /// The date here.
        now: String,
    },
    /// The certificate is not valid yet.
    #[error(
        "its certificate is valid from {from}, and the clock of this machine says {now}; set the clock, or wait"
    )]
    NotYetValid {
        /// The beginning of its validity, a date.
        from: String,
        /// The date here.
        now: String,
    },
    /// The certificate is for other names.
    #[error(
        "its certificate is not for {wanted} but for {names}; name the farm with --farm as its certificate does, or have \
         {wanted} added to the certificate"
    )]
    WrongName {
        /// The host of the address.
        wanted: String,
        /// What the certificate is for.
        names: String,
    },
    /// What answers is not TLS.
    #[error(
        "what listens there does not speak TLS; for a farm in plain text, write the address without https://"
    )]
    PlainText,
    /// The connection ended during the handshake.
    #[error(
        "what listens there ended the connection during the handshake; perhaps it does not speak TLS"
    )]
    Ended,
    /// TLS, without HTTP/2.
    #[error("what listens there speaks TLS but not HTTP/2, so it is no farm")]
    NoHttp2,
    /// The farm wants a certificate of the client.
    #[error(
        "it asks for a client certificate; name one with --client-cert and its key with --client-key"
    )]
    AsksForCertificate,
    /// The farm does not accept the certificate of the client.
    #[error(
        "it does not accept the client certificate ({0}); name another with --client-cert and --client-key, or leave them out"
    )]
    RefusesCertificate(&'static str),
    /// The host cannot be in a certificate.
    #[error("{0} is not a name that a certificate can have; use another name of the farm")]
    NoName(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// Whether the same attempt may succeed soon.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// The fault behind rustls's text about an alert of the other side. HTTP/2 keeps only the text
    /// of an error, and the alert about a client certificate arrives on the open connection.
    pub(crate) fn of_alert(text: &str) -> Option<Self> {
        let (_, alert) = text.split_once("received fatal alert: ")?;
        let alert: String = alert.chars().take_while(char::is_ascii_alphanumeric).collect();
        Some(match alert.as_str() {
            "CertificateRequired" => Self::AsksForCertificate,
            "UnknownCA" => Self::RefusesCertificate("the farm does not know its authority"),
            "CertificateExpired" => Self::RefusesCertificate(
                "it has expired or is not valid yet, by the clock of the farm",
            ),
            "BadCertificate" => Self::RefusesCertificate("it is damaged"),
            "UnsupportedCertificate" => {
                Self::RefusesCertificate("it is not for a client, or of an unknown kind")
            },
            "CertificateRevoked" => Self::RefusesCertificate("it is revoked"),
            "CertificateUnknown" => Self::RefusesCertificate("the farm does not say why"),
            "DecryptError" => Self::RefusesCertificate(
                "the farm knows another authority of that name, or the key is not the certificate's",
            ),
            "AccessDenied" => Self::RefusesCertificate("access denied"),
            "NoApplicationProtocol" => Self::NoHttp2,
            "ProtocolVersion" | "HandshakeFailure" => Self::Other(
                "it has no version of TLS or no cipher in common with this program; TLS 1.2 and 1.3 are accepted"
                    .to_owned(),
            ),
            _ => Self::Other(format!("it ended the connection with the alert {alert}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_found_in_a_text() {
        let of = |text| Fault::of_alert(text);
        assert_eq!(of("connection reset"), None);
        assert_eq!(
            of("received fatal alert: CertificateRequired"),
            Some(Fault::AsksForCertificate)
        );
        assert!(matches!(
            of("connection error: received fatal alert: UnknownCA (x)"),
            Some(Fault::RefusesCertificate(why)) if why.contains("authority")
        ));
        assert_eq!(
            of("received fatal alert: InternalError"),
            Some(Fault::Other("it ended the connection with the alert InternalError".to_owned()))
        );
    }
}
