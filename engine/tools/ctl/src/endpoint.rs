//! Finding the engine and calling it.

use std::path::PathBuf;
use std::time::Duration;

use daos_errno::Der;
use drpc_wire::discovery::local_engines;
use drpc_wire::{
    Client, ClientError, ClientOptions, Message, Response, Status, keel, methods, modules,
};

use crate::cli::Cli;
use crate::error::{CliError, Exit};

/// An engine that can be called.
pub(crate) struct Endpoint {
    client: Client,
    pub(crate) timeout: Duration,
}

impl Endpoint {
    /// Connects to `--socket`, or to the only engine of this machine.
    pub(crate) fn connect(cli: &Cli) -> Result<Endpoint, CliError> {
        let socket = match &cli.socket {
            Some(socket) => socket.clone(),
            None => only_engine()?,
        };
        let timeout = Duration::from_secs(cli.timeout);
        let options = ClientOptions {
            timeout: Some(timeout),
            ..ClientOptions::default()
        };
        let client = Client::connect_with(&socket, options).map_err(unreachable_engine)?;
        Ok(Endpoint { client, timeout })
    }

    /// One raw call.
    pub(crate) fn call(
        &mut self,
        module: i32,
        method: i32,
        body: &[u8],
    ) -> Result<Response, CliError> {
        self.client
            .call(module, method, body)
            .map_err(unreachable_engine)
    }

    /// One of Keel's own methods, its answer decoded.
    pub(crate) fn keel<T: Message + Default>(
        &mut self,
        method: i32,
        request: &impl Message,
    ) -> Result<T, CliError> {
        let response = self.call(modules::KEEL, method, &request.encode_to_vec())?;
        match response.status() {
            Status::Success => T::decode(response.body.as_slice()).map_err(|e| {
                CliError::new(
                    Exit::Software,
                    format!("the engine's answer cannot be decoded: {e}"),
                )
                .cure("use the `keel` that came with the engine")
            }),
            Status::UnknownModule => Err(CliError::new(
                Exit::Unavailable,
                "the engine runs without its management module",
            )
            .cure("add \"mgmt\" to modules.load and restart the engine")),
            Status::UnknownMethod => Err(CliError::new(
                Exit::Software,
                "the engine does not know this command",
            )
            .cure("use the `keel` that came with the engine")),
            status => Err(CliError::new(
                Exit::Failed,
                format!("the engine answered {}", status.as_str_name()),
            )),
        }
    }

    /// A method of Keel's whose answer is only an acknowledgement.
    pub(crate) fn keel_ack(&mut self, method: i32, request: &impl Message) -> Result<(), CliError> {
        let ack: keel::Ack = self.keel(method, request)?;
        Der::check(ack.status).map_err(|der| {
            CliError::der(
                der,
                if ack.error.is_empty() {
                    der.to_string()
                } else {
                    ack.error.clone()
                },
            )
        })
    }

    /// The engine's status.
    pub(crate) fn status(&mut self) -> Result<keel::EngineStatus, CliError> {
        self.keel(methods::ENGINE_STATUS, &())
    }
}

fn only_engine() -> Result<PathBuf, CliError> {
    let engines = local_engines();
    match engines.as_slice() {
        [engine] => Ok(engine.socket.clone()),
        [] => Err(CliError::new(Exit::Unavailable, "no engine runs on this machine")
            .cure("start one (`keel-engine --config FILE`, or `cargo xtask run` in a checkout), or name its socket with --socket")),
        several => {
            let list: Vec<String> = several.iter().map(|e| format!("  --socket {}  (pid {})", e.socket.display(), e.pid)).collect();
            Err(CliError::new(Exit::Unavailable, format!("{} engines run on this machine", several.len())).cure(format!("choose one:\n{}", list.join("\n"))))
        }
    }
}

fn unreachable_engine(error: ClientError) -> CliError {
    let exit = match &error {
        ClientError::TimedOut { .. } => Exit::TempFail,
        ClientError::Connect { errno, .. } if *errno == rustix::io::Errno::ACCESS => Exit::NoPerm,
        _ => Exit::Unavailable,
    };
    let cure = match exit {
        Exit::TempFail => {
            "the engine is busy or stuck: try again with a longer --timeout, and look at `keel tasks`"
        }
        Exit::NoPerm => "only root and the engine's own user may connect: run this as one of them",
        _ => "check that the engine runs and that --socket is its socket",
    };
    CliError::new(exit, error.to_string()).cure(cure)
}
