//! TLS of a real process: every face, client certificates, and certificates that are replaced while clients connect.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol_amqp::{Method, Table};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::grpc;
use crate::server::{Server, flowmesh};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// An authority that signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
struct Signed {
    cert: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial.into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Signed {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn revoke(&self, serial: u64) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: date_time_ymd(2024, 1, 1),
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Files of a server, replaced as a careful operator does.
struct Files(PathBuf);

impl Files {
    fn put(&self, name: &str, text: &str) {
        let beside = self.0.join("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.0.join(name)).unwrap();
    }

    fn put_server(&self, authority: &Authority, serial: u64) {
        let signed = authority.sign("localhost", serial, |_| ());
        self.put("server.crt", &signed.cert);
        self.put("server.key", &signed.key);
    }

    fn flag(&self, knob: &str, name: &str) -> String {
        format!("--{knob}={}", self.0.join(name).display())
    }

    /// TLS on every face; `more` names further files and flags.
    fn serve(&self, data: &Path, more: &[String]) -> Server {
        let mut flags: Vec<String> = ["resp", "amqp", "kafka", "grpc", "http"]
            .iter()
            .map(|face| format!("--{face}-tls-addr=127.0.0.1:0"))
            .collect();
        flags.push(self.flag("tls-cert", "server.crt"));
        flags.push(self.flag("tls-key", "server.key"));
        flags.extend_from_slice(more);
        Server::start_with(data, &flags)
    }
}

/// A directory with a server's certificate, and who signed it.
fn site() -> (tempfile::TempDir, Files, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files(dir.path().to_owned());
    let authority = Authority::new("root");
    files.put_server(&authority, 1);
    (dir, files, authority)
}

/// Trusts `ca` and shows `me`.
fn client(ca: &str, me: Option<&Signed>, alpn: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let mut config = match me {
        Some(me) => {
            let chain = vec![CertificateDer::from_pem_slice(me.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(me.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    Arc::new(config)
}

fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let socket = TcpStream::connect(addr).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let conn = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(conn, socket)
}

/// A line of Redis' answer.
fn ask(stream: &mut Stream, command: &str) -> io::Result<String> {
    stream.write_all(command.as_bytes())?;
    stream.write_all(b"\r\n")?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8(line).unwrap())
}

/// Name and octets of the next AMQP method.
fn amqp_method(stream: &mut Stream) -> (&'static str, String) {
    let mut head = [0; 7];
    stream.read_exact(&mut head).unwrap();
    let size = u32::from_be_bytes(head[3..].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(size).unwrap() + 1];
    stream.read_exact(&mut payload).unwrap();
    assert_eq!((head[0], payload.pop()), (1, Some(0xce)), "a method frame");
    let name = Method::decode(&payload).unwrap().name();
    (name, String::from_utf8_lossy(&payload).into_owned())
}

/// connection.start-ok of a client that logs in with its certificate.
fn external(client_properties: Table<'_>) -> Vec<u8> {
    let start_ok = Method::ConnectionStartOk {
        client_properties,
        mechanism: "EXTERNAL".into(),
        response: "".into(),
        locale: "en_US".into(),
    };
    let mut said = Vec::new();
    protocol_amqp::method(&mut said, 0, &start_ok);
    said
}

/// ApiVersions and Metadata of no topics: true if the second is answered, which takes a login.
fn kafka_is_in(stream: &mut Stream) -> bool {
    let mut call = |key: u8, version: u8, body: &[u8]| -> io::Result<()> {
        let mut frame = vec![0, key, 0, version, 0, 0, 0, 7, 0xff, 0xff];
        frame.extend_from_slice(body);
        stream.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes())?;
        stream.write_all(&frame)?;
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(size)).unwrap()];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer[..4], [0, 0, 0, 7]);
        Ok(())
    };
    call(18, 0, &[]).unwrap();
    call(3, 1, &[0, 0, 0, 0]).is_ok()
}

#[test]
fn every_face() {
    let (dir, files, authority) = site();
    let server = files.serve(&dir.path().join("data"), &[]);
    let config = client(&authority.pem, None, b"");

    let mut redis = connect(server.addr("resp-tls"), &config);
    assert_eq!(ask(&mut redis, "SET a 1").unwrap(), "+OK");
    assert_eq!(server.redis(&["GET", "a"]), "$1\r\n1\r\n", "one keyspace");

    let mut amqp = connect(server.addr("amqp-tls"), &config);
    amqp.write_all(&crate::amqp_login::amqp_login()).unwrap();
    let (_, start) = amqp_method(&mut amqp);
    assert!(
        start.contains("PLAIN") && !start.contains("EXTERNAL"),
        "{start}"
    );
    for name in ["connection.tune", "connection.open_ok", "channel.open_ok"] {
        assert_eq!(amqp_method(&mut amqp).0, name);
    }

    assert!(kafka_is_in(&mut connect(server.addr("kafka-tls"), &config)));

    let mut http = connect(
        server.addr("http-tls"),
        &client(&authority.pem, None, b"http/1.1"),
    );
    http.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    http.read_to_string(&mut text).unwrap();
    for face in ["resp", "amqp", "kafka", "http"] {
        let line = format!("flowmesh_tls_handshakes_total{{face=\"{face}\"}} 1");
        assert!(text.contains(&line), "{line}\n{text}");
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let addr = server.addr("grpc-tls");
    let config = client(&authority.pem, None, b"h2");
    let health = runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(addr).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, socket).await.unwrap();
        grpc::call_over(stream, "/grpc.health.v1.Health/Check", &[]).await
    });
    assert_eq!(health, (vec![0, 0, 0, 0, 2, 0x08, 1], "0".into()));

