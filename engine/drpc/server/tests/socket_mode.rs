//! Permissions of the socket file. Alone in its process: the umask belongs to all threads.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use engine_drpc::{DrpcSocket, Options};

#[test]
fn the_socket_has_the_requested_permissions_whatever_the_umask() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    for mode in [0o600, 0o666, 0o660] {
        let path = dir.path().join(format!("{mode:o}.sock"));
        let opened = DrpcSocket::bind(&path, mode).expect("binds");
        let found = fs::symlink_metadata(&path).expect("is there");
        assert!(found.file_type().is_socket());
        assert_eq!(found.mode() & 0o7777, mode);
        assert_eq!(opened.path(), path);
    }
    rustix::process::umask(before);
    assert_eq!(Options::default().mode, 0o600);
}
