//! The AMQP face over its own codec: what client libraries do not show.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use protocol_amqp::{
    ContentHeader, FrameKind, Frames, Method, Properties, Table, TableBuilder, Value,
};

use crate::server::Server;

const FRAME_MAX: u32 = 131_072;

/// What came in one frame.
#[derive(Debug, Clone, PartialEq)]
enum Got {
    /// Name and `Debug` of a method.
    Method(&'static str, String),
    /// Size of a content body and its properties.
    Header(u64, Vec<u8>),
    Body(Vec<u8>),
    Heartbeat,
    Closed,
}

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    input: BytesMut,
    waiting: Vec<Got>,
}

impl Client {
    /// Logged in, channel 1 open.
    pub(crate) fn connect(server: &Server) -> Self {
        Self::with_heartbeat(server, 0)
    }

    fn with_heartbeat(server: &Server, heartbeat: u16) -> Self {
        Self::login(server, heartbeat, "guest", "guest", "").unwrap_or_else(|got| panic!("{got}"))
    }

    /// The same as somebody; what came instead, if it is not let in.
    pub(crate) fn connect_as(server: &Server, user: &str, password: &str) -> Result<Self, String> {
        Self::login(server, 0, user, password, "")
    }

    /// A client that says that it understands this, too.
    pub(crate) fn connect_with(server: &Server, capability: &str) -> Self {
        Self::login(server, 0, "guest", "guest", capability).unwrap_or_else(|got| panic!("{got}"))
    }

