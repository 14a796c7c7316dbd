//! What `keel bench rpc` measures, with tonic: gRPC over HTTP/2 over TCP, one connection, the same sizes, as many calls under way.
//!
//! `keel bench rpc --peer 'tonic_peer --seconds 3'`; with `--certificates DIR` over TLS, with the same certificates. Caller and
//! callee have a thread with a runtime of its own each, pinned to the cores that ours use. Windows and frames of HTTP/2 are as
//! large as the data wants them: the defaults would halve its bandwidth.
#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use tonic::codegen::{Body, Service, StdError};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const SMALL: usize = 64;
const PIECE: usize = 1 << 20;
const WINDOW: usize = 4;
const LIMIT: usize = 8 << 20;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    data: prost::bytes::Bytes,
}

/// Serves `/bench.Peer/Echo`, `/Push` and `/Pull`.
#[derive(Clone)]
struct Peer {
    piece: prost::bytes::Bytes,
}

impl NamedService for Peer {
    const NAME: &'static str = "bench.Peer";
}

#[derive(Clone)]
struct Method(String, Peer);

impl UnaryService<Message> for Method {
    type Response = Message;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Message>, Status>> + Send>>;

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        let data = match self.0.as_str() {
            "/bench.Peer/Echo" => request.into_inner().data,
            "/bench.Peer/Push" => prost::bytes::Bytes::new(),
            _ => self.1.piece.clone(),
        };
        Box::pin(async move { Ok(Response::new(Message { data })) })
    }
}

impl<B> Service<HttpRequest<B>> for Peer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = HttpResponse<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        let method = Method(request.uri().path().to_owned(), self.clone());
        Box::pin(async move {
            let codec = ProstCodec::<Message, Message>::default();
            let grpc = tonic::server::Grpc::new(codec);
            let mut grpc = grpc.apply_max_message_size_config(Some(LIMIT), Some(LIMIT));
            Ok(grpc.unary(method, request).await)
        })
    }
}

struct Files {
    ca: String,
    certificate: String,
    key: String,
}

fn files(directory: PathBuf) -> Result<Files, Failure> {
    let read = |name: &str| std::fs::read_to_string(directory.join(name));
    Ok(Files {
        ca: read("ca.pem")?,
        certificate: read("bench.pem")?,
        key: read("bench-key.pem")?,
    })
}

fn main() -> Result<(), Failure> {
    let (mut seconds, mut tls) = (3.0, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or("an option without its value")?;
        match name.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--certificates" => tls = Some(files(value.into())?),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    let cpus = spdk_env::cpu::allowed()?;
    let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let addr = socket.local_addr()?;
    let mut server = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(32 << 20)
        .max_frame_size(1 << 20);
    if let Some(files) = &tls {
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&files.certificate, &files.key))
            .client_ca_root(Certificate::from_pem(&files.ca));
        server = server.tls_config(config)?;
    }
    let (cpu, piece) = (cpus[1 % cpus.len()], vec![7; PIECE].into());
    std::thread::spawn(move || -> Result<(), Failure> {
        spdk_env::cpu::pin_current_thread(cpu)?;
        runtime()?.block_on(async move {
            let incoming = tonic::transport::server::TcpIncoming::from(
                tokio::net::TcpListener::from_std(socket)?,
            );
            let incoming = incoming.with_nodelay(Some(true));
            let served = server.serve_with_incoming(Peer { piece }, incoming);
            Ok(served.await?)
        })
    });
    spdk_env::cpu::pin_current_thread(cpus[0])?;
    runtime()?.block_on(async move {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(32 << 20);
        if let Some(files) = &tls {
            let config = ClientTlsConfig::new()
                .identity(Identity::from_pem(&files.certificate, &files.key))
                .ca_certificate(Certificate::from_pem(&files.ca))
                .domain_name("127.0.0.1");
            endpoint = endpoint.tls_config(config)?;
        }
        measure(endpoint.connect().await?, Duration::from_secs_f64(seconds)).await
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

async fn call(
    channel: Channel,
    path: &'static str,
    data: prost::bytes::Bytes,
) -> Result<usize, Failure> {
    let client = tonic::client::Grpc::new(channel);
    let mut client = client
        .max_decoding_message_size(LIMIT)
        .max_encoding_message_size(LIMIT);
    client.ready().await?;
    let codec = ProstCodec::<Message, Message>::default();
    let path = PathAndQuery::from_static(path);
    let answer = client
        .unary(Request::new(Message { data }), path, codec)
        .await?;
    Ok(answer.into_inner().data.len())
}

async fn measure(channel: Channel, time: Duration) -> Result<(), Failure> {
    let (start, mut taken) = (Instant::now(), Vec::new());
    let small: prost::bytes::Bytes = vec![7; SMALL].into();
    while start.elapsed() < time {
        let begun = Instant::now();
        let got = call(channel.clone(), "/bench.Peer/Echo", small.clone()).await?;
        taken.push(begun.elapsed());
        assert_eq!(got, SMALL);
    }
    taken.sort_unstable();
    let at = |share: f64| taken[(taken.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("echo_p50_us {:.2}\necho_p99_us {:.2}", at(0.5), at(0.99));
    let piece: prost::bytes::Bytes = vec![7; PIECE].into();
    for (name, path, data) in [
        ("push_mib_per_s", "/bench.Peer/Push", piece),
        (
            "pull_mib_per_s",
            "/bench.Peer/Pull",
            prost::bytes::Bytes::new(),
        ),
    ] {
        let (start, mut pieces) = (Instant::now(), 0u32);
        let mut under_way = tokio::task::JoinSet::new();
        for _ in 0..WINDOW {
            under_way.spawn(call(channel.clone(), path, data.clone()));
        }
        while let Some(done) = under_way.join_next().await {
            done??;
            pieces += 1;
            if start.elapsed() < time {
                under_way.spawn(call(channel.clone(), path, data.clone()));
            }
        }
        let rate =
            f64::from(pieces) * PIECE as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64();
        println!("{name} {rate:.1}");
    }
    Ok(())
}
