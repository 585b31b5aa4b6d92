//! How a server ends, and how it refuses to begin.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ottla::protocol::messages::Metadata;
use ottla::protocol::messages::fetch::FetchRequest;
use ottla::protocol::messages::metadata::MetadataRequest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use running::{PATIENCE, Server, eventually, fetch_request, ottla, values_of};

/// Longest that a stop may take, whoever is connected.
const STOP: Duration = Duration::from_secs(2);

const CLIENTS: usize = 1_000;

/// Says that the next start has nothing to recover; Kafka's name.
const CLEAN_MARKER: &str = ".kafka_cleanshutdown";

fn waiting() -> FetchRequest {
    FetchRequest { max_wait_ms: 600_000, ..fetch_request("t", 0, 1) }
}

#[test]
fn a_thousand_clients_do_not_hold_up_a_stop() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    for flush in ["commit", "os"] {
        let mut server = Server::start(&["--topic", "t:1", "--flush", flush]);
        server.client().append("t", ["a"]);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            match number % 4 {
                0 => client.park(12, &waiting()),
                1 => drop(client.call::<Metadata>(13, &MetadataRequest::default())),
                2 => client.send_bytes(&[0, 0, 1]),
                _ => {}
            }
        }
        let asked = Instant::now();
        server.ask_to_stop();
        let status = server.wait();
        assert!(asked.elapsed() < STOP, "{:?}", asked.elapsed());
        assert_eq!(status.code(), Some(0));
        for client in clients.iter_mut().step_by(4) {
            assert_eq!(client.receive_fetch(12).error_code, 0);
        }
        assert!(server.data().join(CLEAN_MARKER).exists());
        server.restart();
        assert!(!server.data().join(CLEAN_MARKER).exists(), "a running server is not a clean one");
        assert_eq!(values_of(&server.client().read_all("t", 0)), ["a"]);
    }
}

#[test]
fn a_killed_server_leaves_no_clean_marker() {
    let mut server = Server::start(&[]);
    server.kill();
    assert!(!server.data().join(CLEAN_MARKER).exists());
}

#[test]
fn the_ready_file_is_there_while_the_server_answers() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let first = fs::read_to_string(server.ready_path()).unwrap();
    assert_eq!(first, format!("{}\n", server.address()));
    server.stop();
    assert!(!server.ready_path().exists());
    // What a killed one has left is written anew.
    server.restart_with(&["--listen", "127.0.0.1:0"]);
    server.kill();
    assert!(server.ready_path().exists());
    server.restart_with(&["--listen", "127.0.0.1:0"]);
    assert_eq!(fs::read_to_string(server.ready_path()).unwrap(), format!("{}\n", server.address()));
    assert_eq!(server.client().describe("t").partitions.len(), 1);
}

fn ephemeral_directories(home: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("ottla-ephemeral-")).collect()
}

#[test]
fn ephemeral_data_goes_with_the_server_or_with_the_next_one() {
    let mut server = Server::start(&["--ephemeral", "--topic", "t:1"]);
    server.client().append("t", ["a"]);
    assert_eq!(ephemeral_directories(server.home()).len(), 1);
    server.stop();
    assert!(ephemeral_directories(server.home()).is_empty());

    server.restart();
    server.client().append("t", ["b"]);
    server.kill();
    let left = ephemeral_directories(server.home());
    assert_eq!(left.len(), 1);
    server.restart();
    let now = ephemeral_directories(server.home());
    assert!(now.len() == 1 && now != left, "{now:?}");
    assert!(server.client().read_all("t", 0).is_empty());
    assert!(!server.data().exists());
}

/// Starts `ottla`, which must refuse with one line that holds `named`, and exit code 2.
fn refuses(home: &Path, arguments: &[&str], named: &str) {
    let said = refusal(ottla(home, arguments));
    assert!(said.contains(named), "{arguments:?}: {said:?} should name {named}");
}

/// The one line with which `ottla` refuses to start.
fn refusal(mut command: Command) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::yield_now();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
    assert!(said.lines().count() == 1 && said.starts_with("ottla: "), "{command:?}: {said:?}");
    said
}

