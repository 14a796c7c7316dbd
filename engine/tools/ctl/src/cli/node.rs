//! `keel node`: the host under the engines.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use engine_node::Address;

#[derive(Subcommand)]
pub(crate) enum Node {
    /// Looks for everything that keeps an engine from its SSDs, and changes nothing. Exit code: 0 fine, 1 warnings, 2 faults.
    #[command(
        after_help = "Examples:\n  keel node doctor --config /etc/keel/engine.toml --user keel\n  keel node doctor 0000:05:00.0\n  keel node doctor -o json | jq '.findings[].code'\n\nCodes: docs/operating/doctor.md"
    )]
    Doctor {
        #[command(flatten)]
        which: Which,
        /// The user that the engine runs as; left out: who asks.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Sets huge pages aside and lends SSDs to engines, now and at each boot. What is mounted or otherwise in use is refused.
    #[command(
        after_help = "Examples:\n  keel node prepare --config /etc/keel/engine.toml --user keel\n  keel node prepare 0000:05:00.0 0000:06:00.0\n  keel node prepare --config engine.toml --dry-run      the commands that it would run\n\n`keel node release` undoes it. Run twice it does what is left to do."
    )]
    Prepare(Prepare),
    /// Which driver has which SSD, who uses it, and how many huge pages are free.
    Status {
        /// Says also which of the file's devices and targets are on which SSD.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Override a key of the file, as keel-engine does; may be given several times.
        #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
        sets: Vec<String>,
    },
    /// Undoes what `keel node prepare` did: the SSDs go back to the driver that had them.
    Release {
        /// PCI addresses; left out: all, with huge pages and the boot unit.
        #[arg(value_name = "ADDRESS")]
        devices: Vec<Address>,
        /// Print the commands, run none.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which SSDs.
#[derive(Args)]
pub(crate) struct Which {
    /// PCI addresses of SSDs, such as 0000:05:00.0.
    #[arg(value_name = "ADDRESS", conflicts_with = "config")]
    pub(crate) devices: Vec<Address>,
    /// The SSDs and the memory of this configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Override a key of the file, as keel-engine does; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    pub(crate) sets: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Prepare {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The user that the engine runs as gets the devices.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Without an IOMMU, through uio_pci_generic: a defect can then overwrite any memory of this machine.
    #[arg(long)]
    pub(crate) uio: bool,
    /// Only until the next boot.
    #[arg(long)]
    pub(crate) once: bool,
    /// Once more what was asked for before: what the boot unit runs.
    #[arg(long, conflicts_with_all = ["devices", "config", "user", "uio", "once"])]
    pub(crate) saved: bool,
    /// Print the commands, run none.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
