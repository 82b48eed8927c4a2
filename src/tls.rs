//! TLS: the server's certificate and what is asked of clients, read from PEM files, and read again when they change.
//!
//! ```text
//!  files ─ Configs::load ─▶ Keyring ─ current() ─▶ each new connection (src/net/tls.rs, src/api/wire.rs)
//!    └── changed, or SIGHUP ──▲          open connections keep what they began with
//! ```

mod certificate;
pub mod dev;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};

use crate::config::{ClientAuth, Config};

pub use certificate::Certificate;

/// Why the files cannot be used; the message names the knob and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or not what it should be.
    #[error("{knob} {}: {why}", path.display())]
    File {
        /// Who named it.
        knob: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The files do not go together.
    #[error("the TLS files cannot be used: {0}")]
    Together(String),
}

/// What new connections are made with. The three differ in what they say they speak (ALPN, RFC 7301).
#[derive(Debug)]
pub struct Configs {
    /// Redis, RabbitMQ and Kafka clients, which do not ask.
    pub clients: Arc<ServerConfig>,
    /// HTTP/1.1.
    pub http: Arc<ServerConfig>,
    /// HTTP/2.
    pub grpc: Arc<ServerConfig>,
}

impl Configs {
    /// Reads the files that `config` names; `None` without a certificate.
    ///
    /// # Errors
    /// When a file cannot be read, holds nothing of use, or key and certificate do not belong together.
    pub fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
            return Ok(None);
        };
        let chain = all::<CertificateDer<'static>>("tls-cert", cert)?;
        let secret = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| wrong("tls-key", key, &pem_error(&error)))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let together = |error: &dyn std::fmt::Display| TlsError::Together(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| together(&error))?;
        let auth = config.client_auth();
        let builder = match &config.tls_client_ca {
            Some(path) if auth != ClientAuth::None => {
                let mut roots = RootCertStore::empty();
                for root in all::<CertificateDer<'static>>("tls-client-ca", path)? {
                    roots
                        .add(root)
                        .map_err(|error| wrong("tls-client-ca", path, &error))?;
                }
                let mut verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                if let Some(path) = &config.tls_client_crl {
                    verifier = verifier
                        .with_crls(all::<CertificateRevocationListDer<'static>>(
                            "tls-client-crl",
                            path,
                        )?)
                        .only_check_end_entity_revocation();
                }
                if auth == ClientAuth::Optional {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(verifier.build().map_err(|e| together(&e))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut clients = builder
            .with_single_cert(chain, secret)
            .map_err(|error| together(&error))?;
        if auth != ClientAuth::None {
            // A resumed session is not verified again: it would outlive its certificate, and the list that revokes it.
            clients.session_storage = Arc::new(NoServerSessionStorage {});
            clients.send_tls13_tickets = 0;
        }
        let speaking = |name: &[u8]| {
            let mut config = clients.clone();
            config.alpn_protocols = vec![name.to_vec()];
            Arc::new(config)
        };
        Ok(Some(Self {
            http: speaking(b"http/1.1"),
            grpc: speaking(b"h2"),
            clients: Arc::new(clients),
        }))
    }
}

/// Every section of that kind in the file, one at least.
fn all<T: PemObject>(knob: &'static str, path: &Path) -> Result<Vec<T>, TlsError> {
    let found = T::pem_file_iter(path)
        .and_then(|sections| sections.collect::<Result<Vec<T>, _>>())
        .map_err(|error| wrong(knob, path, &pem_error(&error)))?;
    if found.is_empty() {
        return Err(wrong(knob, path, &"no such section in this PEM file"));
    }
    Ok(found)
}

fn wrong(knob: &'static str, path: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        knob,
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn pem_error(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "no such section in this PEM file".into(),
        other => other.to_string(),
    }
}

/// What tells one version of a file from another: modification time (s, ns), inode and size; `None` if it cannot be seen.
type Stamp = Option<(i64, i64, u64, u64)>;

/// The configuration in use, and where it came from.
#[derive(Debug)]
pub struct Keyring {
    config: Config,
    current: ArcSwap<Configs>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The files when they were last read, whether they could be used or not.
    read: Vec<Stamp>,
    /// The files at the last look.
    looked: Vec<Stamp>,
}

impl Keyring {
    /// Reads the files; `None` without a certificate.
    ///
    /// # Errors
    /// As [`Configs::load`].
    pub fn open(config: &Config) -> Result<Option<Self>, TlsError> {
        // Before the files: what changes while they are read is seen at the next look.
        let stamps = stamps(config);
        Ok(Configs::load(config)?.map(|configs| Self {
            config: config.clone(),
            current: ArcSwap::from_pointee(configs),
            seen: Mutex::new(Seen {
                read: stamps.clone(),
                looked: stamps,
            }),
        }))
    }

    /// What a new connection is made with.
    pub fn current(&self) -> Arc<Configs> {
        self.current.load_full()
    }

    /// Reads the files if they have changed. To be called again and again: two calls must see the same files, so that a
    /// certificate is not read before its key is there, too.
    pub fn look(&self) {
        let now = stamps(&self.config);
        let mut seen = self.seen.lock();
        let settled = seen.looked == now;
        seen.looked.clone_from(&now);
        if settled && seen.read != now {
            self.read(&mut seen, now);
        }
    }

    /// Reads the files now.
    pub fn reload(&self) {
        let now = stamps(&self.config);
        self.read(&mut self.seen.lock(), now);
    }

    fn read(&self, seen: &mut Seen, now: Vec<Stamp>) {
        seen.read = now;
        match Configs::load(&self.config) {
            Ok(Some(configs)) => {
                self.current.store(Arc::new(configs));
                tracing::info!("new connections get the TLS files as they are now");
            }
            // The names of the files do not change while we run.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "new TLS files cannot be used, the old ones stay in use");
            }
        }
    }
}

fn stamps(config: &Config) -> Vec<Stamp> {
    [
        &config.tls_cert,
        &config.tls_key,
        &config.tls_client_ca,
        &config.tls_client_crl,
    ]
    .into_iter()
    .flatten()
    .map(|path| {
        let of = std::fs::metadata(path).ok()?;
        Some((of.mtime(), of.mtime_nsec(), of.ino(), of.size()))
    })
    .collect()
}

#[cfg(test)]
mod tests;
