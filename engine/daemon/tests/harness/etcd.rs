//! A real etcd in a scratch directory, behind a wire that can be cut or stretched.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use engine_cert::{Authority, Pair, Request, Validity, write_pair};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::process::eventually;
use super::wire::{self, Wire};

/// etcd (Debian: package etcd-server). Dropped, it is killed.
pub struct EtcdServer {
    dir: TempDir,
    process: Option<Child>,
    client: SocketAddr,
    peer: SocketAddr,
    metrics: SocketAddr,
    front: SocketAddr,
    wire: Arc<Wire>,
    authority: Option<Authority>,
}

/// A port that is free now.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number")
}

impl EtcdServer {
    /// `Err`: why there is none on this machine.
    pub fn start() -> Result<EtcdServer, String> {
        EtcdServer::with(None)
    }

    /// The same, which wants a certificate of an authority of its own from everybody.
    pub fn start_with_tls() -> Result<EtcdServer, String> {
        let authority = Authority::create("etcd", Validity::days(100));
        EtcdServer::with(Some(authority.expect("an authority")))
    }

    fn with(authority: Option<Authority>) -> Result<EtcdServer, String> {
        let found = Command::new("etcd").arg("--version").output();
        if let Err(error) = found {
            return Err(format!(
                "etcd: {error} (install with: sudo apt-get install etcd-server)"
            ));
        }
        let wire = Arc::new(Wire::default());
        let (client, peer, metrics) = (free(), free(), free());
        let front = wire::lay(client, &wire);
        let mut etcd = EtcdServer {
            dir: TempDir::with_prefix("keel-etcd-").expect("a scratch directory"),
            process: None,
            client,
            peer,
            metrics,
            front,
            wire,
            authority,
        };
        if let Some(authority) = &etcd.authority {
            authority.save(etcd.dir.path()).expect("its certificate");
            etcd.issue("server", true);
        }
        etcd.run();
        Ok(etcd)
    }

    /// Where engines reach it.
    pub fn front(&self) -> String {
        format!("{}://{}", self.scheme(), self.front)
    }

    fn scheme(&self) -> &'static str {
        match self.authority {
            None => "http",
            Some(_) => "https",
        }
    }

    /// A certificate and its key, of its authority: for a server here, or for a client.
    pub fn issue(&self, name: &str, server: bool) -> Pair {
        let here = server.then(|| "127.0.0.1".to_owned());
        let asked = Request {
            name: name.to_owned(),
            addresses: here.into_iter().collect(),
            engine: server,
            validity: Validity::days(10),
        };
        let pair = Pair::of(self.dir.path(), name);
        let authority = self.authority.as_ref().expect("it has one");
        write_pair(
            &pair,
            &authority.issue(&asked).expect("a certificate"),
            true,
        )
        .expect("its files");
        pair
    }

    /// The certificate of its authority.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it, and waits until it answers.
    pub fn run(&mut self) {
        let client = format!("{}://{}", self.scheme(), self.client);
        let peer = format!("http://{}", self.peer);
        let log = std::fs::File::create(self.dir.path().join("log")).expect("its log");
        let mut command = Command::new("etcd");
        command
            .args(["--name", "one", "--unsafe-no-fsync", "--data-dir"])
            .arg(self.data())
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .args(["--listen-metrics-urls", &format!("http://{}", self.metrics)])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if self.authority.is_some() {
            let pair = Pair::of(self.dir.path(), "server");
            command
                .arg("--cert-file")
                .arg(pair.certificate)
                .arg("--key-file")
                .arg(pair.key)
                .args(["--client-cert-auth", "--trusted-ca-file"])
                .arg(self.ca());
        }
        self.process = Some(command.spawn().expect("etcd starts"));
        eventually("etcd answers", || {
            let answer = http(self.metrics, "/health", "")?;
            answer.contains("true").then_some(())
        });
    }

    /// Kill -9.
    pub fn stop(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("a signal");
        child.wait().expect("its end");
    }

    fn signal(&self, signal: Signal) {
        let child = self.process.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("a signal");
    }

    /// It answers nobody, and its connections stay.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Writes something: its revision grows by one, and is returned.
    pub fn write(&self) -> u64 {
        let put = r#"{"key":"eA==","value":"eA=="}"#;
        let answer = eventually("a write", || http(self.client, "/v3/kv/put", put));
        let (_, after) = answer.split_once("\"revision\":\"").expect("a revision");
        let revision: String = after.chars().take_while(char::is_ascii_digit).collect();
        revision.parse().expect("a number")
    }

    /// Writes something, and compacts everything that was before it away.
    pub fn compact(&self) {
        let revision = self.write();
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        eventually("a compaction", || {
            http(self.client, "/v3/kv/compaction", &body)
        });
    }

    /// Deletes a key.
    pub fn delete(&self, key: &str) {
        let body = format!(r#"{{"key":"{}"}}"#, base64(key));
        eventually("a deletion", || {
            http(self.client, "/v3/kv/deleterange", &body)
        });
    }

    /// A copy of its data while it does not run.
    pub fn backup(&self) -> PathBuf {
        let copy = self.dir.path().join("backup");
        copy_all(&self.data(), &copy).expect("a copy");
        copy
    }

    pub fn restore(&self, backup: &Path) {
        std::fs::remove_dir_all(self.data()).expect("its data go");
        copy_all(backup, &self.data()).expect("a copy");
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A question to etcd's gateway; `None`: no good answer.
fn http(to: SocketAddr, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(to).ok()?;
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).ok()?;
    let method = if body.is_empty() { "GET" } else { "POST" };
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// As etcd's gateway takes keys.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for nr in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * nr)) as usize & 63];
            out.push(if nr <= three.len() {
                digit as char
            } else {
                '='
            });
        }
    }
    out
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
