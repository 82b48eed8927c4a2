use crate::config::Value;

use super::*;

fn config(dir: &Path) -> Config {
    let files = dev::Files::ensure(dir, "flowmesh").unwrap();
    Config {
        tls_cert: Some(files.cert),
        tls_key: Some(files.key),
        tls_client_ca: Some(files.ca),
        ..Config::default()
    }
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = config(dir.path());
    assert!(Configs::load(&Config::default()).unwrap().is_none());
    assert!(Configs::load(&good).unwrap().is_some());
    let said = |config: &Config| Configs::load(config).unwrap_err().to_string();
    let gone = dir.path().join("gone");
    let without = Config {
        tls_cert: Some(gone.clone()),
        ..good.clone()
    };
    assert_eq!(
        said(&without),
        format!(
            "tls-cert {}: No such file or directory (os error 2)",
            gone.display()
        )
    );
    let swapped = Config {
        tls_cert: good.tls_key.clone(),
        ..good.clone()
    };
    assert!(
        said(&swapped).ends_with("server.key: no such section in this PEM file"),
        "{}",
        said(&swapped)
    );
    let mixed = Config {
        tls_key: Some(dir.path().join("client.key")),
        ..good.clone()
    };
    assert!(said(&mixed).contains("KeyMismatch"), "{}", said(&mixed));
    let crl = Config {
        tls_client_crl: good.tls_client_ca.clone(),
        ..good
    };
    assert!(said(&crl).starts_with("tls-client-crl "), "{}", said(&crl));
}

#[test]
fn changed_files_are_taken_up_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let keyring = Keyring::open(&config).unwrap().unwrap();
    let same = |before: &Arc<Configs>| Arc::ptr_eq(before, &keyring.current());
    let first = keyring.current();
    keyring.look();
    keyring.look();
    assert!(same(&first), "nothing has changed");

    std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
    dev::Files::ensure(dir.path(), "flowmesh").unwrap();
    keyring.look();
    assert!(same(&first), "it may still be changing");
    keyring.look();
    assert!(!same(&first));

    let second = keyring.current();
    std::fs::write(dir.path().join("server.key"), "no key").unwrap();
    keyring.look();
    keyring.look();
    keyring.reload();
    assert!(same(&second));
}

#[test]
fn who_names_an_authority_wants_certificates() {
    let with = |auth: &str, ca: bool| {
        let config = Config {
            tls_client_auth: Value::parse(auth).unwrap(),
            tls_client_ca: ca.then(|| PathBuf::from("ca.crt")),
            ..Config::default()
        };
        config.client_auth()
    };
    assert_eq!(with("auto", false), ClientAuth::None);
    assert_eq!(with("auto", true), ClientAuth::Required);
    assert_eq!(with("optional", true), ClientAuth::Optional);
    assert_eq!(with("none", true), ClientAuth::None);
}
