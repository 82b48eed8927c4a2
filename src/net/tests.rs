use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;

use bytes::{Buf, Bytes};
use storage::{Durability, Effects, Need, Options, ShardId};

use super::*;

/// Like a mailbox: what is in it is taken when there is room, and only then.
type Mail = Arc<parking_lot::Mutex<Vec<Vec<u8>>>>;

/// Echoes lines. `log` appends a record and waits for its fsync, `fill N` appends N bytes, `pause` stops reading until rung, `bye` closes, `flood N` sends N bytes, `who` names
/// the client's certificate. `login` ends a stranger's time, `listen` makes it a subscriber. `deaf N` sends N bytes and stops reading until there was mail.
struct Lines {
    engine: Arc<Engine>,
    paused: Arc<AtomicBool>,
    closed: Arc<AtomicUsize>,
    peer: Option<String>,
    stranger: bool,
    listens: bool,
    deaf: bool,
    mail: Mail,
}

impl Session for Lines {
    fn secured(&mut self, peer: &Certificate) {
        self.peer = Some(peer.subject.clone());
    }

    fn is_stranger(&self) -> bool {
        self.stranger
    }

    fn reads(&self) -> Reads {
        if self.listens {
            Reads::Published
        } else {
            Reads::Replies
        }
    }

    fn read(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow {
        while let Some(end) = input.iter().position(|&b| b == b'\n') {
            if self.paused() || out.is_full() {
                return Flow::Continue;
            }
            let line = input.split_to(end).freeze();
            input.advance(1);
            match &line[..] {
                b"log" => {
                    let mut fx = Effects::new();
                    fx.put(ShardId(0), b"\0\0k", b"v");
                    out.need(Need::of(self.engine.append(1, &fx), Durability::Sync));
                    out.bytes().extend_from_slice(b"logged\n");
                }
                fill if fill.starts_with(b"fill ") => {
                    let size = std::str::from_utf8(&fill[5..]).unwrap().parse().unwrap();
                    let mut fx = Effects::new();
                    fx.put(ShardId(0), b"\0\0k", &vec![b'x'; size]);
                    self.engine.append(1, &fx);
                    out.bytes().extend_from_slice(b"filled\n");
                }
                b"login" => self.stranger = false,
                b"listen" => self.listens = true,
                b"pause" => self.paused.store(true, Ordering::SeqCst),
                deaf if deaf.starts_with(b"deaf ") => {
                    let size = std::str::from_utf8(&deaf[5..]).unwrap().parse().unwrap();
                    out.push(Bytes::from(vec![b'x'; size]));
                    self.deaf = true;
                }
                b"bye" => {
                    out.bytes().extend_from_slice(b"bye\n");
                    return Flow::Close;
                }
                flood if flood.starts_with(b"flood ") => {
                    let size = std::str::from_utf8(&flood[6..]).unwrap().parse().unwrap();
                    out.push(Bytes::from(vec![b'x'; size]));
                }
                b"who" => {
                    let name = self.peer.as_deref().unwrap_or("nobody");
                    out.bytes().extend_from_slice(name.as_bytes());
                    out.bytes().push(b'\n');
                }
                other => {
                    out.bytes().extend_from_slice(other);
                    out.bytes().push(b'\n');
                }
            }
        }
        Flow::Continue
    }

    /// Like every session, this one changes whether it is paused only on its own thread.
    fn wake(&mut self, out: &mut Outbox) -> Flow {
        self.paused.store(false, Ordering::SeqCst);
        if !out.is_full() {
            let mail = std::mem::take(&mut *self.mail.lock());
            self.deaf &= mail.is_empty();
            mail.into_iter().for_each(|mail| out.push(mail.into()));
        }
        Flow::Continue
    }

    fn paused(&self) -> bool {
        self.deaf || self.paused.load(Ordering::SeqCst)
    }

    fn stop(&mut self, out: &mut Outbox) -> Flow {
        out.bytes().extend_from_slice(b"stopping\n");
        Flow::Close
    }

    fn closed(&mut self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

pub(super) struct Server {
    pub(super) net: Option<Net>,
    pub(super) addr: SocketAddr,
    /// Another door of the same.
    second: SocketAddr,
    pub(super) closed: Arc<AtomicUsize>,
    pub(super) paused: Arc<AtomicBool>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) handles: Arc<parking_lot::Mutex<Vec<ConnHandle>>>,
    mail: Mail,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(limits: Limits) -> Self {
        Self::start_with(limits, |_| (), None)
    }

    pub(super) fn start_with(
        limits: Limits,
        change: impl FnOnce(&mut Options),
        keyring: Option<Arc<Keyring>>,
    ) -> Self {
        Self::build(limits, change, keyring, false)
    }

    /// One where everybody must log in.
    fn with_strangers(limits: Limits) -> Self {
        Self::build(limits, |_| (), None, true)
    }

    fn build(
        limits: Limits,
        change: impl FnOnce(&mut Options),
        keyring: Option<Arc<Keyring>>,
        strange: bool,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path());
        change(&mut options);
        let engine = Engine::open(options).unwrap();
        let sockets = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [addr, second] = sockets.each_ref().map(|s| s.local_addr().unwrap());
        let (closed, paused) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let handles = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let mail = Mail::default();
        let sessions: NewSession = {
            let (mail, engine, closed, paused, handles) = (
                Arc::clone(&mail),
                Arc::clone(&engine),
                Arc::clone(&closed),
                Arc::clone(&paused),
                Arc::clone(&handles),
            );
            Arc::new(move |info: ConnInfo| {
                handles.lock().push(info.handle);
                Box::new(Lines {
                    engine: Arc::clone(&engine),
                    paused: Arc::clone(&paused),
                    closed: Arc::clone(&closed),
                    peer: None,
                    stranger: strange,
                    listens: false,
                    deaf: false,
                    mail: Arc::clone(&mail),
                })
            })
        };
        let traffic: Arc<Traffic> = Arc::default();
        let listeners = sockets.map(|socket| Listener {
            socket: Listening::Tcp(socket),
            sessions: Arc::clone(&sessions),
            keyring: keyring.clone(),
            refusal: b"too many\n",
            traffic: Arc::clone(&traffic),
            urgent: None,
        });
        let net = Net::start(2, &engine, listeners.into(), limits).unwrap();
        Self {
            net: Some(net),
            addr,
            second,
            closed,
            paused,
            traffic,
            handles,
            mail,
            _dir: dir,
        }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.addr).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    }

