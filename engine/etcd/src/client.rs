//! etcd's API, as far as it is used. Each question has a time limit.

use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{IntoRequest, Streaming};
use tonic_prost::ProstCodec;

use crate::options::{Options, Tls};
use crate::proto::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};

/// For a connection to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// Of an answer: a list of all that stands there for [`RANKS`](crate::board::RANKS) engines has a quarter of it.
const LONGEST: usize = 16 << 20;

/// Why etcd did not answer.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error("{0}")]
    Configured(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("{0}")]
    Status(String),
    #[error("{0}")]
    Other(String),
}

/// etcd's words for a lease that it does not know (`ErrGRPCLeaseNotFound`).
const NO_LEASE: &str = "requested lease not found";

impl Tls {
    fn read(&self) -> Result<ClientTlsConfig, String> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.ca)?));
        Ok(match &self.identity {
            None => config,
            Some((certificate, key)) => {
                config.identity(Identity::from_pem(read(certificate)?, read(key)?))
            }
        })
    }
}

fn endpoint(
    text: &str,
    limit: Duration,
    tls: Option<&ClientTlsConfig>,
) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(text.to_owned())
        .map_err(|error| chain(&error))?
        // A peer that is gone without a word is found by the questions' limits; watches have none.
        .http2_keep_alive_interval(limit)
        .keep_alive_timeout(limit)
        .keep_alive_while_idle(true);
    match tls.filter(|_| text.starts_with("https://")) {
        None => Ok(endpoint),
        Some(tls) => endpoint
            .tls_config(tls.clone())
            .map_err(|error| chain(&error)),
    }
}

/// All that stands behind an error, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    with_sources(error.to_string(), error.source())
}