    // Plain text where TLS is spoken, on the admin side too.
    for face in ["resp-tls", "http-tls"] {
        let mut plain = TcpStream::connect(server.addr(face)).unwrap();
        plain.write_all(b"PING /healthz HTTP/1.1\r\n\r\n").unwrap();
        let mut said = Vec::new();
        plain.read_to_end(&mut said).unwrap();
        assert_eq!(said.first(), Some(&21), "a TLS alert: {said:?}");
    }
    assert!(server.stop().success());
}

#[test]
fn client_certificates_are_logins() {
    let (dir, files, authority) = site();
    files.put("ca.crt", &authority.pem);
    files.put("crl.pem", &authority.revoke(66));
    let server = files.serve(
        &dir.path().join("data"),
        &[
            files.flag("tls-client-ca", "ca.crt"),
            files.flag("tls-client-crl", "crl.pem"),
            "--user=alice".into(),
            "--password=s3cret".into(),
        ],
    );
    let with = |me: &Signed| client(&authority.pem, Some(me), b"");
    let alice = with(&authority.sign("alice", 2, |_| ()));
    let bob = with(&authority.sign("bob", 3, |_| ()));

    let mut redis = connect(server.addr("resp-tls"), &alice);
    assert_eq!(ask(&mut redis, "SET a 1").unwrap(), "+OK");
    let mut redis = connect(server.addr("resp-tls"), &bob);
    assert!(ask(&mut redis, "SET a 1").unwrap().starts_with("-NOAUTH"));
    assert_eq!(ask(&mut redis, "AUTH alice s3cret").unwrap(), "+OK");

    for (config, answer) in [(&alice, "connection.tune"), (&bob, "connection.close")] {
        let mut amqp = connect(server.addr("amqp-tls"), config);
        amqp.write_all(b"AMQP\0\0\x09\x01").unwrap();
        let (_, start) = amqp_method(&mut amqp);
        assert!(start.contains("EXTERNAL"), "{start}");
        let mut capabilities = protocol_amqp::TableBuilder::new();
        capabilities.push(
            b"authentication_failure_close",
            protocol_amqp::Value::Bool(true),
        );
        let properties = protocol_amqp::TableBuilder::new().with(
            "capabilities",
            protocol_amqp::Value::Table(capabilities.as_table()),
        );
        amqp.write_all(&external(properties.as_table())).unwrap();
        let (method, text) = amqp_method(&mut amqp);
        assert_eq!(method, answer, "{text}");
    }
    // Without TLS there is no EXTERNAL.
    let mut plain = TcpStream::connect(server.addr("amqp")).unwrap();
    let said = [&b"AMQP\0\0\x09\x01"[..], &external(Table::default())].concat();
    plain.write_all(&said).unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    assert!(!rest.windows(8).any(|w| w == b"EXTERNAL"));

    assert!(kafka_is_in(&mut connect(server.addr("kafka-tls"), &alice)));
    assert!(!kafka_is_in(&mut connect(server.addr("kafka-tls"), &bob)));

    for (config, status) in [(&alice, "200"), (&bob, "401")] {
        let mut http = connect(server.addr("http-tls"), config);
        http.write_all(
            b"GET /api/v1/info HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        assert_eq!(text.split(' ').nth(1), Some(status));
    }

    // Who came in by certificate is in the audit log.
    let mut http = connect(server.addr("http-tls"), &alice);
    http.write_all(b"GET /api/v1/audit HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut audit = String::new();
    http.read_to_string(&mut audit).unwrap();
    let rows: serde_json::Value =
        serde_json::from_str(audit.split_once("\r\n\r\n").unwrap().1).unwrap();
    let rows = rows["rows"].as_array().unwrap();
    for face in ["resp", "amqp", "kafka", "http"] {
        let noted = rows
            .iter()
            .any(|row| row["face"] == face && row["who"] == "alice" && row["outcome"] == "allowed");
        assert!(noted, "{face} in {rows:?}");
    }

    // Refused by the handshake, at the latest when the first answer should come (TLS 1.3 clients are done before the server).
    let other = Authority::new("root");
    let refused = [
        ("absent", client(&authority.pem, None, b"")),
        ("unknown", with(&other.sign("alice", 4, |_| ()))),
        (
            "expired",
            with(&authority.sign("alice", 5, |params| {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            })),
        ),
        ("revoked", with(&authority.sign("alice", 66, |_| ()))),
    ];
    for (what, config) in &refused {
        for face in ["resp-tls", "http-tls"] {
            let mut stream = connect(server.addr(face), config);
            // Nothing is written, since what the server does not read would cost the client the alert.
            let error = stream.read(&mut [0]).expect_err(what);
            assert!(
                error.to_string().contains("received fatal alert"),
                "{what}: {error}"
            );
        }
    }
    assert!(server.stop().success());
}

/// Serial number of the certificate that a new connection gets; the connection is used.
fn serial(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<u8> {
    let mut stream = connect(addr, config);
    let pong = ask(&mut stream, "PING")?;
    assert_eq!(pong, "+PONG");
    let der = stream.conn.peer_certificates().unwrap()[0].to_vec();
    // Certificate ::= { TBSCertificate ::= { [0] version, INTEGER serialNumber: both of one octet here, … } … }
    let at = der
        .windows(6)
        .position(|w| w[..5] == [0xa0, 3, 2, 1, 2] && w[5] == 2)
        .unwrap();
    assert_eq!(der[at + 6], 1);
    Ok(der[at + 7])
}

#[test]
fn certificates_are_replaced_under_load() {
    let (dir, files, authority) = site();
    let replace = |serial| files.put_server(&authority, serial);
    let server = files.serve(&dir.path().join("data"), &[]);
    let addr = server.addr("resp-tls");
    let config = client(&authority.pem, None, b"");
    let mut steady = connect(addr, &config);
    assert_eq!(ask(&mut steady, "PING").unwrap(), "+PONG");

    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (done, config) = (Arc::clone(&done), Arc::clone(&config));
            std::thread::spawn(move || {
                let mut made = 0;
                while !done.load(Ordering::Relaxed) {
                    serial(addr, &config).expect("no connection fails");
                    made += 1;
                }
                made
            })
        })
        .collect();
    let until = |wanted: u8| {
        let began = Instant::now();
        while serial(addr, &config).unwrap() != wanted {
            assert!(began.elapsed() < Duration::from_secs(20), "serial {wanted}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(1);
    replace(2);
    until(2);
    // At once, when asked.
    replace(3);
    server.signal("HUP");
    until(3);
    // A broken file changes nothing.
    files.put("server.key", "this is no key");
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(serial(addr, &config).unwrap(), 3);
    replace(4);
    until(4);
    done.store(true, Ordering::Relaxed);
    for thread in load {
        assert!(thread.join().unwrap() > 0);
    }
    assert_eq!(ask(&mut steady, "PING").unwrap(), "+PONG", "it goes on");
    assert!(server.stop().success());
}

#[test]
fn dev_makes_its_own_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--tls",
        "--resp-tls-addr=127.0.0.1:0",
        "--amqp-tls-addr=off",
        "--kafka-tls-addr=127.0.0.1:0",
        "--grpc-tls-addr=off",
        "--http-tls-addr=off",
    ];
    let read = |name: &str| std::fs::read_to_string(dir.path().join("tls").join(name)).unwrap();
    let server = Server::run("dev", dir.path(), &flags);
    let ca = read("ca.crt");
    let me = Signed {
        cert: read("client.crt"),
        key: read("client.key"),
    };
    for me in [None, Some(&me)] {
        let mut redis = connect(server.addr("resp-tls"), &client(&ca, me, b""));
        assert_eq!(ask(&mut redis, "PING").unwrap(), "+PONG");
    }
    assert!(server.stop().success());
    let server = Server::run("dev", dir.path(), &flags);
    assert_eq!(read("ca.crt"), ca, "made once");
    assert!(server.stop().success());
}

#[test]
fn what_is_missing_is_said_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let said = |flags: &[&str]| {
        let out = flowmesh()
            .args(["config", "validate"])
            .args(flags)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8(out.stderr).unwrap()
    };
    let text = said(&["--resp-tls-addr=6380"]);
    assert!(
        text.contains(
            "resp-tls-addr needs a certificate: name its PEM files with --tls-cert and --tls-key"
        ),
        "{text}"
    );
    let text = said(&["--tls-cert=a.crt"]);
    assert!(
        text.contains("tls-cert and tls-key belong together"),
        "{text}"
    );
    let text = said(&["--tls-cert=a.crt", "--tls-key=a.key"]);
    assert!(text.contains("tls-cert a.crt: No such file"), "{text}");
    let text = said(&["--tls-client-auth=required"]);
    assert!(
        text.contains("tls-client-auth required needs tls-client-ca"),
        "{text}"
    );
    let text = said(&["--http-tls-addr=:8443"]);
    assert!(
        text.contains("can be reached from other machines"),
        "{text}"
    );
}
