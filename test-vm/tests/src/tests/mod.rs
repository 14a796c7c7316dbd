//! The tests.

mod cluster;
mod ends;
mod faults;
mod install;
mod kernel_driver;
mod machines;
mod node;
mod shapes;
mod spdk_driver;
mod user_driver;

use anyhow::Result;

use crate::rig::Rig;

/// One test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) profile: &'static str,
    pub(crate) boot: Boot,
    /// An error or a panic is a failure.
    pub(crate) run: fn(&mut Rig) -> Result<()>,
}

/// Whose machine a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Boot {
    /// One that others use, too: the test leaves it as it found it.
    Shared,
    /// Its own.
    Own,
}

pub(crate) const ALL: &[Test] = &[
    Test {
        name: "agent_runs_and_moves",
        about: "commands, exit codes, signals, users, files of any size",
        profile: "one_nvme",
        boot: Boot::Shared,
        run: machines::agent_runs_and_moves,
    },
    Test {
        name: "machine_one_nvme",
        about: "an SSD behind an IOMMU, huge pages, the host's network",
        profile: "one_nvme",
        boot: Boot::Shared,
        run: machines::one_nvme,
    },
    Test {
        name: "machine_hot_plug",
        about: "the kernel loses an SSD and gets it back with its data",
        profile: "one_nvme",
        boot: Boot::Own,
        run: machines::hot_plug,
    },
    Test {
        name: "machine_four_nvme",
        about: "namespaces, block sizes, queue limits as the profile says",
        profile: "four_nvme",
        boot: Boot::Shared,
        run: machines::four_nvme,
    },
    Test {
        name: "machine_power_cut",
        about: "what was flushed survives QEMU's death; what was not may not",
        profile: "volatile_cache",
        boot: Boot::Own,
        run: machines::power_cut,
    },
    Test {
        name: "machine_no_iommu",
        about: "no IOMMU group, uio can be had",
        profile: "no_iommu",
        boot: Boot::Shared,
        run: machines::no_iommu,
    },
    Test {
        name: "machine_numa",
        about: "two nodes with a processor and huge pages each",
        profile: "numa",
        boot: Boot::Shared,
        run: machines::numa,
    },
    Test {
        name: "machine_pair",
        about: "two VMs reach each other",
        profile: "pair",
        boot: Boot::Own,
        run: machines::pair,
    },
    Test {
        name: "kernel_driver_killed",
        about: "kill -9 under load over the kernel's driver: nothing acknowledged is lost",
        profile: "two_nvme",
        boot: Boot::Own,
        run: kernel_driver::killed,
    },
    Test {
        name: "kernel_driver_power_cut",
        about: "power cuts under load over the kernel's driver: nothing acknowledged is lost",
        profile: "power_cut",
        boot: Boot::Own,
        run: kernel_driver::power_cut,
    },
    Test {
        name: "user_driver_both",
        about: "what our driver writes the kernel's reads, and the other way round",
        profile: "two_nvme",
        boot: Boot::Own,
        run: user_driver::both_drivers,
    },
    Test {
        name: "user_driver_killed",
        about: "kill -9 under load over our driver: nothing acknowledged is lost",
        profile: "two_nvme",
        boot: Boot::Own,
        run: user_driver::killed,
    },
    Test {
        name: "user_driver_power_cut",
        about: "power cuts under load over our driver: nothing acknowledged is lost",
        profile: "power_cut",
        boot: Boot::Own,
        run: user_driver::power_cut,
    },
    Test {
        name: "user_driver_reset",
        about: "a controller forgets everything under load: it is reset and nobody sees an error",
        profile: "two_nvme",
        boot: Boot::Own,
        run: user_driver::reset,
    },
    Test {
        name: "user_driver_interrupts",
        about: "SSDs wake threads that sleep by MSI-X",
        profile: "two_nvme",
        boot: Boot::Own,
        run: user_driver::interrupts,
    },
    Test {
        name: "node_prepare_run_release",
        about: "from a machine as it boots to a running engine and back, with keel node",
        profile: "one_nvme",
        boot: Boot::Own,
        run: node::prepare_run_release,
    },
    Test {
        name: "node_devices_in_use",
        about: "mounted, swapped to, or open for somebody alone: refused, with its name",
        profile: "one_nvme",
        boot: Boot::Shared,
        run: node::devices_in_use,
    },
    Test {
        name: "node_few_pages",
        about: "more huge pages are needed than the machine has",
        profile: "few_hugepages",
        boot: Boot::Shared,
        run: node::few_pages,
    },
    Test {
        name: "node_no_iommu",
        about: "without an IOMMU uio has to be asked for, and says what is lost",
        profile: "no_iommu",
        boot: Boot::Shared,
        run: node::no_iommu,
    },
    Test {
        name: "user_driver_removed",
        about: "an SSD is pulled under load: other targets serve on; put back, its targets serve again without a restart",
        profile: "two_nvme",
        boot: Boot::Own,
        run: user_driver::removed,
    },
    Test {
        name: "user_driver_resized",
        about: "a namespace that grew keeps its data, one that shrank is refused",
        profile: "two_nvme",
        boot: Boot::Own,
        run: user_driver::resized,
    },
    Test {
        name: "user_driver_unprivileged",
        about: "the engine as an ordinary user with a group of VFIO's and locked memory",
        profile: "two_nvme",
        boot: Boot::Own,
        run: user_driver::unprivileged,
    },
    Test {
        name: "node_uio",
        about: "a store through uio, killed and started again, and read through the kernel's driver",
        profile: "no_iommu",
        boot: Boot::Own,
        run: node::uio,
    },
    Test {
        name: "node_planted_faults",
        about: "the doctor finds each fault that is put into a machine, by its code and alone",
        profile: "one_nvme",
        boot: Boot::Own,
        run: faults::planted,
    },
    Test {
        name: "node_locked_down",
        about: "a kernel that lets nobody map registers, without an IOMMU",
        profile: "no_iommu",
        boot: Boot::Own,
        run: faults::locked_down,
    },
    Test {
        name: "node_shared_group",
        about: "two SSDs in one IOMMU group are lent out together, and an engine drives one",
        profile: "shared_group",
        boot: Boot::Own,
        run: faults::shared_group,
    },
    Test {
        name: "node_numa",
        about: "huge pages on the node that the configuration names",
        profile: "numa",
        boot: Boot::Own,
        run: shapes::numa,
    },
    Test {
        name: "node_giant_pages",
        about: "an engine on huge pages of 1 GiB",
        profile: "giant_pages",
        boot: Boot::Own,
        run: shapes::giant_pages,
    },
    Test {
        name: "user_driver_namespaces",
        about: "a store over 4 KiB blocks, several namespaces, two queues, transfers of two pages",
        profile: "four_nvme",
        boot: Boot::Own,
        run: shapes::namespaces,
    },
    Test {
        name: "install_by_the_guide",
        about: "docs/operating/install.md, command by command, on a server as it comes",
        profile: "bare",
        boot: Boot::Own,
        run: install::by_the_guide,
    },
    Test {
        name: "two_engines",
        about: "a group over two VMs: who is there, shared variables, the death of one",
        profile: "pair",
        boot: Boot::Own,
        run: cluster::two_engines,
    },
];