    /// Nothing comes within so long.
    pub(crate) fn hears_nothing(&mut self, time: Duration) {
        let before = self.socket.read_timeout().unwrap();
        self.socket.set_read_timeout(Some(time)).unwrap();
        assert!(self.waiting.is_empty());
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            other => panic!("{other:?}: {buffer:?}"),
        }
        self.socket.set_read_timeout(before).unwrap();
    }

    fn login(
        server: &Server,
        heartbeat: u16,
        user: &str,
        password: &str,
        capability: &str,
    ) -> Result<Self, String> {
        let socket = TcpStream::connect(server.addr("amqp")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut client = Self {
            socket,
            input: BytesMut::new(),
            waiting: Vec::new(),
        };
        client.socket.write_all(b"AMQP\0\0\x09\x01").unwrap();
        client.expect("connection.start");
        let mut tells = TableBuilder::new().with("authentication_failure_close", Value::Bool(true));
        if !capability.is_empty() {
            tells.push(capability.as_bytes(), Value::Bool(true));
        }
        let properties = TableBuilder::new().with("capabilities", Value::Table(tells.as_table()));
        let response = format!("\0{user}\0{password}");
        client.send(
            0,
            &Method::ConnectionStartOk {
                client_properties: properties.as_table(),
                mechanism: "PLAIN".into(),
                response: response.as_str().into(),
                locale: "en_US".into(),
            },
        );
        client.next_is("connection.tune")?;
        client.send(
            0,
            &Method::ConnectionTuneOk {
                channel_max: 10,
                frame_max: FRAME_MAX,
                heartbeat,
            },
        );
        client.send(
            0,
            &Method::ConnectionOpen {
                virtual_host: "/".into(),
                capabilities: "".into(),
                insist: false,
            },
        );
        client.next_is("connection.open_ok")?;
        client.send(
            1,
            &Method::ChannelOpen {
                out_of_band: "".into(),
            },
        );
        client.expect("channel.open_ok");
        Ok(client)
    }

    /// The arguments of the next method if it is this one, else what came.
    pub(crate) fn next_is(&mut self, name: &str) -> Result<String, String> {
        match self.next() {
            Got::Method(found, arguments) if found == name => Ok(arguments),
            other => Err(format!("{other:?}")),
        }
    }

    pub(crate) fn send(&mut self, channel: u16, method: &Method<'_>) {
        let mut out = Vec::new();
        protocol_amqp::method(&mut out, channel, method);
        self.socket.write_all(&out).unwrap();
    }

    fn next(&mut self) -> Got {
        loop {
            if !self.waiting.is_empty() {
                return self.waiting.remove(0);
            }
            let mut frames = Frames::take(&mut self.input, FRAME_MAX);
            while let Some(frame) = frames.next_frame().unwrap() {
                self.waiting.push(match frame.kind {
                    FrameKind::Method => {
                        let method = Method::decode(frame.payload).unwrap();
                        Got::Method(method.name(), format!("{method:?}"))
                    }
                    FrameKind::Header => {
                        let header = ContentHeader::decode(frame.payload).unwrap();
                        Got::Header(header.body_size, header.properties.to_vec())
                    }
                    FrameKind::Body => Got::Body(frame.payload.to_vec()),
                    FrameKind::Heartbeat => Got::Heartbeat,
                });
            }
            if self.waiting.is_empty() {
                let mut buffer = [0; 65_536];
                match self.socket.read(&mut buffer) {
                    Ok(0) | Err(_) => return Got::Closed,
                    Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                }
            }
        }
    }

    /// The next frame is this method; gives its arguments.
    pub(crate) fn expect(&mut self, name: &str) -> String {
        match self.next() {
            Got::Method(found, arguments) if found == name => arguments,
            other => panic!("expected {name}, got {other:?}"),
        }
    }

    pub(crate) fn declare(&mut self, queue: &str, durable: bool) -> String {
        self.declare_with(queue, durable, Table::default())
    }

    /// A durable queue of either kind.
    pub(crate) fn declare_as(&mut self, queue: &str, quorum: bool) -> String {
        let kind: &[u8] = if quorum { b"quorum" } else { b"classic" };
        let arguments = TableBuilder::new().with("x-queue-type", Value::LongStr(kind));
        self.declare_with(queue, true, arguments.as_table())
    }

    fn declare_with(&mut self, queue: &str, durable: bool, arguments: Table<'_>) -> String {
        self.send(
            1,
            &Method::QueueDeclare {
                ticket: 0,
                queue: queue.into(),
                passive: false,
                durable,
                exclusive: false,
                auto_delete: false,
                nowait: false,
                arguments,
            },
        );
        self.expect("queue.declare_ok")
    }

    pub(crate) fn publish(&mut self, queue: &str, body: &[u8], mandatory: bool) {
        self.publish_to("", queue, body, mandatory);
    }

    pub(crate) fn publish_to(&mut self, exchange: &str, key: &str, body: &[u8], mandatory: bool) {
        let mut out = Vec::new();
        let publish = Method::BasicPublish {
            ticket: 0,
            exchange: exchange.into(),
            routing_key: key.into(),
            mandatory,
            immediate: false,
        };
        protocol_amqp::method(&mut out, 1, &publish);
        let properties = Properties {
            delivery_mode: Some(2),
            ..Properties::default()
        }
        .to_raw();
        protocol_amqp::content_header(&mut out, 1, body.len() as u64, &properties);
        protocol_amqp::content_body(&mut out, 1, body, FRAME_MAX);
        self.socket.write_all(&out).unwrap();
    }

    pub(crate) fn confirm_mode(&mut self) {
        self.send(1, &Method::ConfirmSelect { nowait: false });
        self.expect("confirm.select_ok");
    }

    /// Reads confirms until `count` messages are confirmed.
    pub(crate) fn confirmed(&mut self, count: u64) {
        loop {
            let ack = self.expect("basic.ack");
            if ack.contains(&format!("delivery_tag: {count},")) {
                return;
            }
        }
    }

    /// Body and redelivered flag of one `basic.get`, acknowledged; `None`: the queue is empty.
    pub(crate) fn get(&mut self, queue: &str) -> Option<(Vec<u8>, bool)> {
        self.send(
            1,
            &Method::BasicGet {
                ticket: 0,
                queue: queue.into(),
                no_ack: true,
            },
        );
        let arguments = match self.next() {
            Got::Method("basic.get_empty", _) => return None,
            Got::Method("basic.get_ok", arguments) => arguments,
            other => panic!("{other:?}"),
        };
        Some((self.content(), arguments.contains("redelivered: true")))
    }

    /// Tag, body and redelivered flag of one `basic.get`; `None`: the queue is empty.
    pub(crate) fn take(&mut self, queue: &str) -> Option<(u64, Vec<u8>, bool)> {
        self.send(
            1,
            &Method::BasicGet {
                ticket: 0,
                queue: queue.into(),
                no_ack: false,
            },
        );
        let arguments = match self.next() {
            Got::Method("basic.get_empty", _) => return None,
            Got::Method("basic.get_ok", arguments) => arguments,
            other => panic!("{other:?}"),
        };
        let tag = arguments.split("delivery_tag: ").nth(1);
        let tag = tag.and_then(|rest| rest.split(',').next()?.parse().ok());
        let redelivered = arguments.contains("redelivered: true");
        Some((tag.expect("a delivery tag"), self.content(), redelivered))
    }

    pub(crate) fn ack_one(&mut self, tag: u64) {
        self.send(
            1,
            &Method::BasicAck {
                delivery_tag: tag,
                multiple: false,
            },
        );
    }

    pub(crate) fn give_back(&mut self, tag: u64) {
        self.send(
            1,
            &Method::BasicNack {
                delivery_tag: tag,
                multiple: false,
                requeue: true,
            },
        );
    }

    pub(crate) fn tx_select(&mut self) {
        self.send(1, &Method::TxSelect {});
        self.expect("tx.select_ok");
    }

    pub(crate) fn tx_commit(&mut self) {
        self.send(1, &Method::TxCommit {});
        self.expect("tx.commit_ok");
    }

    /// Consumes from now on, with so many unacknowledged messages at most.
    pub(crate) fn consume(&mut self, queue: &str, prefetch: u16) {
        self.send(
            1,
            &Method::BasicQos {
                prefetch_size: 0,
                prefetch_count: prefetch,
                global: false,
            },
        );
        self.expect("basic.qos_ok");
        self.send(
            1,
            &Method::BasicConsume {
                ticket: 0,
                queue: queue.into(),
                consumer_tag: "c".into(),
                no_local: false,
                no_ack: false,
                exclusive: false,
                nowait: false,
                arguments: Table::default(),
            },
        );
        self.expect("basic.consume_ok");
    }

    /// Body and redelivered flag of the next delivery.
    pub(crate) fn delivery(&mut self) -> (Vec<u8>, bool) {
        let arguments = self.expect("basic.deliver");
        (self.content(), arguments.contains("redelivered: true"))
    }

    /// Acknowledges everything up to this delivery.
    pub(crate) fn ack_until(&mut self, tag: u64) {
        self.send(
            1,
            &Method::BasicAck {
                delivery_tag: tag,
                multiple: true,
            },
        );
    }

    fn content(&mut self) -> Vec<u8> {
        let Got::Header(size, _) = self.next() else {
            panic!("no header")
        };
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let Got::Body(part) = self.next() else {
                panic!("no body")
            };
            body.extend_from_slice(&part);
        }
        body
    }
}

