//! [`CODES`]: everything that can be found, under a name that stays. `docs/operating/doctor.md` has the same table, and a test compares.

use serde::Serialize;

/// How bad a finding is. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// The engine runs, slower or with less protection.
    Warning,
    /// The engine cannot use the device.
    Fault,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Fault => "fault",
        }
    }
}

/// One kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Its name, which is never given to another kind.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in one line.
    pub title: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $severity:ident $title:literal,)*) => {
        $(pub(crate) static $name: Code = Code { id: $id, severity: Severity::$severity, title: $title };)*
        /// The table, in the order of names.
        pub static CODES: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    // The device.
    NO_DEVICE "KN001" Fault "there is no PCI device with this address",
    BRIDGE "KN002" Fault "the device is a bridge",
    NOT_NVME "KN003" Fault "the device is no NVMe controller",
    MOUNTED "KN004" Fault "a file system of the device is mounted",
    SWAP "KN005" Fault "the device is swapped to",
    HELD "KN006" Fault "the device is part of LVM, md or dm",
    CLAIMED "KN007" Fault "something has the device open for itself alone",
    NOT_BOUND "KN008" Fault "the device is not lent out: the kernel's driver has it, or none",
    OTHER_DRIVER "KN009" Fault "the device belongs to a driver that is not for NVMe",
    TAKEN "KN010" Fault "another process drives the device",
    RUNNING "KN011" Note "an engine runs on the device",
    // IOMMU and drivers.
    NO_IOMMU "KN020" Fault "the device is behind no IOMMU",
    GROUP_SHARED "KN021" Fault "the kernel has other devices of the IOMMU group",
    UNPROTECTED "KN022" Warning "the device is bound to uio_pci_generic: nothing keeps it to its memory",
    UIO_TRANSLATED "KN023" Fault "the device is bound to uio_pci_generic behind an IOMMU that translates",
    NO_VFIO "KN024" Fault "this kernel has no module vfio-pci",
    NO_VFIO_NODE "KN025" Fault "/dev/vfio/vfio is missing",
    NO_UIO "KN026" Fault "this kernel has no module uio_pci_generic",
    // Huge pages.
    FEW_PAGES "KN030" Warning "fewer huge pages than the configuration needs",
    NO_OTHER_PAGES "KN031" Fault "fewer huge pages than the configuration needs, and no others will do: with uio or SPDK, or where engine.hugepages names a size",
    FRAGMENTED "KN032" Warning "memory is too fragmented for the huge pages that are missing",
    NO_PAGES "KN033" Warning "this kernel has no huge pages of the size that is asked for",
    // Limits and permissions.
    NO_ACCESS "KN040" Fault "the user may not open the device's group",
    MEMLOCK "KN041" Fault "the limit of locked memory is below what the configuration needs",
    UIO_NEEDS_ROOT "KN042" Fault "uio works only for root",
    // The kernel.
    OLD_KERNEL "KN050" Fault "the kernel is older than 5.10",
    NOT_ISOLATED "KN051" Note "cores that always poll are not isolated",
    LOCKED_DOWN "KN052" Fault "the kernel is locked down and lets nobody map a device through uio",
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page for operators says the same.
    #[test]
    fn the_documented_table_is_this_one() {
        let page = include_str!("../../../../docs/operating/doctor.md");
        let rows = page.lines().filter(|line| line.starts_with("| KN"));
        let rows: Vec<Vec<&str>> = rows
            .map(|row| row.split('|').map(str::trim).collect())
            .collect();
        let documented: Vec<(&str, &str, &str)> =
            rows.iter().map(|row| (row[1], row[2], row[3])).collect();
        let known: Vec<_> = CODES
            .iter()
            .map(|code| (code.id, code.severity.word(), code.title))
            .collect();
        assert_eq!(
            documented, known,
            "left: docs/operating/doctor.md, right: code.rs"
        );
        assert!(rows.iter().all(|row| !row[4].is_empty()), "each has a cure");
    }

    #[test]
    fn names_are_used_once_and_in_order() {
        assert!(CODES.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
