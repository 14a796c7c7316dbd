//! Which interrupts arrive on which CPU.

use super::{Host, parse_list};

/// One interrupt line or vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The kernel's number.
    pub irq: usize,
    /// Who asked for it: `nvme0q3`, `virtio1-req.0`.
    pub name: String,
    /// Where it arrives now.
    pub cpus: Vec<usize>,
    /// How often it arrived since the machine started, over all CPUs.
    pub count: u64,
}

/// The device interrupts, by number; those that cannot be read are left out.
#[must_use]
pub fn interrupts(host: &Host) -> Vec<Interrupt> {
    let table = host.read("/proc/interrupts").unwrap_or_default();
    let mut lines = table.lines();
    let columns = lines.next().unwrap_or_default().split_whitespace().count();
    lines
        .filter_map(|line| interrupt(host, line, columns))
        .collect()
}

/// A line of `/proc/interrupts`: ` 28:          0         17 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config`.
fn interrupt(host: &Host, line: &str, columns: usize) -> Option<Interrupt> {
    let (irq, rest) = line.split_once(':')?;
    // Letters: counters of the processor itself (NMI, LOC, ...), which nobody can move.
    let irq: usize = irq.trim().parse().ok()?;
    let mut words = rest.split_whitespace();
    let count = words
        .by_ref()
        .take(columns)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    let name = words.last().unwrap_or_default().to_owned();
    let list = |file: &str| {
        let text = host.read(format!("/proc/irq/{irq}/{file}"))?;
        parse_list(&text).filter(|cpus| !cpus.is_empty())
    };
    let cpus = list("effective_affinity_list").or_else(|| list("smp_affinity_list"))?;
    Some(Interrupt {
        irq,
        name,
        cpus,
        count,
    })
}
