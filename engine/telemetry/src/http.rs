//! The metrics port: Prometheus text over HTTP, on a control thread of its own.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use tiny_http::{Header, Method, Request, Response, Server};

const CONTENT_TYPE: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8";

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Taken, not ours to take, or no such address.
    #[error(
        "metrics port {addr}: {why}; choose a free local address in [telemetry] or stop whoever holds it"
    )]
    Bind {
        /// What was asked for.
        addr: SocketAddr,
        /// What the system said.
        why: std::io::Error,
    },
    /// The server could not begin.
    #[error("metrics port {addr}: the HTTP server did not start: {why}")]
    Start {
        /// What was asked for.
        addr: SocketAddr,
        /// What the server said.
        why: String,
    },
}

/// Serves [`crate::render`] at `/metrics` until dropped. Meant for a local address: there is no authentication, and
/// the HTTP stack gives each open connection a thread.
#[derive(Debug)]
pub struct MetricsServer {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    wake: Waker,
    thread: Option<JoinHandle<()>>,
}

struct Waker(Arc<Server>);

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// Opens the port and begins to serve. Port 0 takes a free one; see [`MetricsServer::addr`].
pub fn serve_http(addr: SocketAddr) -> Result<MetricsServer, HttpError> {
    let listener = TcpListener::bind(addr).map_err(|why| HttpError::Bind { addr, why })?;
    let local = listener
        .local_addr()
        .map_err(|why| HttpError::Bind { addr, why })?;
    let start = |why: String| HttpError::Start { addr, why };
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let (sender, receiver) = std::sync::mpsc::channel();
    // The HTTP stack's threads inherit the name of the thread that starts them, so it starts in there.
    let thread = thread::Builder::new()
        .name("keel_metrics".to_owned())
        .spawn(move || match Server::from_listener(listener, None) {
            Ok(server) => {
                let server = Arc::new(server);
                let _ = sender.send(Ok(Arc::clone(&server)));
                drop(sender);
                serve(&server, &stopping);
            }
            Err(why) => {
                let _ = sender.send(Err(why.to_string()));
            }
        })
        .map_err(|why| start(why.to_string()))?;
    let server = receiver
        .recv()
        .map_err(|_| start("its thread ended".to_owned()))?
        .map_err(start)?;
    tracing::info!(addr = %local, "metrics port open");
    Ok(MetricsServer {
        addr: local,
        stop,
        wake: Waker(server),
        thread: Some(thread),
    })
}

impl MetricsServer {
    /// Where it really listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake.0.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(server: &Server, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Acquire) {
        match server.recv() {
            Ok(request) => answer(request),
            Err(why) if stopping.load(Ordering::Acquire) => {
                tracing::debug!(%why, "metrics port closes")
            }
            Err(why) => {
                tracing::error!(%why, "the metrics port failed and is closed; `keel metrics` still works");
                return;
            }
        }
    }
}

fn answer(request: Request) {
    let path = request
        .url()
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let (status, body) = match (request.method(), path.as_str()) {
        (Method::Get | Method::Head, "/metrics") => (200, crate::render()),
        (Method::Get | Method::Head, "/") => {
            (200, "Keel engine; the metrics are at /metrics\n".to_owned())
        }
        (Method::Get | Method::Head, _) => {
            (404, "not found; the metrics are at /metrics\n".to_owned())
        }
        _ => (405, "only GET\n".to_owned()),
    };
    let mut response = Response::from_string(body).with_status_code(status);
    if let Ok(header) = CONTENT_TYPE.parse::<Header>() {
        response.add_header(header);
    }
    if let Err(why) = request.respond(response) {
        tracing::debug!(%why, "a metrics reader went away");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream
            .write_all(
                format!("{request} HTTP/1.1\r\nHost: keel\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn metrics_are_served_and_the_rest_is_refused() {
        let server = serve_http("127.0.0.1:0".parse().unwrap()).unwrap();
        crate::counter("keel_test_http_total", &[]).increment(1);
        let text = ask(server.addr(), "GET /metrics?x=1");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("text/plain; version=0.0.4"), "{text}");
        assert!(text.contains("keel_test_http_total 1"), "{text}");
        assert!(ask(server.addr(), "GET /").starts_with("HTTP/1.1 200"));
        assert!(ask(server.addr(), "GET /other").starts_with("HTTP/1.1 404"));
        assert!(ask(server.addr(), "POST /metrics").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn a_taken_port_is_named_and_a_dropped_server_gives_it_back() {
        let server = serve_http("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = server.addr();
        let why = serve_http(addr).unwrap_err().to_string();
        assert!(
            why.contains(&addr.to_string()) && why.contains("choose a free local address"),
            "{why}"
        );
        drop(server);
    }
}