fn with_sources(
    mut text: String,
    mut source: Option<&(dyn std::error::Error + 'static)>,
) -> String {
    while let Some(error) = source {
        let more = error.to_string();
        // Some say what their source says.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// A connection to a member of etcd.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    limit: Duration,
}

impl Client {
    /// Connects to the first endpoint that answers, beginning with the one of this number.
    pub(crate) async fn connect(options: &Options, first: usize) -> Result<Client, ClientError> {
        let limit = options.patience();
        let endpoints = Client::endpoints(options)?;
        let mut failures = vec![String::new(); endpoints.len()];
        for nr in (0..endpoints.len()).map(|nr| (first + nr) % endpoints.len()) {
            let connected = timeout(CONNECT.min(limit), endpoints[nr].connect()).await;
            let why = match connected {
                Ok(Ok(channel)) => return Ok(Client { channel, limit }),
                Ok(Err(error)) => chain(&error),
                Err(_) => "no connection in time".to_owned(),
            };
            failures[nr] = format!("{}: {why}", options.endpoints[nr]);
        }
        // In the order of the configuration, so that the same trouble is told in the same words.
        Err(ClientError::Unreachable(failures.join("; ")))
    }

    /// Everything that connecting needs; reads the certificates, which may have been renewed.
    pub(crate) fn endpoints(options: &Options) -> Result<Vec<Endpoint>, ClientError> {
        let tls = options.tls.as_ref().map(Tls::read).transpose();
        let tls = tls.map_err(ClientError::Configured)?;
        let endpoint = |text: &String| {
            let made = endpoint(text, options.patience(), tls.as_ref());
            made.map_err(|why| ClientError::Configured(format!("etcd's endpoint {text}: {why}")))
        };
        let endpoints: Vec<Endpoint> = options
            .endpoints
            .iter()
            .map(endpoint)
            .collect::<Result<_, _>>()?;
        match endpoints.is_empty() {
            true => Err(ClientError::Configured(
                "no endpoint of etcd is configured".to_owned(),
            )),
            false => Ok(endpoints),
        }
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(LONGEST)
    }

    async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, ClientError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc();
        let work = async {
            grpc.ready()
                .await
                .map_err(|error| ClientError::Status(chain(&error)))?;
            let answer = grpc.unary(
                question.into_request(),
                PathAndQuery::from_static(path),
                ProstCodec::<Q, A>::default(),
            );
            answer
                .await
                .map(tonic::Response::into_inner)
                .map_err(status)
        };
        let done = timeout(self.limit, work).await;
        done.map_err(|_| ClientError::TimedOut(self.limit))?
    }

    /// All keys from `first` up to one before `behind`, as they are now.
    pub(crate) async fn list(
        &self,
        (key, range_end): (Vec<u8>, Vec<u8>),
    ) -> Result<RangeResponse, ClientError> {
        self.ask("/etcdserverpb.KV/Range", RangeRequest { key, range_end })
            .await
    }

    pub(crate) async fn transact(&self, txn: TxnRequest) -> Result<TxnResponse, ClientError> {
        self.ask("/etcdserverpb.KV/Txn", txn).await
    }

    /// A lease of this length; its id.
    pub(crate) async fn grant(&self, lease: Duration) -> Result<i64, ClientError> {
        let question = LeaseGrantRequest {
            ttl: i64::try_from(lease.as_secs()).unwrap_or(i64::MAX),
            id: 0,
        };
        let answer: LeaseGrantResponse =
            self.ask("/etcdserverpb.Lease/LeaseGrant", question).await?;
        match answer.error.as_str() {
            "" => Ok(answer.id),
            error => Err(ClientError::Other(error.to_owned())),
        }
    }

    /// Ends a lease, and its keys with it. One that is over already is no error.
    pub(crate) async fn revoke(&self, id: i64) -> Result<(), ClientError> {
        let question = LeaseRevokeRequest { id };
        let answer: Result<LeaseRevokeResponse, _> =
            self.ask("/etcdserverpb.Lease/LeaseRevoke", question).await;
        match answer {
            Err(ClientError::Status(why)) if why.contains(NO_LEASE) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Renews a lease; false: it is over.
    pub(crate) async fn renew(&self, id: i64) -> Result<bool, ClientError> {
        let mut grpc = self.grpc();
        let question = tokio_stream::once(LeaseKeepAliveRequest { id });
        let work = async {
            grpc.ready()
                .await
                .map_err(|error| ClientError::Status(chain(&error)))?;
            let answers = grpc.streaming(
                tonic::Request::new(question),
                PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive"),
                ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default(),
            );
            let mut answers = answers.await.map_err(status)?.into_inner();
            let answer = answers.message().await.map_err(status)?;
            Ok(answer.is_some_and(|answer| answer.ttl > 0))
        };
        let done = timeout(self.limit, work).await;
        done.map_err(|_| ClientError::TimedOut(self.limit))?
    }

    /// Everything that happens to these keys from `start_revision` on.
    pub(crate) async fn watch(
        &self,
        (key, range_end): (Vec<u8>, Vec<u8>),
        start_revision: i64,
    ) -> Result<Watch, ClientError> {
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision,
        };
        let question = WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        };
        // The sending half stays open for as long as the watch is wanted.
        let (hold, questions) = mpsc::channel(1);
        hold.try_send(question)
            .map_err(|error| ClientError::Other(error.to_string()))?;
        let mut grpc = self.grpc();
        let work = async {
            grpc.ready()
                .await
                .map_err(|error| ClientError::Status(chain(&error)))?;
            let answers = grpc.streaming(
                tonic::Request::new(ReceiverStream::new(questions)),
                PathAndQuery::from_static("/etcdserverpb.Watch/Watch"),
                ProstCodec::<WatchRequest, WatchResponse>::default(),
            );
            answers
                .await
                .map(tonic::Response::into_inner)
                .map_err(status)
        };
        let done = timeout(self.limit, work).await;
        let answers = done.map_err(|_| ClientError::TimedOut(self.limit))??;
        Ok(Watch {
            answers,
            _hold: hold,
        })
    }
}

fn status(status: tonic::Status) -> ClientError {
    let text = match status.message() {
        "" => status.code().to_string(),
        // With TLS 1.3 a client hears so late that its certificate is refused that the connection is there already.
        "operation was canceled" => {
            "etcd ended the connection (its log says whether it refuses our certificate)".to_owned()
        }
        message => message.to_owned(),
    };
    ClientError::Status(with_sources(text, std::error::Error::source(&status)))
}

/// What happens.
pub(crate) struct Watch {
    answers: Streaming<WatchResponse>,
    _hold: mpsc::Sender<WatchRequest>,
}

impl Watch {
    /// The next answer; may be dropped and asked again.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, ClientError> {
        let answer = self.answers.message().await.map_err(status)?;
        answer.ok_or_else(|| ClientError::Other("etcd ended the watch".to_owned()))
    }
}
