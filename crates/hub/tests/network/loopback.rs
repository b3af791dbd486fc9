//! A hub on loopback, and the store that it redirects to: the routes and headers of the real one, misbehaving on demand.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// The commit that `main` of every repository is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Which server is asked, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leg {
    /// The hub, for headers.
    Head,
    /// The hub, for the file.
    Get,
    /// The store, for the file.
    Store,
}

/// One misbehaviour; each is for one answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another answer.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: &'static str },
    /// The right headers, then only this many bytes.
    BreakAfter(usize),
    /// Says and sends only this many bytes.
    Shorten(usize),
    /// One bit of the first byte is another.
    Corrupt,
    /// Sends the whole file whatever part is asked for, and breaks off after this many bytes.
    IgnoreRange(usize),
    /// Says nothing for this long.
    Stall(Duration),
    /// Sends a few bytes at a time with such pauses.
    Slow(Duration),
    /// Sets a header, or with an empty value removes it.
    Header(&'static str, String),
    /// Closes the connection without an answer.
    Hang,
}

/// What came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) leg: Leg,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

#[derive(Default)]
struct State {
    /// By `owner/name/file`, or by the path of a plain address.
    files: Mutex<HashMap<String, (Vec<u8>, Kind)>>,
    faults: Mutex<HashMap<Leg, VecDeque<Fault>>>,
    requests: Mutex<Vec<Request>>,
    store: Mutex<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In large-file storage: the hub redirects to the store.
    Large,
    /// In git: the hub sends it.
    Small,
    /// At the store alone, under its own path.
    Plain,
}

/// Both servers; they end with the test's process.
pub(crate) struct Loopback {
    /// Address of the hub.
    pub(crate) hub: String,
    /// Address of the store.
    pub(crate) store: String,
    state: Arc<State>,
}

impl Loopback {
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let hub = serve(state.clone(), false);
        let store = serve(state.clone(), true);
        state.store.lock().unwrap().clone_from(&store);
        Self { hub, store, state }
    }

    /// A file in large-file storage.
    pub(crate) fn add_large(&self, path: &str, bytes: &[u8]) {
        self.add(path, bytes, Kind::Large);
    }

    /// A file in git.
    pub(crate) fn add_small(&self, path: &str, bytes: &[u8]) {
        self.add(path, bytes, Kind::Small);
    }

    /// A file at the store; gives its address.
    pub(crate) fn add_plain(&self, path: &str, bytes: &[u8]) -> String {
        self.add(path, bytes, Kind::Plain);
        format!("{}/{path}", self.store)
    }

    fn add(&self, path: &str, bytes: &[u8], kind: Kind) {
        self.state.files.lock().unwrap().insert(path.to_owned(), (bytes.to_vec(), kind));
    }

    /// The next answer of this leg misbehaves so; repeated calls queue up.
    pub(crate) fn fault(&self, leg: Leg, fault: Fault) {
        self.state.faults.lock().unwrap().entry(leg).or_default().push_back(fault);
    }

    pub(crate) fn faults(&self, leg: Leg, faults: &[Fault]) {
        for fault in faults {
            self.fault(leg, fault.clone());
        }
    }

    /// All that came in so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// How many requests of a leg came in.
    pub(crate) fn count(&self, leg: Leg) -> usize {
        self.requests().iter().filter(|request| request.leg == leg).count()
    }

    /// The `Range` headers of a leg, empty where there was none.
    pub(crate) fn ranges(&self, leg: Leg) -> Vec<String> {
        let of_leg = self.requests().into_iter().filter(|request| request.leg == leg);
        of_leg.map(|request| request.headers.get("range").cloned().unwrap_or_default()).collect()
    }
}

/// The fault that sends another status.
pub(crate) fn status(status: u16) -> Fault {
    Fault::Answer { status, headers: vec![], body: "" }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn git_sha1(bytes: &[u8]) -> String {
    let mut sha1 = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    sha1.update(bytes);
    hex(&sha1.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn serve(state: Arc<State>, is_store: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let state = state.clone();
            // A client that goes away early is its own business.
            thread::spawn(move || drop(answer(&state, stream.unwrap(), is_store)));
        }
    });
    address
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, headers: Vec<(&'static str, String)>) -> Self {
        Self { status, headers, body: Vec::new() }
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.headers.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.headers.push((name, value));
        }
    }
}