#[test]
fn confirmed_messages_survive_a_kill_in_order_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.declare("kept", true);
    client.confirm_mode();
    let body = |index: u32| {
        let mut body = index.to_le_bytes().to_vec();
        body.resize(
            if index.is_multiple_of(10) {
                200_000
            } else {
                20 * index as usize + 4
            },
            b'.',
        );
        body
    };
    for index in 0..100 {
        client.publish("kept", &body(index), false);
    }
    client.confirmed(100);
    // Ten are taken and acknowledged; what was said before the kill holds, as the answer to the next question shows.
    for index in 0..10 {
        assert_eq!(client.get("kept"), Some((body(index), false)));
    }
    client.declare("kept", true);
    server.kill();

    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    let mut first = None;
    for index in 10..100 {
        let (found, _) = client.get("kept").expect("a confirmed message");
        // An acknowledgement has no answer: the last ones may come again, in their places.
        if first.is_none() {
            let number = u32::from_le_bytes(*found.first_chunk().unwrap());
            assert!(number <= 10, "message {number} came first");
            for again in number + 1..=10 {
                assert_eq!(client.get("kept").map(|(body, _)| body), Some(body(again)));
            }
            first = Some(number);
            continue;
        }
        assert_eq!(found, body(index));
    }
    assert_eq!(client.get("kept"), None);
}

#[test]
fn a_stop_says_so_in_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.declare("q", true);
    server.signal("TERM");
    let close = client.expect("connection.close");
    assert!(
        close.contains("reply_code: 320") && close.contains("CONNECTION_FORCED - "),
        "{close}"
    );
    client.send(0, &Method::ConnectionCloseOk {});
    assert_eq!(client.next(), Got::Closed);
}