    pub(super) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(net) = self.net.take() {
            net.stop(Duration::from_secs(5));
        }
    }
}

fn expect(socket: &mut TcpStream, text: &str) {
    let mut got = vec![0; text.len()];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), text);
}

#[test]
fn replies_come_in_order_and_wait_for_the_disk() {
    let server = Server::start(Limits::default());
    let mut socket = server.connect();
    socket.write_all(b"a\nlog\nb\n").unwrap();
    expect(&mut socket, "a\nlogged\nb\n");
}

#[test]
fn what_came_before_a_half_close_is_answered() {
    let server = Server::start(Limits::default());
    let mut socket = server.connect();
    socket.write_all(b"a\nlog\n").unwrap();
    expect(&mut socket, "a\nlogged\n");
    socket.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    server.until("the session is told", |s| {
        s.closed.load(Ordering::SeqCst) == 1
    });
}

#[test]
fn who_hangs_up_behind_the_last_command_hears_the_answer() {
    let server = Server::start(Limits::default());
    // Data and end mostly come with one event: the connection is handed to its worker after both.
    for _ in 0..100 {
        let mut client = TcpStream::connect(server.addr).unwrap();
        client.write_all(b"log\nlast\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "logged\nlast\n");
    }
}

#[test]
fn a_goodbye_is_sent_before_the_close() {
    let server = Server::start(Limits::default());
    let mut socket = server.connect();
    socket.write_all(b"flood 3000000\nbye\nignored\n").unwrap();
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    assert_eq!((all.len(), &all[3_000_000..]), (3_000_004, &b"bye\n"[..]));
}

#[test]
fn a_client_that_never_reads_stops_being_read() {
    let server = Server::start(Limits {
        outbox_pause: 1000,
        ..Limits::default()
    });
    let mut socket = server.connect();
    socket.write_all(b"flood 30000000\n").unwrap();
    socket.write_all(b"after\n").unwrap();
    let mut left = 30_000_000;
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let want = buffer.len().min(left);
        left -= socket.read(&mut buffer[..want]).unwrap();
    }
    expect(&mut socket, "after\n");
}

