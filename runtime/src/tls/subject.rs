//! The subject of a certificate as a text that is unambiguous.

use x509_parser::{
    objects::{oid_registry, oid2abbrev},
    prelude::{FromDer as _, X509Certificate},
    x509::AttributeTypeAndValue,
};

/// The subject, in the certificate's order: `O=Studio,CN=worker-1`. `None` if the certificate
/// cannot be read, or a value of its subject is no text.
pub(super) fn of(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut subject = String::new();
    for part in certificate.subject().iter_rdn() {
        for (position, attribute) in part.iter().enumerate() {
            if !subject.is_empty() {
                subject.push(if position == 0 { ',' } else { '+' });
            }
            push(&mut subject, attribute)?;
        }
    }
    Some(subject)
}

fn push(subject: &mut String, attribute: &AttributeTypeAndValue<'_>) -> Option<()> {
    match oid2abbrev(attribute.attr_type(), oid_registry()) {
        Ok(name) => subject.push_str(name),
        Err(_) => subject.push_str(&attribute.attr_type().to_id_string()),
    }
    subject.push('=');
    let value = attribute.as_str().ok()?;
    let last = value.chars().count().saturating_sub(1);
    for (position, character) in value.chars().enumerate() {
        let outer = (position == 0 && matches!(character, ' ' | '#'))
            || (position == last && character == ' ');
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => subject.extend(['\\', character]),
            _ if outer => subject.extend(['\\', character]),
            _ if character.is_control() => {
                for byte in character.to_string().bytes() {
                    subject.push_str(&format!("\\{byte:02X}"));
                }
            }
            _ => subject.push(character),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use darkroom_test_servers::certificates::{Authority, Validity};
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    #[test]
    fn a_subject_cannot_look_like_another() {
        let authority = Authority::new();
        let subject = |wanted: &str| {
            let made = authority.sign_client(wanted, Validity::Now);
            let certificate =
                CertificateDer::from_pem_slice(made.certificate.as_bytes()).expect("PEM");
            of(&certificate).expect("a subject")
        };
        assert_eq!(subject("/CN=worker-1"), "CN=worker-1");
        assert_eq!(subject("/O=Studio/CN=worker-1"), "O=Studio,CN=worker-1");
        assert_eq!(subject("/CN=a,O=Studio"), "CN=a\\,O\\=Studio");
        assert_eq!(subject("/CN=a\\\\,b"), "CN=a\\\\\\,b");
        assert_eq!(of(b"no certificate"), None);
    }
}
