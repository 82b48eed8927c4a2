//! The loop with TLS, against rustls' own client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::tests::Server;
use super::*;
use crate::config::Config;
use crate::tls::dev::Files;

type Client = StreamOwned<ClientConnection, TcpStream>;

struct Site {
    server: Server,
    files: Files,
    _dir: TempDir,
}

impl Site {
    fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::ensure(dir.path(), "alice").unwrap();
        let config = Config {
            tls_cert: Some(files.cert.clone()),
            tls_key: Some(files.key.clone()),
            tls_client_ca: Some(files.ca.clone()),
            tls_client_auth: Some(crate::config::ClientAuth::Optional),
            ..Config::default()
        };
        let keyring = Keyring::open(&config).unwrap().map(Arc::new);
        let server = Server::start_with(limits, |_| (), keyring);
        Self {
            server,
            files,
            _dir: dir,
        }
    }

    fn client(
        &self,
        certificate: bool,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.files.ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = if certificate {
            let chain = vec![CertificateDer::from_pem_file(&self.files.client_cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&self.files.client_key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let conn =
            ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(conn, self.server.connect())
    }

    fn connect(&self) -> Client {
        self.client(false, rustls::ALL_VERSIONS)
    }
}

fn expect(client: &mut Client, text: &str) {
    let mut got = vec![0; text.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), text);
}

#[test]
fn both_versions_with_and_without_a_certificate() {
    let site = Site::start(Limits::default());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (certificate, name) in [(true, "CN=alice\n"), (false, "nobody\n")] {
            let mut client = site.client(certificate, &[version]);
            client.write_all(b"who\nlog\n").unwrap();
            expect(&mut client, name);
            expect(&mut client, "logged\n");
        }
    }
    assert_eq!(site.server.traffic.handshakes.value(), 4);
    assert_eq!(site.server.traffic.handshakes_failed.value(), 0);
}

/// Passes on everything that the client wants to send, one byte in a packet.
fn drip(client: &mut Client) {
    let mut bytes = Vec::new();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut bytes).unwrap();
    }
    for byte in bytes {
        client.sock.write_all(&[byte]).unwrap();
    }
}

#[test]
fn byte_by_byte() {
    let site = Site::start(Limits::default());
    let mut client = site.client(true, rustls::ALL_VERSIONS);
    client.sock.set_nodelay(true).unwrap();
    while client.conn.is_handshaking() {
        drip(&mut client);
        if client.conn.is_handshaking() && client.conn.wants_read() {
            client.conn.read_tls(&mut client.sock).unwrap();
            client.conn.process_new_packets().unwrap();
        }
    }
    client.conn.writer().write_all(b"who\nab\n").unwrap();
    drip(&mut client);
    expect(&mut client, "CN=alice\nab\n");
}

#[test]
fn large_both_ways() {
    let site = Site::start(Limits::default());
    let mut client = site.connect();
    let line = vec![b'l'; 5 << 20];
    client.write_all(&line).unwrap();
    client.write_all(b"\nflood 5000000\nend\n").unwrap();
    let mut got = vec![0; line.len() + 1 + 5_000_000];
    client.read_exact(&mut got).unwrap();
    assert!(got.starts_with(&line) && got.ends_with(b"xxx"));
    expect(&mut client, "end\n");
}

#[test]
fn many_small_lines_in_large_records() {
    let site = Site::start(Limits::default());
    let mut client = site.connect();
    let lines = "line\n".repeat(100_000);
    let mut writer = client.sock.try_clone().unwrap();
    // Encrypted up to the client's own limit, sent by another thread while this one reads.
    client.conn.set_buffer_limit(None);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).unwrap();
    }
    client.conn.writer().write_all(lines.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut bytes).unwrap();
    }
    let sending = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    expect(&mut client, &lines);
    sending.join().unwrap();
}

#[test]
fn a_client_that_never_reads_stops_being_read() {
    let site = Site::start(Limits {
        outbox_pause: 1000,
        ..Limits::default()
    });
    let mut client = site.connect();
    client.write_all(b"flood 30000000\n").unwrap();
    client.write_all(b"after\n").unwrap();
    let mut got = vec![0; 30_000_000];
    client.read_exact(&mut got).unwrap();
    expect(&mut client, "after\n");
}

