//! `keel log set-mask`.

use daos_errno::Der;
use drpc_wire::{keel, methods};

use crate::cli::{Cli, Log};
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::show;

pub(crate) fn run(cli: &Cli, command: &Log) -> Result<(), CliError> {
    let Log::SetMask { mask } = command;
    let request = keel::LogSetMaskReq { mask: mask.clone() };
    let answer: keel::LogSetMaskResp =
        Endpoint::connect(cli)?.keel(methods::LOG_SET_MASK, &request)?;
    Der::check(answer.status).map_err(|der| {
        CliError::der(der, answer.error.clone())
            .cure("e.g. `keel log set-mask INFO,engine_rpc=DEBUG`; the mask in force is unchanged")
    })?;
    show(cli.output, &answer, |answer| {
        format!("log mask is now {}", answer.mask)
    })
}
