//! `keel metrics`.

use drpc_wire::{keel, methods};

use crate::cli::Cli;
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::show;

pub(crate) fn run(cli: &Cli) -> Result<(), CliError> {
    let metrics: keel::Metrics = Endpoint::connect(cli)?.keel(methods::METRICS, &())?;
    show(cli.output, &metrics, |metrics| metrics.text.clone())
}
