//! `keel modules`.

use drpc_wire::{keel, methods};

use crate::cli::Cli;
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::{show, table};

pub(crate) fn run(cli: &Cli) -> Result<(), CliError> {
    let list: keel::ModulesList = Endpoint::connect(cli)?.keel(methods::MODULES_LIST, &())?;
    show(cli.output, &list, |list| {
        let row = |m: &keel::Module| {
            vec![
                m.id.to_string(),
                m.name.clone(),
                m.version.clone(),
                m.state.clone(),
                m.needs.join(","),
                m.provides.join(","),
                m.path.clone(),
            ]
        };
        let mut out = table(
            &[
                "ID", "NAME", "VERSION", "STATE", "NEEDS", "PROVIDES", "FILE",
            ],
            &list.modules.iter().map(row).collect::<Vec<_>>(),
        );
        for module in list.modules.iter().filter(|m| !m.error.is_empty()) {
            out.push_str(&format!("\n{}: {}\n", module.name, module.error));
        }
        out
    })
}
