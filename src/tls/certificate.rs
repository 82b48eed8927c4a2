//! The names of a client, from its verified certificate.

use rustls::pki_types::CertificateDer;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// X.520 §6.2.2.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Who a client is, as an authority that we trust has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as RabbitMQ and Kafka print it (RFC 4514), most specific part first: `CN=alice,OU=shop,O=Example`.
    pub subject: String,
    /// The subject's last common name.
    pub common_name: Option<String>,
    /// Subject alternative names: DNS names, URIs and mail addresses.
    pub alternatives: Vec<String>,
}

impl Certificate {
    /// Reads the names. `None` for what is no certificate, which nobody verifies.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
        let common_name = certificate.subject.0.iter().rev().find_map(|name| {
            let mut parts = name.0.iter();
            parts.find_map(|part| (part.oid == COMMON_NAME).then(|| text(part))?)
        });
        let alternatives = match certificate.get::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(alternative).collect(),
            _ => Vec::new(),
        };
        Some(Self {
            subject: certificate.subject.to_string(),
            common_name,
            alternatives,
        })
    }

    /// All names: common name, subject, alternatives.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let common = self.common_name.iter();
        common
            .chain(std::iter::once(&self.subject))
            .chain(&self.alternatives)
            .map(String::as_str)
    }
}

fn text(part: &AttributeTypeAndValue) -> Option<String> {
    let value = &part.value;
    let text = match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok()?.as_str(),
        Tag::PrintableString => PrintableStringRef::try_from(value).ok()?.as_str(),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok()?.as_str(),
        Tag::TeletexString => TeletexStringRef::try_from(value).ok()?.as_str(),
        _ => return None,
    };
    Some(text.to_owned())
}

fn alternative(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::Rfc822Name(name) => Some(name.as_str().to_owned()),
        GeneralName::UniformResourceIdentifier(name) => Some(name.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    use super::*;

    #[test]
    fn names_as_other_brokers_print_them() {
        let mut params = CertificateParams::new(vec!["alice.example".into()]).unwrap();
        let ia5 = |text: &str| Ia5String::try_from(text).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(ia5("spiffe://example/alice")));
        params
            .subject_alt_names
            .push(SanType::Rfc822Name(ia5("alice@example.org")));
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, "Example, Inc.");
        name.push(DnType::CommonName, "alice");
        let key = KeyPair::generate().unwrap();
        let signed = params.self_signed(&key).unwrap();
        let read = Certificate::read(signed.der()).unwrap();
        assert_eq!(read.subject, r"CN=alice,O=Example\, Inc.,C=DE");
        assert_eq!(
            read.names().collect::<Vec<_>>(),
            [
                "alice",
                &read.subject,
                "alice.example",
                "spiffe://example/alice",
                "alice@example.org"
            ]
        );
        assert_eq!(Certificate::read(&CertificateDer::from(vec![1, 2])), None);
    }
}
