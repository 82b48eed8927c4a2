use super::*;
use crate::{Mailbox, Wake};

struct Silent;
impl Wake for Silent {
    fn wake(&self) {}
}

/// A group and the mailbox that all its members share.
struct Fixture {
    group: Group,
    mailbox: Arc<Mailbox<Answer>>,
    ticket: u64,
}

impl Fixture {
    fn new() -> Self {
        let mailbox = Arc::new(Mailbox::new(Arc::new(Silent) as Arc<dyn Wake>));
        Self {
            group: Group::new("g".into()),
            mailbox,
            ticket: 0,
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.ticket += 1;
        Ticket {
            mailbox: Arc::clone(&self.mailbox),
            number: self.ticket,
        }
    }

    fn request(member: &str, new: &str) -> Join {
        Join {
            member_id: member.to_owned(),
            new_id: new.to_owned(),
            needs_id: false,
            instance_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol {
                name: "range".into(),
                metadata: Bytes::from_static(b"m"),
            }],
        }
    }

    fn join(&mut self, join: Join, now: u64) -> Outcome<Result<JoinAnswer, (GroupError, String)>> {
        let ticket = self.ticket();
        self.group.join(join, ticket, Millis(now))
    }

    fn sync(
        &mut self,
        member: &str,
        assignments: &[(&str, &'static str)],
        now: u64,
    ) -> Outcome<Result<SyncAnswer, GroupError>> {
        let ticket = self.ticket();
        let assignments = assignments
            .iter()
            .map(|(id, share)| (id.to_string(), Bytes::from_static(share.as_bytes())))
            .collect();
        let generation = self.group.generation;
        self.group.sync(
            member,
            None,
            generation,
            None,
            None,
            assignments,
            ticket,
            Millis(now),
        )
    }

    /// What has come to the members' mailbox, shortened.
    fn answers(&self) -> Vec<String> {
        let mut answers = Vec::new();
        self.mailbox.drain(&mut answers);
        answers
            .into_iter()
            .map(|answer| match answer {
                Answer::Join(_, Ok(ok)) => {
                    format!(
                        "{} joins {} led by {} knowing {}",
                        ok.member_id,
                        ok.generation,
                        ok.leader,
                        ok.members.len()
                    )
                }
                Answer::Join(_, Err((error, id))) => format!("{id}: {error:?}"),
                Answer::Sync(_, Ok(ok)) => {
                    format!("share {}", String::from_utf8_lossy(&ok.assignment))
                }
                Answer::Sync(_, Err(error)) => format!("sync {error:?}"),
            })
            .collect()
    }

    /// Members a and b in generation 2, stable.
    fn pair() -> Self {
        let mut fixture = Self::new();
        let _ = fixture.join(Self::request("", "a"), 0);
        assert_eq!(fixture.answers(), ["a joins 1 led by a knowing 1"]);
        let _ = fixture.sync("a", &[("a", "all")], 1);
        assert_eq!(fixture.answers(), ["share all"]);
        let _ = fixture.join(Self::request("", "b"), 2);
        assert_eq!(fixture.answers(), [""; 0], "waits for a");
        assert_eq!(
            fixture.group.heartbeat("a", None, 1, Millis(3)),
            Err(GroupError::Rebalancing)
        );
        let _ = fixture.join(Self::request("a", "?"), 4);
        assert_eq!(
            fixture.answers(),
            [
                "a joins 2 led by a knowing 2",
                "b joins 2 led by a knowing 0"
            ]
        );
        let _ = fixture.sync("b", &[], 5);
        assert_eq!(fixture.answers(), [""; 0], "waits for the leader");
        let _ = fixture.sync("a", &[("a", "x"), ("b", "y")], 6);
        assert_eq!(fixture.answers(), ["share x", "share y"]);
        assert_eq!(fixture.group.state, State::Stable);
        fixture
    }
}

#[test]
fn two_members_agree() {
    let mut fixture = Fixture::pair();
    assert_eq!(fixture.group.heartbeat("b", None, 2, Millis(7)), Ok(()));
    assert_eq!(
        fixture.group.heartbeat("b", None, 1, Millis(7)),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        fixture.group.heartbeat("z", None, 2, Millis(7)),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(fixture.group.check_commit("a", None, 2, Millis(7)), Ok(()));
    assert_eq!(
        fixture.group.check_commit("", None, -1, Millis(7)),
        Err(GroupError::UnknownMember)
    );
    // A follower that asks again with the same protocols gets the same generation.
    match fixture.join(Fixture::request("b", "?"), 8) {
        Outcome::Now(Ok(answer)) => {
            assert_eq!((answer.generation, answer.leader.as_str()), (2, "a"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_that_leaves_makes_the_others_join_again() {
    let mut fixture = Fixture::pair();
    assert_eq!(fixture.group.leave("a", None, Millis(10)), Ok("a".into()));
    assert_eq!(fixture.group.state, State::PreparingRebalance);
    let _ = fixture.join(Fixture::request("b", "?"), 11);
    assert_eq!(fixture.answers(), ["b joins 3 led by b knowing 1"]);
    assert_eq!(fixture.group.leave("b", None, Millis(12)), Ok("b".into()));
    assert_eq!(fixture.group.state, State::Empty);
    assert_eq!(fixture.group.check_commit("", None, -1, Millis(13)), Ok(()));
}

#[test]
fn silence_ends_a_session() {
    let mut fixture = Fixture::pair();
    assert_eq!(fixture.group.heartbeat("b", None, 2, Millis(9_000)), Ok(()));
    assert_eq!(fixture.group.next_deadline(), Some(Millis(10_006)));
    fixture.group.expire(Millis(10_006));
    assert_eq!(
        fixture
            .group
            .members()
            .map(|member| member.id.to_owned())
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!(
        fixture.group.heartbeat("b", None, 2, Millis(10_007)),
        Err(GroupError::Rebalancing)
    );
}

#[test]
fn a_rebalance_does_not_wait_for_ever() {
    let mut fixture = Fixture::pair();
    let _ = fixture.join(Fixture::request("", "c"), 10);
    // a and b live on but never join.
    for time in (1_000..60_000).step_by(5_000) {
        assert_eq!(
            fixture.group.heartbeat("a", None, 2, Millis(time)),
            Err(GroupError::Rebalancing)
        );
        assert_eq!(
            fixture.group.heartbeat("b", None, 2, Millis(time)),
            Err(GroupError::Rebalancing)
        );
    }
    fixture.group.expire(Millis(60_010));
    assert_eq!(fixture.answers(), ["c joins 3 led by c knowing 1"]);
    // And a leader that never syncs loses its place.
    fixture.group.expire(Millis(200_000));
    assert_eq!(
        (fixture.group.state, fixture.group.members().count()),
        (State::Empty, 0)
    );
}

#[test]
fn a_newcomer_may_need_an_id_first() {
    let mut fixture = Fixture::new();
    let first = Join {
        needs_id: true,
        ..Fixture::request("", "n")
    };
    match fixture.join(first.clone(), 0) {
        Outcome::Now(Err((GroupError::MemberIdRequired, id))) => assert_eq!(id, "n"),
        other => panic!("{other:?}"),
    }
    let _ = fixture.join(
        Join {
            member_id: "n".into(),
            ..first
        },
        1,
    );
    assert_eq!(fixture.answers(), ["n joins 1 led by n knowing 1"]);
    match fixture.join(Fixture::request("stranger", "?"), 2) {
        Outcome::Now(Err((GroupError::UnknownMember, _))) => {}
        other => panic!("{other:?}"),
    }
    let odd = Join {
        protocols: vec![Protocol {
            name: "sticky".into(),
            metadata: Bytes::new(),
        }],
        ..Fixture::request("", "o")
    };
    match fixture.join(odd, 3) {
        Outcome::Now(Err((GroupError::InconsistentProtocol, _))) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut fixture = Fixture::new();
    let request = |new: &str| Join {
        instance_id: Some("i".into()),
        ..Fixture::request("", new)
    };
    let _ = fixture.join(request("s1"), 0);
    let _ = fixture.sync("s1", &[("s1", "all")], 1);
    fixture.answers();
    match fixture.join(request("s2"), 2) {
        Outcome::Now(Ok(answer)) => {
            assert_eq!(
                (
                    answer.generation,
                    answer.member_id.as_str(),
                    answer.leader.as_str()
                ),
                (1, "s2", "s1")
            );
        }
        other => panic!("{other:?}"),
    }
    match fixture.sync("s2", &[], 3) {
        Outcome::Now(Ok(answer)) => assert_eq!(answer.assignment, "all"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        fixture.group.heartbeat("s1", Some("i"), 1, Millis(4)),
        Err(GroupError::Fenced)
    );
    assert_eq!(
        fixture.group.heartbeat("s2", Some("i"), 1, Millis(4)),
        Ok(())
    );
    assert_eq!(
        fixture.group.leave("", Some("i"), Millis(5)),
        Ok("s2".into())
    );
}

#[test]
fn a_connection_that_hangs_up_does_not_hold_its_member_for_ever() {
    let mut fixture = Fixture::pair();
    let ticket = fixture.ticket();
    let _ = fixture
        .group
        .join(Fixture::request("", "c"), ticket.clone(), Millis(10));
    fixture.group.hang_up(&ticket, Millis(11));
    assert!(fixture.group.next_deadline() <= Some(Millis(10_011)));
    fixture.group.expire(Millis(10_011));
    assert!(fixture.group.members().all(|member| member.id != "c"));
}