#[test]
fn returned_before_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.confirm_mode();
    client.publish("nobody", b"back to you", true);
    let returned = client.expect("basic.return");
    assert!(
        returned.contains("reply_code: 312") && returned.contains("NO_ROUTE"),
        "{returned}"
    );
    assert!(matches!(client.next(), Got::Header(11, _)));
    assert_eq!(client.next(), Got::Body(b"back to you".to_vec()));
    assert!(client.expect("basic.ack").contains("delivery_tag: 1,"));
}

#[test]
fn silence_is_answered_with_heartbeats_and_then_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::with_heartbeat(&server, 1);
    let mut beats = 0;
    loop {
        match client.next() {
            Got::Heartbeat => beats += 1,
            Got::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(beats >= 2, "{beats} heartbeats");
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.declare("a", true);
    client.declare("b", true);
    client.send(1, &Method::TxSelect {});
    client.expect("tx.select_ok");
    client.publish("a", b"1", false);
    client.publish("b", b"2", false);
    assert_eq!(client.get("a"), None);
    client.send(1, &Method::TxRollback {});
    client.expect("tx.rollback_ok");
    client.publish("a", b"3", false);
    client.publish("b", b"4", false);
    client.send(1, &Method::TxCommit {});
    client.expect("tx.commit_ok");
    server.kill();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert_eq!(client.get("a"), Some((b"3".to_vec(), false)));
    assert_eq!(client.get("b"), Some((b"4".to_vec(), false)));
    assert_eq!(client.get("a"), None);
}

/// One transaction is one record, which has a row for each message in each queue: its end is told, and nothing of it is done.
#[test]
fn a_transaction_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    let bind = |client: &mut Client, exchange: &str, queue: &str| {
        client.send(
            1,
            &Method::QueueBind {
                ticket: 0,
                queue: queue.into(),
                exchange: exchange.into(),
                routing_key: "k".into(),
                nowait: false,
                arguments: Table::default(),
            },
        );
        client.expect("queue.bind_ok");
    };
    let queues: Vec<String> = (0..64).map(|number| format!("q{number}")).collect();
    for queue in &queues {
        client.declare(queue, true);
        bind(&mut client, "amq.fanout", queue);
    }
    let too_large = |client: &mut Client| {
        let told = client.expect("channel.close");
        assert!(
            told.contains("reply_code: 406")
                && told.contains("PRECONDITION_FAILED - transaction is larger than"),
            "{told}"
        );
        client.send(1, &Method::ChannelCloseOk {});
        let open = Method::ChannelOpen {
            out_of_band: "".into(),
        };
        client.send(1, &open);
        client.expect("channel.open_ok");
    };
    let body = vec![b'x'; 1 << 20];
    client.send(1, &Method::TxSelect {});
    client.expect("tx.select_ok");
    // 64 MiB, written 64 times.
    for _ in 0..64 {
        client.publish_to("amq.fanout", "k", &body, false);
    }
    client.send(1, &Method::TxCommit {});
    too_large(&mut client);

    // It was small when it was said, and is not when it is committed.
    client.declare("own", true);
    client.publish("own", b"mine", false);
    client.send(1, &Method::TxSelect {});
    client.expect("tx.select_ok");
    let get = Method::BasicGet {
        ticket: 0,
        queue: "own".into(),
        no_ack: false,
    };
    client.send(1, &get);
    client.expect("basic.get_ok");
    assert_eq!(client.content(), b"mine");
    client.ack_until(1);
    bind(&mut client, "amq.direct", "q0");
    for _ in 0..17 {
        client.publish_to("amq.direct", "k", &body, false);
    }
    let mut other = Client::connect(&server);
    for queue in queues.iter().skip(1) {
        bind(&mut other, "amq.direct", queue);
    }
    client.send(1, &Method::TxCommit {});
    too_large(&mut client);
    assert_eq!(client.get("own"), Some((b"mine".to_vec(), true)));
    for queue in &queues {
        assert_eq!(client.get(queue), None);
    }
    // To as many queues without a transaction.
    client.confirm_mode();
    client.publish_to("amq.fanout", "k", &body, false);
    client.confirmed(1);
    assert_eq!(client.get("q63"), Some((body, false)));
    assert!(server.stop().success());
}
