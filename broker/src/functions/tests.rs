use std::sync::Arc;

use super::*;
use crate::{Broker, Budgets, Millis, ShardSet};

fn broker(dir: &std::path::Path) -> Broker {
    let engine = Engine::open(storage::Options::new(dir)).expect("opens");
    Broker::open(engine, Budgets::split(1 << 26)).expect("loads")
}

fn library(name: &str, functions: &[&str]) -> Arc<Library> {
    let function = |name: &&str| Function {
        name: (*name).into(),
        description: name.starts_with('d').then(|| b"said".as_slice().into()),
        flags: FunctionFlags::NO_WRITES,
        ..Function::default()
    };
    Arc::new(Library {
        name: name.into(),
        text: format!("#!lua name={name}\n").into_bytes().into(),
        functions: functions.iter().map(function).collect(),
    })
}

fn take(broker: &Broker, new: &[Arc<Library>], policy: Policy) -> Result<(), FunctionsError> {
    let mut locked = broker.lock(ShardSet::CATALOG);
    let mut fx = Effects::new();
    let done = put(&mut locked, new, policy, &mut fx);
    assert_eq!(done.is_err(), fx.is_empty(), "an error changes nothing");
    locked.commit(Millis(1), &mut fx);
    done
}

fn names(broker: &Broker) -> Vec<String> {
    let now = broker.functions.now();
    now.iter().map(|library| library.name.to_string()).collect()
}

#[test]
fn names_of_libraries_and_functions_are_taken_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = broker(dir.path());
    let one = library("one", &["a", "desc"]);
    assert_eq!(take(&broker, &[Arc::clone(&one)], Policy::Append), Ok(()));
    assert_eq!(
        take(&broker, &[library("one", &["z"])], Policy::Append),
        Err(FunctionsError::Library("one".into()))
    );
    // In any case, and all or none.
    assert_eq!(
        take(
            &broker,
            &[library("two", &["b"]), library("three", &["A"])],
            Policy::Append
        ),
        Err(FunctionsError::Function("A".into()))
    );
    assert_eq!(names(&broker), ["one"]);
    assert_eq!(
        take(&broker, &[library("one", &["b", "A"])], Policy::Replace),
        Ok(())
    );
    assert!(broker.functions.now().function(b"DESC").is_none());
    assert_eq!(
        broker.functions.now().function(b"a").map(|found| found.1),
        Some(1)
    );
    assert_eq!(
        take(&broker, &[library("other", &["b"])], Policy::Replace),
        Err(FunctionsError::Function("b".into()))
    );
    assert_eq!(
        take(&broker, &[library("other", &["b"])], Policy::Flush),
        Ok(())
    );
    assert_eq!(names(&broker), ["other"]);
    assert_eq!(
        crate::law::check(&broker, 10).expect("reads"),
        Vec::new(),
        "the law"
    );
}

#[test]
fn libraries_are_there_after_a_restart_and_gone_after_a_delete() {
    let dir = tempfile::tempdir().expect("a directory");
    let before = broker(dir.path());
    take(
        &before,
        &[library("one", &["a", "desc"]), library("two", &["b"])],
        Policy::Append,
    )
    .expect("fit");
    {
        let mut locked = before.lock(ShardSet::CATALOG);
        let mut fx = Effects::new();
        assert!(!delete(&mut locked, "none", &mut fx));
        assert!(delete(&mut locked, "two", &mut fx));
        locked.commit(Millis(1), &mut fx);
    }
    before.engine.flush();
    drop(before);
    let after = broker(dir.path());
    assert_eq!(names(&after), ["one"]);
    let (found, place) = after.functions.now().function(b"desc").expect("is there");
    let function = &found.functions[place];
    assert_eq!(function.description.as_deref(), Some(b"said".as_slice()));
    assert!(function.flags.has(FunctionFlags::NO_WRITES));
    assert!(!function.flags.has(FunctionFlags::ALLOW_OOM));
    assert_eq!(&*found.text, b"#!lua name=one\n");
}

/// A reply must not tell of what is not in the log.
#[test]
fn others_see_a_change_when_it_is_appended() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = broker(dir.path());
    let mut locked = broker.lock(ShardSet::CATALOG);
    let mut fx = Effects::new();
    put(
        &mut locked,
        &[library("one", &["a"])],
        Policy::Append,
        &mut fx,
    )
    .expect("fits");
    assert_eq!(names(&broker), [""; 0]);
    assert!(within(&locked).get("one").is_some(), "itself it does");
    let lsn = locked.commit(Millis(1), &mut fx);
    drop(locked);
    assert!(broker.functions.now().get("one").is_some());
    assert_eq!(broker.functions.changed(), lsn);
}

#[test]
fn limits_hold() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = broker(dir.path());
    let long = "x".repeat(NAME_MAX + 1);
    for bad in [
        library(&long, &["a"]),
        library("one", &[&long]),
        library("one", &[""]),
        Arc::new(Library {
            name: "big".into(),
            text: vec![b' '; LIBRARY_MAX + 1].into(),
            functions: Vec::new(),
        }),
    ] {
        assert_eq!(
            take(&broker, &[bad], Policy::Append),
            Err(FunctionsError::Limits)
        );
    }
}