fn answer(state: &State, mut stream: TcpStream, is_store: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut words = first.split(' ');
    let is_head = words.next() == Some("HEAD");
    let path = words.next().unwrap_or_default().to_owned();
    let leg = if is_store {
        Leg::Store
    } else if is_head {
        Leg::Head
    } else {
        Leg::Get
    };
    state.requests.lock().unwrap().push(Request { leg, path: path.clone(), headers: headers.clone() });
    let fault = state.faults.lock().unwrap().get_mut(&leg).and_then(VecDeque::pop_front);
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let range = if matches!(fault, Some(Fault::IgnoreRange(_))) { None } else { range };
    let mut reply = if is_store { at_store(state, &path, range) } else { at_hub(state, &path, range) };
    let mut sent = usize::MAX;
    let mut pause = None;
    match fault {
        None => {}
        Some(Fault::Answer { status, headers, body }) => {
            reply = Reply { status, headers, body: body.as_bytes().to_vec() };
        }
        Some(Fault::BreakAfter(bytes) | Fault::IgnoreRange(bytes)) => sent = bytes,
        Some(Fault::Shorten(bytes)) => reply.body.truncate(bytes),
        Some(Fault::Corrupt) => reply.body.first_mut().into_iter().for_each(|byte| *byte ^= 1),
        Some(Fault::Stall(duration)) => thread::sleep(duration),
        Some(Fault::Slow(duration)) => pause = Some(duration),
        Some(Fault::Header(name, value)) => reply.set(name, value),
        Some(Fault::Hang) => return stream.shutdown(Shutdown::Both),
    }
    send(&mut stream, &reply, is_head, sent, pause)
}

fn send(
    stream: &mut TcpStream,
    reply: &Reply,
    is_head: bool,
    sent: usize,
    pause: Option<Duration>,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n").map_err(std::io::Error::other)?;
    }
    if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
        write!(head, "Content-Length: {}\r\n", reply.body.len()).map_err(std::io::Error::other)?;
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    let body = if is_head { &[][..] } else { &reply.body[..reply.body.len().min(sent)] };
    match pause {
        None => stream.write_all(body)?,
        Some(pause) => {
            for piece in body.chunks(body.len().div_ceil(8).max(1)) {
                stream.write_all(piece)?;
                thread::sleep(pause);
            }
        }
    }
    stream.shutdown(Shutdown::Both)
}

/// `/owner/name/resolve/revision/file`
fn at_hub(state: &State, path: &str, range: Option<usize>) -> Reply {
    let error = |status, code: &str| Reply::new(status, vec![("X-Error-Code", code.to_owned())]);
    if let Some(rest) = path.strip_prefix("/renamed/") {
        let rest = rest.split_once('/').map_or(rest, |(_, rest)| rest);
        return Reply::new(307, vec![("Location", format!("/o/n/{rest}"))]);
    }
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
    let [owner, name, "resolve", revision, file] = parts[..] else {
        return error(404, "");
    };
    let repository = format!("{owner}/{name}/");
    let files = state.files.lock().unwrap();
    if !files.keys().any(|key| key.starts_with(&repository)) {
        return error(401, "RepoNotFound");
    }
    if revision != "main" && revision != COMMIT {
        return error(404, "RevisionNotFound");
    }
    let Some((bytes, kind)) = files.get(&format!("{repository}{file}")) else {
        let mut reply = error(404, "EntryNotFound");
        reply.set("X-Repo-Commit", COMMIT.to_owned());
        return reply;
    };
    if *kind == Kind::Large {
        let store = state.store.lock().unwrap();
        return Reply::new(
            302,
            vec![
                ("X-Repo-Commit", COMMIT.to_owned()),
                ("X-Linked-Size", bytes.len().to_string()),
                ("X-Linked-Etag", format!("\"{}\"", sha256(bytes))),
                ("ETag", "\"of-the-redirect\"".to_owned()),
                ("Location", format!("{store}/{}?signature=s", sha256(bytes))),
            ],
        );
    }
    let mut reply = part(bytes, range);
    reply.set("X-Repo-Commit", COMMIT.to_owned());
    reply.set("ETag", format!("\"{}\"", git_sha1(bytes)));
    reply
}

/// `/sha256?signature` of a large file, or the path of a plain one.
fn at_store(state: &State, path: &str, range: Option<usize>) -> Reply {
    let wanted = path.trim_start_matches('/').split('?').next().unwrap_or_default();
    let files = state.files.lock().unwrap();
    let found = files.iter().find(|(name, (bytes, kind))| match kind {
        Kind::Large => sha256(bytes) == wanted,
        Kind::Plain => *name == wanted,
        Kind::Small => false,
    });
    found.map_or_else(|| Reply::new(404, vec![]), |(_, (bytes, _))| part(bytes, range))
}

fn part(bytes: &[u8], range: Option<usize>) -> Reply {
    let kind = ("Content-Type", "application/octet-stream".to_owned());
    match range {
        None => Reply { status: 200, headers: vec![kind], body: bytes.to_vec() },
        Some(from) if from >= bytes.len() => {
            Reply::new(416, vec![("Content-Range", format!("bytes */{}", bytes.len()))])
        }
        Some(from) => {
            let whole = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply { status: 206, headers: vec![kind, ("Content-Range", whole)], body: bytes[from..].to_vec() }
        }
    }
}