#[test]
fn what_is_in_the_way_of_a_start_is_named_in_one_line() {
    let mut server = Server::start(&[]);
    let home = server.home().to_owned();
    let taken = server.address().to_owned();
    refuses(&home, &["--listen", &taken, "--data", "other"], &taken);
    refuses(&home, &["--http-listen", &taken, "--data", "other"], &taken);
    refuses(&home, &["--listen", "127.0.0.1:0", "--data", "data"], "data");
    fs::write(home.join("file"), "").unwrap();
    refuses(&home, &["--listen", "127.0.0.1:0", "--data", "file/data"], "file/data");
    refuses(&home, &["--listen", "127.0.0.1:0", "--data", "other", "--ready-file", "no/ready"], "no/ready");
    for (arguments, named) in [
        (&["--flush", "never"][..], "never"),
        (&["--listen", "9092"], "9092"),
        (&["--set", "num.partition=1"], "num.partitions"),
        (&["--topic", "t"], "name:partitions"),
        (&["--topic", "t:1:retention=1"], "retention"),
        (&["--config", "nowhere.toml"], "nowhere.toml"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--log", "ottla=loud"], "ottla=loud"),
    ] {
        refuses(&home, arguments, named);
    }
    // The one that runs is not disturbed by any of them.
    assert_eq!(server.client().call::<Metadata>(13, &MetadataRequest::default()).brokers.len(), 1);
    server.stop();
}

#[test]
fn a_directory_that_may_not_be_written_to_is_named() {
    let home = tempfile::tempdir().unwrap();
    let closed = home.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write anywhere but where nothing can be written.
    let data = match rustix::process::geteuid().is_root() {
        true => "/proc/ottla".to_owned(),
        false => closed.join("data").display().to_string(),
    };
    refuses(home.path(), &["--listen", "127.0.0.1:0", "--data", &data], &data);
}

#[test]
fn a_directory_is_free_again_when_its_server_is_gone() {
    let mut server = Server::start(&["--topic", "t:1"]);
    server.client().append("t", ["a"]);
    server.kill();
    server.restart();
    assert_eq!(values_of(&server.client().read_all("t", 0)), ["a"]);
}

#[test]
fn ctrl_c_stops_like_a_signal_to_terminate() {
    let mut server = Server::start(&[]);
    server.interrupt();
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.data().join(CLEAN_MARKER).exists());
    eventually("the port is free", || std::net::TcpListener::bind(server.address()).ok());
}

/// A full file system of its own, with `disk` for its root: mounted where only the command in `$@` sees it, which takes root or
/// a user namespace. What fills it lies where a directory that is otherwise empty may have something.
const ON_A_FULL_DISK: &str = r#"mount -t tmpfs -o size=64k tmpfs disk || exit 77
mkdir disk/lost+found && head -c 1048576 /dev/zero >disk/lost+found/filler 2>/dev/null
exec "$@""#;

/// A log directory on a file system of its own that nothing can be written to, and one that would have to be made there.
const ON_A_READ_ONLY_DISK: &str = r#"mount -t tmpfs -o size=64k tmpfs disk && mkdir disk/data disk/data/t-0 || exit 77
printf 'version=1\nnode.id=1\ncluster.id=4L6g3nShT-eMCtK--X86sw\ndirectory.id=bSjtkycyZ8PjMMYmNsvXAQ\n' >disk/data/meta.properties
mount -o remount,ro disk || exit 77
exec "$@""#;

/// The ways to a mount of one's own: by right of root, or as root of a user namespace.
const NAMESPACES: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];

/// Runs a command on a disk of its own; `None` where nothing may be mounted.
fn on_a_disk(home: &Path, mounting: &str, command: &[&str]) -> Option<Command> {
    let on_it = |namespace: &[&str], command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(namespace).args(["sh", "-c", mounting, "sh"]).args(command).current_dir(home);
        unshare
    };
    let may = |namespace: &&[&str]| {
        let tried = on_it(namespace, &["true"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(namespace) = NAMESPACES.into_iter().find(may) else {
        eprintln!(
            "SKIPPED: no disk of its own, since nothing may be mounted here, not even as root of a user namespace"
        );
        return None;
    };
    Some(on_it(namespace, command))
}

fn assert_named_on(mounting: &str, directories: &[&str], reason: &str) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("disk")).unwrap();
    for data in directories {
        let command = [env!("CARGO_BIN_EXE_ottla"), "--listen", "127.0.0.1:0", "--data", data];
        let Some(command) = on_a_disk(home.path(), mounting, &command) else { return };
        let said = refusal(command);
        assert!(said.contains(data) && said.contains(reason), "{said:?}");
    }
}

#[test]
fn a_full_disk_is_named() {
    assert_named_on(ON_A_FULL_DISK, &["disk", "disk/data"], "No space left on device");
}

#[test]
fn a_disk_that_cannot_be_written_to_is_named() {
    assert_named_on(ON_A_READ_ONLY_DISK, &["disk/data", "disk/new"], "Read-only file system");
}