#[cfg(test)]
mod checks;

/// The same over C SPDK's driver, for an engine that was built with it.
pub(crate) const OVER_SPDK: &[Test] = &[
    Test {
        name: "spdk_driver_both",
        about: "what SPDK's driver writes ours and the kernel's read, and the other way round",
        profile: "two_nvme",
        boot: Boot::Shared,
        run: spdk_driver::all_drivers,
    },
    Test {
        name: "spdk_driver_killed",
        about: "kill -9 under load over SPDK's driver: nothing acknowledged is lost",
        profile: "two_nvme",
        boot: Boot::Own,
        run: spdk_driver::killed,
    },
    Test {
        name: "spdk_driver_power_cut",
        about: "power cuts under load over SPDK's driver: nothing acknowledged is lost",
        profile: "power_cut",
        boot: Boot::Own,
        run: spdk_driver::power_cut,
    },
    Test {
        name: "spdk_driver_volatile",
        about: "power cuts with volatile write caches: SPDK passes flushes on, and is refused where it was told not to",
        profile: "volatile_cache",
        boot: Boot::Own,
        run: spdk_driver::volatile,
    },
    Test {
        name: "spdk_driver_health",
        about: "what the SSDs say of themselves comes through SPDK's driver",
        profile: "two_nvme",
        boot: Boot::Shared,
        run: spdk_driver::health,
    },
    Test {
        name: "spdk_driver_interrupts",
        about: "SPDK's interrupt mode: its vectors wake who waits, kill -9 loses nothing, and at rest nobody naps",
        profile: "two_nvme",
        boot: Boot::Own,
        run: spdk_driver::interrupts,
    },
    Test {
        name: "spdk_driver_removed",
        about: "an SSD is pulled under load from SPDK's driver and put back: the others serve on, and its targets come back without a restart",
        profile: "two_nvme",
        boot: Boot::Own,
        run: spdk_driver::removed,
    },
];

/// Which tests this run is about: `KEEL_TEST_PROVIDER=libspdk` says those over SPDK.
pub(crate) fn chosen() -> &'static [Test] {
    match std::env::var("KEEL_TEST_PROVIDER").as_deref() {
        Ok("libspdk") => OVER_SPDK,
        _ => ALL,
    }
}
