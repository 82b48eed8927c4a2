//! Groups: joining, syncing, heartbeats, leaving, and their descriptions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::Verbs;
use broker::stream::group::{
    self, Answer, GroupError, Join, JoinAnswer, Outcome, Protocol, State, SyncAnswer, Ticket,
};
use broker::{Millis, ShardSet};
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_kafka::RequestHeader;

use super::{Failure, KafkaSession, Request};
use crate::kafka::{Waiting, error, instant_of, permission, respond};
use crate::net::Outbox;

/// The key of JoinGroup.
const JOIN: i16 = 11;
/// Longest name of a group, in bytes.
const GROUP_NAME_MAX: usize = 10_000;
/// Kafka's `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<i32> = 6_000..=1_800_000;
/// A waiting connection looks at its group at least this often, whatever the group's deadlines say.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A request whose answer comes from the group.
pub(in crate::kafka) struct GroupWait {
    header: RequestHeader,
    group: String,
    ticket: u64,
    /// When to bring the group up to date: its next deadline.
    pub(in crate::kafka) look_at: Instant,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn is_valid(name: &str) -> bool {
    !name.is_empty() && name.len() <= GROUP_NAME_MAX
}

/// May offsets of this group be committed? Otherwise Kafka's code.
pub(super) fn may_commit(session: &KafkaSession, name: &str) -> Result<(), i16> {
    if !is_valid(name) {
        Err(Code::InvalidGroupId.code())
    } else if !session.may_group(name, Verbs::READ) {
        Err(Code::GroupAuthorizationFailed.code())
    } else {
        Ok(())
    }
}

pub(super) fn join(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let client_id = request.client_id().to_owned();
    let body: JoinGroupRequest = request.decode()?;
    let header = request.header;
    let name = body.group_id.to_string();
    let member_id = body.member_id.to_string();
    if !is_valid(&name) {
        return respond_join(out, &header, Err((Code::InvalidGroupId.code(), member_id)));
    }
    if !session.may_group(&name, Verbs::READ) {
        let code = Code::GroupAuthorizationFailed.code();
        return respond_join(out, &header, Err((code, member_id)));
    }
    if !SESSION_TIMEOUT_MS.contains(&body.session_timeout_ms) {
        return respond_join(
            out,
            &header,
            Err((Code::InvalidSessionTimeout.code(), member_id)),
        );
    }
    let ctx = session.ctx();
    let chance = (u128::from(ctx.random()) << 64) | u128::from(ctx.random());
    let new = uuid::Builder::from_random_bytes(chance.to_be_bytes()).into_uuid();
    let instance_id = body.group_instance_id.map(|id| id.to_string());
    let positive = |ms: i32| u64::try_from(ms).unwrap_or(0);
    // Version 0 has one timeout for both.
    let rebalance_timeout_ms = if body.rebalance_timeout_ms < 0 {
        body.session_timeout_ms
    } else {
        body.rebalance_timeout_ms
    };
    let join = Join {
        member_id,
        new_id: format!("{}-{new}", instance_id.as_deref().unwrap_or(&client_id)),
        needs_id: header.version >= 4,
        instance_id,
        client_id,
        client_host: format!("/{}", session.info.peer.ip().to_canonical()),
        session_timeout_ms: positive(body.session_timeout_ms),
        rebalance_timeout_ms: positive(rebalance_timeout_ms),
        protocol_type: body.protocol_type.to_string(),
        protocols: body
            .protocols
            .into_iter()
            .map(|protocol| Protocol {
                name: protocol.name.to_string(),
                metadata: protocol.metadata,
            })
            .collect(),
    };
    let ticket = next_ticket(session);
    let number = ticket.number;
    let node = Arc::clone(&session.node);
    let outcome = {
        let mut locked = node.broker.lock_one(group::slot(&name).shard());
        group::get_or_make(&mut locked, &name, ctx.now).join(join, ticket, ctx.now)
    };
    match outcome {
        Outcome::Now(answer) => respond_join(
            out,
            &header,
            answer.map_err(|(wrong, id)| (error::of_group(wrong), id)),
        ),
        Outcome::Later => {
            let wait = GroupWait {
                header,
                group: name,
                ticket: number,
                look_at: Instant::now(),
            };
            resume(session, wait, out)
        }
    }
}

fn next_ticket(session: &mut KafkaSession) -> Ticket {
    session.tickets += 1;
    Ticket {
        mailbox: Arc::clone(&session.mailbox),
        number: session.tickets,
    }
}

fn respond_join(
    out: &mut Outbox,
    header: &RequestHeader,
    answer: Result<JoinAnswer, (i16, String)>,
) -> Result<(), Failure> {
    // Before version 7 the protocol is never null.
    let name = |text: Option<StrBytes>| {
        if header.version >= 7 {
            text
        } else {
            Some(text.unwrap_or_default())
        }
    };
    let response = match answer {
        Ok(answer) => JoinGroupResponse::default()
            .with_generation_id(answer.generation)
            .with_protocol_type(Some(StrBytes::from_string(answer.protocol_type)))
            .with_protocol_name(Some(StrBytes::from_string(answer.protocol)))
            .with_leader(StrBytes::from_string(answer.leader))
            .with_member_id(StrBytes::from_string(answer.member_id))
            .with_members(
                answer
                    .members
                    .into_iter()
                    .map(|(id, instance, metadata)| {
                        JoinGroupResponseMember::default()
                            .with_member_id(StrBytes::from_string(id))
                            .with_group_instance_id(instance.map(StrBytes::from_string))
                            .with_metadata(metadata)
                    })
                    .collect(),
            ),
        Err((code, member_id)) => JoinGroupResponse::default()
            .with_error_code(code)
            .with_generation_id(-1)
            .with_protocol_name(name(None))
            .with_member_id(StrBytes::from_string(member_id)),
    };
    respond(out, header, &response)
}

pub(super) fn sync(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: SyncGroupRequest = request.decode()?;
    let header = request.header;
    let name = body.group_id.to_string();
    if !is_valid(&name) {
        return respond_sync(out, &header, Err(Code::InvalidGroupId.code()));
    }
    if !session.may_group(&name, Verbs::READ) {
        return respond_sync(out, &header, Err(Code::GroupAuthorizationFailed.code()));
    }
    let assignments = body
        .assignments
        .into_iter()
        .map(|row| (row.member_id.to_string(), row.assignment))
        .collect();
    let now = session.now();
    let ticket = next_ticket(session);
    let number = ticket.number;
    let node = Arc::clone(&session.node);
    let outcome = {
        let mut locked = node.broker.lock_one(group::slot(&name).shard());
        match group::get(&mut locked, &name, now) {
            None => Outcome::Now(Err(GroupError::UnknownMember)),
            Some(group) => group.sync(
                &body.member_id,
                body.group_instance_id.as_deref(),
                body.generation_id,
                body.protocol_type.as_deref(),
                body.protocol_name.as_deref(),
                assignments,
                ticket,
                now,
            ),
        }
    };
    match outcome {
        Outcome::Now(answer) => respond_sync(out, &header, answer.map_err(error::of_group)),
        Outcome::Later => {
            let wait = GroupWait {
                header,
                group: name,
                ticket: number,
                look_at: Instant::now(),
            };
            resume(session, wait, out)
        }
    }
}

fn respond_sync(
    out: &mut Outbox,
    header: &RequestHeader,
    answer: Result<SyncAnswer, i16>,
) -> Result<(), Failure> {
    let response = match answer {
        Ok(answer) => SyncGroupResponse::default()
            .with_protocol_type(Some(StrBytes::from_string(answer.protocol_type)))
            .with_protocol_name(Some(StrBytes::from_string(answer.protocol)))
            .with_assignment(answer.assignment),
        Err(code) => SyncGroupResponse::default().with_error_code(code),
    };
    respond(out, header, &response)
}

/// Looks whether the answer has come; if not, waits on until the group's next deadline.
pub(in crate::kafka) fn resume(
    session: &mut KafkaSession,
    mut wait: GroupWait,
    out: &mut Outbox,
) -> Result<(), Failure> {
    if !session.may_group(&wait.group, Verbs::READ) {
        // Taken away since it began to wait.
        hang_up(session, &wait);
        let code = Code::GroupAuthorizationFailed.code();
        return if wait.header.key == JOIN {
            respond_join(out, &wait.header, Err((code, String::new())))
        } else {
            respond_sync(out, &wait.header, Err(code))
        };
    }
    let now = session.now();
    let node = Arc::clone(&session.node);
    let mut next = None;
    if Instant::now() >= wait.look_at {
        let mut locked = node.broker.lock_one(group::slot(&wait.group).shard());
        // Time may be up for somebody: then the answer is in the mailbox when this returns.
        next = group::get(&mut locked, &wait.group, now).and_then(|group| group.next_deadline());
    }
    let mailbox = Arc::clone(&session.mailbox);
    mailbox.drain(&mut session.answers);
    for answer in session.answers.drain(..) {
        match answer {
            Answer::Join(number, answer) if number == wait.ticket => {
                return respond_join(
                    out,
                    &wait.header,
                    answer.map_err(|(wrong, id)| (error::of_group(wrong), id)),
                );
            }
            Answer::Sync(number, answer) if number == wait.ticket => {
                return respond_sync(out, &wait.header, answer.map_err(error::of_group));
            }
            Answer::Join(..) | Answer::Sync(..) => {}
        }
    }
    if Instant::now() >= wait.look_at {
        let latest = Instant::now() + LOOK_EVERY;
        // One millisecond more: a deadline is over when the clock is past it.
        wait.look_at = next.map_or(latest, |next| {
            instant_of(Millis(next.0 + 1), now).min(latest)
        });
    }
    session.waiting = Some(Waiting::Group(wait));
    Ok(())
}

/// The connection is gone while it waited.
pub(in crate::kafka) fn hang_up(session: &mut KafkaSession, wait: &GroupWait) {
    let now = session.now();
    let ticket = Ticket {
        mailbox: Arc::clone(&session.mailbox),
        number: wait.ticket,
    };
    let mut locked = session
        .node
        .broker
        .lock_one(group::slot(&wait.group).shard());
    if let Some(group) = group::get(&mut locked, &wait.group, now) {
        group.hang_up(&ticket, now);
    }
}

pub(super) fn heartbeat(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: HeartbeatRequest = request.decode()?;
    let now = session.now();
    let name = body.group_id.as_str();
    let code = if !session.may_group(name, Verbs::READ) {
        Code::GroupAuthorizationFailed.code()
    } else if is_valid(name) {
        let mut locked = session.node.broker.lock_one(group::slot(name).shard());
        let alive = match group::get(&mut locked, name, now) {
            None => Err(GroupError::UnknownMember),
            Some(group) => group.heartbeat(
                &body.member_id,
                body.group_instance_id.as_deref(),
                body.generation_id,
                now,
            ),
        };
        alive.map_or_else(error::of_group, |()| error::NONE)
    } else {
        Code::InvalidGroupId.code()
    };
    respond(
        out,
        &request.header,
        &HeartbeatResponse::default().with_error_code(code),
    )
}

pub(super) fn leave(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: LeaveGroupRequest = request.decode()?;
    let now = session.now();
    let name = body.group_id.as_str();
    let mut response = LeaveGroupResponse::default();
    if !is_valid(name) {
        response.error_code = Code::InvalidGroupId.code();
        return respond(out, &request.header, &response);
    }
    if !session.may_group(name, Verbs::READ) {
        response.error_code = Code::GroupAuthorizationFailed.code();
        return respond(out, &request.header, &response);
    }
    let leaving = if request.version() >= 3 {
        body.members
    } else {
        vec![MemberIdentity::default().with_member_id(body.member_id)]
    };
    let mut locked = session.node.broker.lock_one(group::slot(name).shard());
    for member in leaving {
        let instance = member.group_instance_id.as_deref();
        let left = match group::get(&mut locked, name, now) {
            None => Err(GroupError::UnknownMember),
            Some(group) => group.leave(&member.member_id, instance, now),
        };
        let code = left.map_or_else(error::of_group, |_| error::NONE);
        if request.version() >= 3 {
            let row = MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(code);
            response.members.push(row);
        } else {
            response.error_code = code;
        }
    }
    drop(locked);
    respond(out, &request.header, &response)
}

pub(super) fn describe(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DescribeGroupsRequest = request.decode()?;
    let now = session.now();
    let mut groups = Vec::with_capacity(body.groups.len());
    for id in body.groups {
        if !session.may_group(&id, Verbs::DESCRIBE) {
            let code = Code::GroupAuthorizationFailed.code();
            groups.push(
                DescribedGroup::default()
                    .with_group_id(id)
                    .with_error_code(code),
            );
            continue;
        }
        let mut locked = session.node.broker.lock_one(group::slot(&id).shard());
        let mut row = match group::get(&mut locked, &id, now).filter(|group| group.exists()) {
            Some(group) => {
                let active = matches!(group.state, State::Stable | State::CompletingRebalance);
                let protocol = if active {
                    group.protocol.as_deref().unwrap_or_default()
                } else {
                    ""
                };
                let members = group.members().map(|member| {
                    DescribedGroupMember::default()
                        .with_member_id(text(member.id))
                        .with_group_instance_id(member.instance_id.map(text))
                        .with_client_id(text(member.client_id))
                        .with_client_host(text(member.client_host))
                        .with_member_metadata(
                            member
                                .metadata
                                .filter(|_| active)
                                .cloned()
                                .unwrap_or_default(),
                        )
                        .with_member_assignment(member.assignment.clone())
                });
                DescribedGroup::default()
                    .with_group_state(StrBytes::from_static_str(group.state.name()))
                    .with_protocol_type(text(&group.protocol_type))
                    .with_protocol_data(text(protocol))
                    .with_members(members.collect())
            }
            None => {
                let mut row =
                    DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"));
                if request.version() >= 6 {
                    row.error_code = Code::GroupIdNotFound.code();
                    row.error_message = Some(text(&format!("Group {} not found.", id.as_str())));
                }
                row
            }
        };
        if body.include_authorized_operations {
            row.authorized_operations = session.group_operations(&id);
        }
        row.group_id = id;
        groups.push(row);
    }
    respond(
        out,
        &request.header,
        &DescribeGroupsResponse::default().with_groups(groups),
    )
}

pub(super) fn list(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    const TYPE: &str = "classic";
    let body: ListGroupsRequest = request.decode()?;
    let now = session.now();
    let asks = |filter: &[StrBytes], value: &str| {
        filter.is_empty()
            || filter
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let mut groups = Vec::new();
    if asks(&body.types_filter, TYPE) {
        for shard in ShardSet::DATA.iter() {
            let mut locked = session.node.broker.lock_one(shard);
            for group in group::all(&mut locked, shard, now)
                .filter(|group| asks(&body.states_filter, group.state.name()))
                .filter(|group| permission::group(&session.identity, group.name(), Verbs::DESCRIBE))
            {
                let mut row = ListedGroup::default()
                    .with_group_id(GroupId(text(group.name())))
                    .with_protocol_type(text(&group.protocol_type));
                if request.version() >= 4 {
                    row.group_state = StrBytes::from_static_str(group.state.name());
                }
                if request.version() >= 5 {
                    row.group_type = StrBytes::from_static_str(TYPE);
                }
                groups.push(row);
            }
        }
    }
    respond(
        out,
        &request.header,
        &ListGroupsResponse::default().with_groups(groups),
    )
}

pub(super) fn delete(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DeleteGroupsRequest = request.decode()?;
    let now = session.now();
    let mut results = Vec::with_capacity(body.groups_names.len());
    for id in body.groups_names {
        if !session.may_group(&id, Verbs::DELETE) {
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(id)
                    .with_error_code(Code::GroupAuthorizationFailed.code()),
            );
            continue;
        }
        let set = ShardSet::of(group::slot(&id).shard()).union(ShardSet::CATALOG);
        let mut locked = session.node.broker.lock(set);
        let deleted = group::delete_group(&mut locked, &mut session.fx, &id, now)?;
        locked.commit(now, &mut session.fx);
        let code = deleted.map_or_else(error::of_group, |()| error::NONE);
        results.push(
            DeletableGroupResult::default()
                .with_group_id(id)
                .with_error_code(code),
        );
    }
    out.need(session.need(session.node.broker.engine.appended()));
    respond(
        out,
        &request.header,
        &DeleteGroupsResponse::default().with_results(results),
    )
}