#[test]
fn a_paused_session_goes_on_when_rung_and_is_closed_on_hang_up() {
    let server = Server::start(Limits::default());
    let mut socket = server.connect();
    socket.write_all(b"pause\nlater\n").unwrap();
    server.until("paused", |s| s.paused.load(Ordering::SeqCst));
    server.handles.lock()[0].ring();
    expect(&mut socket, "later\n");
    socket.write_all(b"pause\n").unwrap();
    server.until("paused", |s| s.paused.load(Ordering::SeqCst));
    drop(socket);
    server.until("the session is told", |s| {
        s.closed.load(Ordering::SeqCst) == 1
    });
}

/// A mailbox rings once: what was left in it because the outbox was full is taken when there is room, whatever else the
/// connection waits for.
#[test]
fn mail_that_found_a_full_outbox_is_delivered_later() {
    let server = Server::start(Limits::default());
    let mut socket = server.connect();
    socket.write_all(b"deaf 20000000\nlater\n").unwrap();
    socket.read_exact(&mut [0; 1000]).unwrap();
    server.mail.lock().push(b"mail\n".to_vec());
    server.handles.lock()[0].ring();
    // One of them is on the same worker, which has heard what rang when it answers.
    for mut other in [server.connect(), server.connect()] {
        other.write_all(b"a\n").unwrap();
        expect(&mut other, "a\n");
    }
    io::copy(&mut (&mut socket).take(20_000_000 - 1000), &mut io::sink()).unwrap();
    expect(&mut socket, "mail\nlater\n");
}

/// The last read of a turn may be short and leave input behind, when its first lines fill the outbox.
#[test]
fn input_behind_the_last_read_of_a_turn_is_answered() {
    let server = Server::with_strangers(Limits::default());
    for _ in 0..20 {
        let mut socket = server.connect();
        // Strangers are read 16 KiB at a time: three such reads without an answer, and a short one.
        let mut lines = b"listen\n".repeat((48 << 10) / 7 + 1);
        lines.extend_from_slice(b"flood 20000\nlast\n");
        socket.write_all(&lines).unwrap();
        expect(&mut socket, &"x".repeat(20_000));
        expect(&mut socket, "last\n");
    }
}

#[test]
fn one_connection_too_many_is_refused_and_the_place_is_free_again_later() {
    let server = Server::start(Limits {
        connections: 1,
        ..Limits::default()
    });
    let mut first = server.connect();
    first.write_all(b"a\n").unwrap();
    expect(&mut first, "a\n");
    let mut second = server.connect();
    expect(&mut second, "too many\n");
    drop(first);
    server.until("closed", |s| s.closed.load(Ordering::SeqCst) == 1);
    server.until("room again", |s| s.net.as_ref().unwrap().open() == 0);
    let mut third = server.connect();
    third.write_all(b"c\n").unwrap();
    expect(&mut third, "c\n");
}