#[test]
fn a_paused_session_is_not_read_and_goes_on_when_rung() {
    let site = Site::start(Limits::default());
    let mut client = site.connect();
    client.write_all(b"pause\nlater\n").unwrap();
    site.server
        .until("paused", |s| s.paused.load(Ordering::SeqCst));
    client.write_all(b"and more\n").unwrap();
    site.server.handles.lock()[0].ring();
    expect(&mut client, "later\nand more\n");
}

#[test]
fn the_ends_are_orderly() {
    let site = Site::start(Limits::default());
    // Ours: everything, then close_notify, without which rustls would say UnexpectedEof.
    let mut client = site.connect();
    client.write_all(b"flood 3000000\nbye\nignored\n").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!((all.len(), &all[3_000_000..]), (3_000_004, &b"bye\n"[..]));
    // The peer's: what came before it is answered, and the answer is close_notify.
    let mut client = site.connect();
    client.write_all(b"a\n").unwrap();
    expect(&mut client, "a\n");
    client.conn.writer().write_all(b"last\n").unwrap();
    client.conn.send_close_notify();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut client.sock).unwrap();
    }
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last\n");
    // The peer's without a word, in the middle of a session.
    let mut client = site.connect();
    client.write_all(b"a\n").unwrap();
    expect(&mut client, "a\n");
    client.sock.shutdown(Shutdown::Both).unwrap();
    site.server
        .until("all closed", |s| s.closed.load(Ordering::SeqCst) == 3);
}

#[test]
fn a_stop_says_goodbye() {
    let mut site = Site::start(Limits::default());
    let mut client = site.connect();
    client.write_all(b"a\n").unwrap();
    expect(&mut client, "a\n");
    let mut halfway = site.server.connect();
    halfway.write_all(&[22, 3, 1]).unwrap();
    site.server
        .until("both are there", |s| s.net.as_ref().unwrap().open() == 2);
    let began = Instant::now();
    site.server
        .net
        .take()
        .unwrap()
        .stop(Duration::from_secs(15));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "nobody waits for half a handshake"
    );
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "stopping\n");
}

#[test]
fn garbage_and_plain_text_get_an_alert_and_others_go_on() {
    let site = Site::start(Limits::default());
    let mut steady = site.connect();
    steady.write_all(b"a\n").unwrap();
    expect(&mut steady, "a\n");
    let long = [[22, 3, 1, 0xff, 0xff].as_slice(), &[0; 100]].concat();
    for garbage in [
        &b"*1\r\n$4\r\nPING\r\n"[..],
        b"AMQP\0\0\x09\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        &long,
    ] {
        let mut socket = site.server.connect();
        socket.write_all(garbage).unwrap();
        let mut said = Vec::new();
        socket.read_to_end(&mut said).unwrap();
        // RFC 8446 §5.1 and §6: a record of type alert, level fatal.
        assert!(said.len() == 7 && said[0] == 21 && said[5] == 2, "{said:?}");
    }
    // A record that was changed on its way.
    let mut client = site.connect();
    client.write_all(b"a\n").unwrap();
    expect(&mut client, "a\n");
    client.conn.writer().write_all(b"bad\n").unwrap();
    let mut record = Vec::new();
    client.conn.write_tls(&mut record).unwrap();
    *record.last_mut().unwrap() ^= 1;
    client.sock.write_all(&record).unwrap();
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    steady.write_all(b"still\n").unwrap();
    expect(&mut steady, "still\n");
    assert_eq!(site.server.traffic.handshakes_failed.value(), 4);
}

#[test]
fn an_unfinished_handshake_ends() {
    let site = Site::start(Limits {
        handshake: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut steady = site.connect();
    steady.write_all(b"a\n").unwrap();
    expect(&mut steady, "a\n");
    let mut silent = site.server.connect();
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
    let mut halfway = site.server.connect();
    halfway.write_all(&[22, 3, 1]).unwrap();
    match halfway.read(&mut [0; 8]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    steady.write_all(b"b\n").unwrap();
    expect(&mut steady, "b\n");
    site.server
        .until("counted", |s| s.traffic.handshakes_failed.value() == 2);
}
