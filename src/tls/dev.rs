//! `flowmesh dev --tls`: an authority, a server's and a client's certificate, made once and used until they are old.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;

/// How long they are valid. Apple's clients take no server certificate that is valid for more than 825 days.
const VALID: Duration = Duration::from_secs(365 * 24 * 3600);
/// Made anew when less than this is left.
const LEFT_MIN: Duration = Duration::from_secs(24 * 3600);
/// Clocks of containers differ a little.
const BEFORE: Duration = Duration::from_secs(3600);

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The authority's certificate; its key is thrown away, so that nobody can sign with it later.
    pub ca: PathBuf,
    /// The server's certificate, for localhost and the loopback addresses.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// A client's certificate.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

/// Why the files could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// They cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No key could be made, or nothing signed.
    #[error("cannot make a certificate: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Files {
    /// Those in `dir`, which need not exist.
    pub fn within(dir: &Path) -> Self {
        Self {
            ca: dir.join("ca.crt"),
            cert: dir.join("server.crt"),
            key: dir.join("server.key"),
            client_cert: dir.join("client.crt"),
            client_key: dir.join("client.key"),
        }
    }

    /// Makes them if they are not all there and valid for a while. `user`: the client's common name.
    ///
    /// # Errors
    /// When the directory or a file cannot be written.
    pub fn ensure(dir: &Path, user: &str) -> Result<Self, MakeError> {
        let files = Self::within(dir);
        let now = SystemTime::now();
        if !files.usable(user, now + LEFT_MIN) {
            fs::create_dir_all(dir).map_err(|source| MakeError::Write {
                path: dir.to_owned(),
                source,
            })?;
            files.make(user, now)?;
        }
        Ok(files)
    }

    /// All are there, of one making, valid at `then`, and the client is `user`.
    fn usable(&self, user: &str, then: SystemTime) -> bool {
        let read = |path: &Path| -> Option<x509_cert::TbsCertificate> {
            let der = CertificateDer::from_pem_file(path).ok()?;
            let certificate = x509_cert::Certificate::from_der(&der).ok()?.tbs_certificate;
            (certificate.validity.not_after.to_system_time() > then).then_some(certificate)
        };
        let of_client = CertificateDer::from_pem_file(&self.client_cert).ok();
        let name = of_client.and_then(|der| super::Certificate::read(&der)?.common_name);
        let issued = |path: &Path, ca: &x509_cert::TbsCertificate| {
            read(path).is_some_and(|certificate| certificate.issuer == ca.subject)
        };
        self.key.is_file()
            && self.client_key.is_file()
            && name.as_deref() == Some(user)
            && read(&self.ca)
                .is_some_and(|ca| issued(&self.cert, &ca) && issued(&self.client_cert, &ca))
    }

    fn make(&self, user: &str, now: SystemTime) -> Result<(), MakeError> {
        let mut ca = params(&[], "", now)?;
        // A number of its own: a client that trusts an older authority of the same name would search for the wrong key.
        let mut number = [0; 8];
        let _ = getrandom::fill(&mut number);
        let number = u64::from_le_bytes(number);
        ca.distinguished_name.push(
            DnType::CommonName,
            format!("FlowMesh development {number:016x}"),
        );
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate()?;
        let root = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let hosts = ["localhost", "127.0.0.1", "::1"];
        let mut server = params(&hosts, "localhost", now)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate()?;
        let server = server.signed_by(&server_key, &issuer)?;
        let mut client = params(&[], user, now)?;
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client_key = KeyPair::generate()?;
        let client = client.signed_by(&client_key, &issuer)?;

        // The authority last: what is there without it is made anew.
        write(&self.key, &server_key.serialize_pem(), 0o600)?;
        write(&self.client_key, &client_key.serialize_pem(), 0o600)?;
        write(&self.cert, &server.pem(), 0o644)?;
        write(&self.client_cert, &client.pem(), 0o644)?;
        write(&self.ca, &root.pem(), 0o644)
    }
}

fn params(hosts: &[&str], name: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + VALID).into();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Beside it first and then renamed, so that whoever reads sees the old file or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), MakeError> {
    let beside = path.with_extension("new");
    let written = || -> io::Result<()> {
        // A leftover may have other rights.
        let _ = fs::remove_file(&beside);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)
    };
    written().map_err(|source| MakeError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_and_again_when_old_or_for_another_user() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let files = Files::ensure(&dir, "flowmesh").unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        for key in [&files.key, &files.client_key] {
            assert_eq!(
                fs::metadata(key).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        let first = text(&files.cert);
        Files::ensure(&dir, "flowmesh").unwrap();
        assert_eq!(text(&files.cert), first);
        assert!(!files.usable("flowmesh", SystemTime::now() + VALID));
        Files::ensure(&dir, "somebody").unwrap();
        let second = text(&files.cert);
        assert_ne!(second, first);
        fs::remove_file(&files.client_key).unwrap();
        Files::ensure(&dir, "somebody").unwrap();
        assert_ne!(text(&files.cert), second);
        assert!(files.client_key.is_file());
    }
}
