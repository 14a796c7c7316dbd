//! The socket file: scenarios of DAOS `drpc_listener_tests.c` and of the Go server's start, and who is never deleted.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use daos_errno::Der;
use drpc_wire::packet_socket::{address, socket};
use engine_drpc::{BindError, DrpcServer, DrpcSocket, Options, Registry, engine_socket_path};
use rustix::net::SocketFlags;

fn bind(path: &Path) -> Result<DrpcServer, BindError> {
    DrpcServer::bind(path, Registry::new(), Options::default())
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch directory")
}

#[test]
fn path_is_daos_engine_pid_sock_in_the_socket_directory() {
    let path = engine_socket_path(Path::new("/var/run/daos_server"), 4711);
    assert_eq!(
        path,
        Path::new("/var/run/daos_server/daos_engine_4711.sock")
    );
}

#[test]
fn no_path_or_no_permissions_are_missing_arguments() {
    assert!(matches!(bind(Path::new("")), Err(BindError::Missing(_))));
    let dir = scratch();
    let error = DrpcSocket::bind(&dir.path().join("a.sock"), 0).expect_err("must be refused");
    assert!(error.to_string().contains("missing argument"));
    assert_eq!(error.der(), Der::INVAL);
}

#[test]
fn a_stale_socket_is_removed() {
    let dir = scratch();
    let path = dir.path().join("engine.sock");
    let dead = socket(SocketFlags::empty()).expect("a socket");
    rustix::net::bind(&dead, &address(&path).expect("short")).expect("binds");
    drop(dead);
    assert!(drpc_wire::Client::connect(&path).is_err());
    let _server = bind(&path).expect("takes the stale one's place");
    assert!(drpc_wire::Client::connect(&path).is_ok());
}

#[test]
fn a_live_socket_is_refused_naming_path_and_process_and_goes_on_living() {
    let dir = scratch();
    let path = dir.path().join("engine.sock");
    let mut first = bind(&path).expect("free");
    let error = bind(&path).expect_err("must be refused");
    assert_eq!(
        error,
        BindError::InUse {
            path: path.clone(),
            pid: Some(std::process::id() as i32),
        }
    );
    let text = error.to_string();
    assert!(text.contains(path.to_str().expect("is UTF-8")), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())));
    assert_eq!(error.der(), Der::BUSY);
    assert!(path.exists());
    while first.progress(0) != Err(Der::TIMEDOUT) {}
    assert!(drpc_wire::Client::connect(&path).is_ok());
}

#[test]
fn a_live_socket_of_another_type_is_refused() {
    let dir = scratch();
    let path = dir.path().join("engine.sock");
    let _stream = UnixListener::bind(&path).expect("free");
    assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
    assert!(path.exists());
}

#[test]
fn what_is_no_socket_is_never_deleted() {
    let dir = scratch();
    let file = dir.path().join("data");
    fs::write(&file, "precious").expect("writes");
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).expect("makes");
    let link = dir.path().join("link");
    symlink(&file, &link).expect("links");
    for (path, kind) in [
        (&file, "a file"),
        (&folder, "a directory"),
        (&link, "a symbolic link"),
    ] {
        let error = bind(path).expect_err("must be refused");
        assert_eq!(
            error,
            BindError::Foreign {
                path: path.clone(),
                kind
            }
        );
        assert_eq!(error.der(), Der::EXIST);
    }
    assert_eq!(fs::read_to_string(&link).expect("stays"), "precious");
    assert!(folder.is_dir());
}

#[test]
fn a_missing_directory_is_named() {
    let dir = scratch();
    let error = bind(&dir.path().join("no/engine.sock")).expect_err("must be refused");
    assert_eq!(error.der(), Der::NONEXIST);
    let text = error.to_string();
    assert!(
        text.contains("socket directory") && text.contains("/no"),
        "{text}"
    );
}

#[test]
fn a_path_over_107_bytes_is_refused_not_cut() {
    let dir = scratch();
    let long = dir.path().join("x".repeat(110));
    let error = bind(&long).expect_err("must be refused");
    assert_eq!(error.der(), Der::EXCEEDS_PATH_LEN);
    assert!(error.to_string().contains("107"));
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 0);
}

#[test]
fn the_file_goes_with_the_server_unless_another_stands_there() {
    let dir = scratch();
    let path = dir.path().join("engine.sock");
    drop(bind(&path).expect("free"));
    assert!(!path.exists());
    let server = bind(&path).expect("free");
    fs::remove_file(&path).expect("removes");
    fs::write(&path, "somebody else's").expect("writes");
    drop(server);
    assert_eq!(fs::read_to_string(&path).expect("stays"), "somebody else's");
}

#[test]
fn starters_at_the_same_time_leave_exactly_one_listening() {
    let dir = scratch();
    let path = dir.path().join("engine.sock");
    for _ in 0..20 {
        // A stale file, which all of them want to remove.
        let dead = socket(SocketFlags::empty()).expect("a socket");
        rustix::net::bind(&dead, &address(&path).expect("short")).expect("binds");
        drop(dead);
        let results: Vec<_> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| DrpcSocket::bind(&path, 0o600)))
                .collect();
            let results = starters.into_iter().map(|s| s.join().expect("no panic"));
            results.collect()
        });
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        assert!(drpc_wire::Client::connect(&path).is_ok());
        drop(results);
        assert!(!path.exists());
    }
}
