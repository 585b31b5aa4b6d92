//! The real binary as a child process, and a client that speaks the project's own protocol layer to it over a plain
//! socket. A server is killed when dropped, and a test fails whose server has panicked.
#![allow(dead_code, unused_imports, reason = "every test program uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
pub mod stock;

use std::fs::{self, File};
use std::iter;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use client::{
    Client, fetch_request, frame, named, now_ms, numbered, produce_request, records_of, values_of,
};

/// Longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the ports of servers are looked for.
const PORTS: Range<u16> = 10_000..32_768;

/// How long a condition rests between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks at a condition until it gives something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// A port that a server can come back to: given once by this process, and below those (32,768 and up) that connections
/// get for their own ends, so that none sits on it while the server is away.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at once begin at different places.
    let from = (process::id() as u16).wrapping_mul(97);
    let next = || PORTS.start + from.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16;
    iter::repeat_with(next).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// `ottla` with these arguments, its temporary directories under `home`.
pub fn ottla(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.args(arguments).env("TMPDIR", home).current_dir(home);
    command
}

/// The directory of a server: gone with it, or somebody else's.
enum Home {
    Own(TempDir),
    Other(PathBuf),
}

/// A server on a directory of its own, on a free port unless its arguments say otherwise.
pub struct Server {
    home: Home,
    /// What its command line begins with.
    through: Vec<String>,
    arguments: Vec<String>,
    child: Option<Child>,
    addresses: Vec<String>,
}

impl Server {
    /// Starts one with these arguments beside its directory, and returns when it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same in a directory made before: its data goes to `data`, what it logs to `log`.
    pub fn start_in(home: TempDir, arguments: &[&str]) -> Self {
        Self::start_through(home, Vec::new(), arguments)
    }

    /// The same by a command that runs what follows it, from the directory that it is in.
    pub fn start_through(home: TempDir, through: Vec<String>, arguments: &[&str]) -> Self {
        Self::launched(Home::Own(home), through, arguments)
    }

    /// The same in a directory of somebody else.
    pub fn start_in_folder(home: &Path, arguments: &[&str]) -> Self {
        Self::launched(Home::Other(home.to_owned()), Vec::new(), arguments)
    }

    fn launched(home: Home, through: Vec<String>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { home, through, arguments, child: None, addresses: Vec::new() };
        server.launch();
        server
    }

    fn launch(&mut self) {
        let given = |flag: &str| self.arguments.iter().any(|argument| argument == flag);
        // A server that comes back is where its clients look for it.
        let listen = self.addresses.first().cloned().unwrap_or_else(|| format!("127.0.0.1:{}", free_port()));
        let listen = if given("--listen") { vec![] } else { vec!["--listen", &listen] };
        let data = if given("--ephemeral") || given("--data") { vec![] } else { vec!["--data", "data"] };
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let _ = fs::remove_file(self.ready_path());
        let mut command = match &self.through[..] {
            [] => ottla(self.home(), &["--ready-file", "ready"]),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(env!("CARGO_BIN_EXE_ottla")).args(["--ready-file", "ready"]);
                command.env("TMPDIR", self.home()).current_dir(self.home());
                command
            }
        };
        command.args(listen).args(data).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self.addresses = eventually("the server is ready", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(ended, None, "{}", self.log());
            let ready = fs::read_to_string(self.ready_path()).ok()?;
            Some(ready.lines().map(str::to_owned).collect())
        });
    }

    /// Where clients find it: the first listener.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// Every line of the ready file.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn home(&self) -> &Path {
        match &self.home {
            Home::Own(home) => home.path(),
            Home::Other(home) => home,
        }
    }

    pub fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    pub fn ready_path(&self) -> PathBuf {
        self.home().join("ready")
    }

    fn log_path(&self) -> PathBuf {
        self.home().join("log")
    }

    /// All that it has written to stderr so far, over restarts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap()
    }

    /// Waits for a line of its log with this text in it.
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log:\n{}", self.log()), || {
            self.log().contains(text).then_some(())
        });
    }

    /// Kills it at once, by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again in the same directory, at the same address.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Starts it again with other arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart();
    }

    /// Asks it to stop, by SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// What Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(id as i32).unwrap(), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let status = eventually("the server ends", || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) {
        self.ask_to_stop();
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// Files that it has open, of any kind but sockets.
    #[cfg(target_os = "linux")]
    pub fn open_files(&self) -> usize {
        let descriptors = format!("/proc/{}/fd", self.child.as_ref().unwrap().id());
        let opened =
            fs::read_dir(descriptors).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        opened.filter(|path| path.is_absolute()).count()
    }

    /// A number of `/proc/PID/status`, in bytes: `VmRSS` now, `VmHWM` at its most.
    #[cfg(target_os = "linux")]
    pub fn memory_bytes(&self, field: &str) -> usize {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        if thread::panicking() {
            eprintln!("the server's log:\n{log}");
        } else {
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}