#[test]
fn a_stop_says_goodbye_and_a_kill_does_not() {
    let mut server = Server::start(Limits::default());
    let mut one = server.connect();
    one.write_all(b"a\n").unwrap();
    expect(&mut one, "a\n");
    server.handles.lock()[0].kill();
    assert_eq!(one.read(&mut [0; 8]).unwrap(), 0);
    let mut two = server.connect();
    two.write_all(b"b\n").unwrap();
    expect(&mut two, "b\n");
    server.net.take().unwrap().stop(Duration::from_secs(5));
    expect(&mut two, "stopping\n");
    assert_eq!(two.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(server.closed.load(Ordering::SeqCst), 2);
}

#[test]
fn many_connections_on_both_workers() {
    let server = Server::start(Limits::default());
    let mut sockets: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for (index, socket) in sockets.iter_mut().enumerate() {
        socket
            .write_all(format!("hello {index}\nlog\n").as_bytes())
            .unwrap();
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        expect(socket, &format!("hello {index}\nlogged\n"));
    }
}

/// Lets a fold begin and not end, as long as the lock is held elsewhere.
#[derive(Debug)]
struct Stuck(Arc<parking_lot::Mutex<()>>);

impl storage::fault::Fault for Stuck {
    fn at(&self, step: storage::fault::Step) -> io::Result<()> {
        if step == storage::fault::Step::FoldSynced {
            drop(self.0.lock());
        }
        Ok(())
    }
}

#[test]
fn a_writer_is_slowed_and_a_reader_is_not_while_the_tables_are_behind() {
    let stuck = Arc::new(parking_lot::Mutex::new(()));
    let slow = |options: &mut Options| {
        options.fold_bytes = 1024;
        options.faults = storage::fault::Faults::new(Arc::new(Stuck(Arc::clone(&stuck))));
    };
    let server = Server::start_with(Limits::default(), slow, None);
    let held = stuck.lock();
    let (mut writer, mut reader) = (server.connect(), server.connect());
    let began = Instant::now();
    // Far more than four windows; the second line of the writer waits for its rest to end, the reader does not.
    writer.write_all(b"fill 4000000\n").unwrap();
    expect(&mut writer, "filled\n");
    writer.write_all(b"again\n").unwrap();
    for _ in 0..3 {
        reader.write_all(b"hello\n").unwrap();
        expect(&mut reader, "hello\n");
    }
    let reading = began.elapsed();
    expect(&mut writer, "again\n");
    let writing = began.elapsed();
    assert!(writing >= Duration::from_millis(400), "{writing:?}");
    assert!(reading < writing, "{reading:?}, {writing:?}");
    drop(held);
}

/// Sends until the server takes no more for a while; how many bytes it took.
fn push(socket: &mut TcpStream, line: &[u8]) -> usize {
    socket
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let many = line.repeat(4096);
    let mut taken = 0;
    while let Ok(written) = socket.write(&many) {
        taken += written;
        assert!(taken < 256 << 20, "it is read for ever");
    }
    taken
}

#[test]
fn a_stranger_has_little_room_and_little_time() {
    let server = Server::with_strangers(Limits {
        handshake: Duration::from_secs(1),
        ..Limits::default()
    });
    let began = Instant::now();
    let mut rude = server.connect();
    push(&mut rude, b"flood 10000\n");
    // What it is owed is bounded by its share and the sockets' own buffers: a few hundred lines are answered.
    let read = server.traffic.bytes_read.value();
    assert!(read <= 64 << 10, "{read}");
    let mut silent = server.connect();
    let mut known = server.connect();
    // Behind a login there is room for all that came with it.
    known.write_all(&b"echo\n".repeat(8000)).unwrap();
    known.write_all(b"login\n").unwrap();
    known.write_all(&b"echo\n".repeat(8000)).unwrap();
    expect(&mut known, &"echo\n".repeat(16_000));
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
    assert!(began.elapsed() >= Duration::from_millis(900));
    server.until("both strangers are gone", |s| {
        s.closed.load(Ordering::SeqCst) == 2
    });
    known.write_all(b"still\n").unwrap();
    expect(&mut known, "still\n");
}

#[test]
fn a_subscriber_may_be_far_behind_only_for_a_while() {
    let server = Server::start(Limits {
        published_close: 40_000_000,
        published_soft: 5_000_000,
        published_for: Duration::from_millis(300),
        ..Limits::default()
    });
    let (mut far, mut behind, mut asks) = (server.connect(), server.connect(), server.connect());
    // Replies may be as late as they like: the client sets the pace.
    asks.write_all(b"flood 30000000\n").unwrap();
    far.write_all(b"listen\nflood 50000000\n").unwrap();
    server.until("it is closed at once", |s| {
        s.closed.load(Ordering::SeqCst) == 1
    });
    let began = Instant::now();
    behind.write_all(b"listen\nflood 30000000\n").unwrap();
    server.until("it is closed after its time", |s| {
        s.closed.load(Ordering::SeqCst) == 2
    });
    assert!(began.elapsed() >= Duration::from_millis(250));
    assert_eq!(server.traffic.evicted.value(), 2);
    // One that takes what it is owed stays.
    let mut good = server.connect();
    good.write_all(b"listen\nflood 30000000\nafter\n").unwrap();
    io::copy(&mut (&mut good).take(30_000_000), &mut io::sink()).unwrap();
    expect(&mut good, "after\n");
    std::thread::sleep(Duration::from_millis(400));
    good.write_all(b"later\n").unwrap();
    expect(&mut good, "later\n");
    io::copy(&mut (&mut asks).take(30_000_000), &mut io::sink()).unwrap();
}

#[test]
fn a_subscriber_that_reads_is_not_closed_for_one_large_turn() {
    let server = Server::start(Limits {
        published_close: 1_000_000,
        published_soft: 500_000,
        ..Limits::default()
    });
    let mut good = server.connect();
    good.write_all(b"listen\nhi\n").unwrap();
    expect(&mut good, "hi\n");
    // Less than a socket of this machine takes at once, and more than the limit.
    *server.mail.lock() = vec![vec![b'm'; 100_000]; 15];
    server.handles.lock()[0].ring();
    io::copy(&mut (&mut good).take(1_500_000), &mut io::sink()).unwrap();
    good.write_all(b"still\n").unwrap();
    expect(&mut good, "still\n");
}

/// Ten thousand that hold little are as much as a few that hold a lot.
#[test]
fn those_that_hold_little_are_closed_when_there_are_too_many() {
    let server = Server::start(Limits {
        buffers: 2_000_000,
        ..Limits::default()
    });
    let _held: Vec<_> = (0..100)
        .map(|_| {
            let mut socket = server.connect();
            // It may be closed meanwhile.
            let _ = socket.write_all(&[b'x'; 50_000]);
            socket
        })
        .collect();
    let buffered = server.net.as_ref().unwrap().buffered();
    let closed = || server.closed.load(Ordering::SeqCst);
    server.until("some are closed", |_| {
        closed() >= 58 && buffered() <= 2_000_000
    });
    assert!(closed() <= 70, "{}", closed());
}

#[test]
fn those_that_hold_most_are_closed_when_buffers_are_full_strangers_first() {
    let server = Server::with_strangers(Limits {
        buffers: 20_000_000,
        ..Limits::default()
    });
    // No line has an end: all of it stays in buffers.
    let mut small = server.connect();
    small.write_all(b"login\nhalf a li").unwrap();
    let holds = |bytes: usize, known: bool| {
        let mut socket = server.connect();
        if known {
            socket.write_all(b"login\nhi\n").unwrap();
            expect(&mut socket, "hi\n");
        }
        // It may be closed meanwhile.
        let _ = socket.write_all(&vec![b'x'; bytes]);
        socket
    };
    let mut known = holds(9_000_000, true);
    let strangers: Vec<_> = (0..8).map(|_| holds(4_000_000, false)).collect();
    server.until("some are closed", |s| s.closed.load(Ordering::SeqCst) >= 5);
    assert!(server.traffic.evicted.value() >= 5);
    for socket in [&mut known, &mut small] {
        socket.write_all(b"\nwell\n").unwrap();
    }
    expect(&mut small, "half a li\nwell\n");
    expect(&mut known, &"x".repeat(9_000_000));
    expect(&mut known, "\nwell\n");
    drop(strangers);
}

#[test]
fn connections_of_one_address_and_their_rate() {
    let server = Server::start(Limits {
        connections_per_address: 2,
        ..Limits::default()
    });
    let mut held = [server.connect(), server.connect()];
    for socket in &mut held {
        socket.write_all(b"a\n").unwrap();
        expect(socket, "a\n");
    }
    expect(&mut server.connect(), "too many\n");
    drop(held);
    server.until("closed", |s| s.net.as_ref().unwrap().open() == 0);
    let mut again = server.connect();
    again.write_all(b"b\n").unwrap();
    expect(&mut again, "b\n");

    let server = Server::start(Limits {
        accept_rate: 50,
        ..Limits::default()
    });
    let began = Instant::now();
    let mut all: Vec<_> = (0..75).map(|_| server.connect()).collect();
    for socket in &mut all {
        socket.write_all(b"a\n").unwrap();
        expect(socket, "a\n");
    }
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    // A full queue at one door does not keep the other waiting, and a stop does not wait for those in it.
    let _more: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let began = Instant::now();
    let mut other = TcpStream::connect(server.second).unwrap();
    other.write_all(b"a\n").unwrap();
    expect(&mut other, "a\n");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_rate_is_of_those_who_come_in() {
    let server = Server::start(Limits {
        accept_rate: 20,
        connections_per_address: 1,
        ..Limits::default()
    });
    let talk = || {
        let mut socket = server.connect();
        socket.write_all(b"a\n").unwrap();
        expect(&mut socket, "a\n");
        socket
    };
    // One after the other: to find nobody at the door costs nothing.
    let began = Instant::now();
    for number in 1..=30 {
        drop(talk());
        server.until("closed", |s| s.closed.load(Ordering::SeqCst) == number);
        server.until("gone", |s| s.net.as_ref().unwrap().open() == 0);
    }
    assert!(
        began.elapsed() < Duration::from_millis(2500),
        "{:?}",
        began.elapsed()
    );
    // Nor do those who are turned away.
    let _held = talk();
    let began = Instant::now();
    for _ in 0..100 {
        expect(&mut server.connect(), "too many\n");
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}
