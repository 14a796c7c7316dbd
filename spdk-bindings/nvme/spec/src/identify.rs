//! Identify data structures (Base 5.17.2, NVM 4.1.5): the fields that a driver needs.

use crate::bytes::{put, put_text, text_at, u16_at, u32_at, u64_at};

/// Bytes of every identify data structure.
pub const IDENTIFY_BYTES: usize = 4096;

/// CNS values (Base 5.17.1, figure 273).
pub mod identify_cns {
    /// Identify namespace.
    pub const NAMESPACE: u8 = 0x00;
    /// Identify controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespace list, ids above the given one.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace identification descriptors.
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
}

/// Identify controller (Base 5.17.2.1, figure 275).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentifyController {
    /// PCI vendor id.
    pub vendor: u16,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
    /// Firmware revision.
    pub firmware: String,
    /// MDTS: largest data transfer as a power of two of the smallest memory page; 0 is no limit.
    pub mdts: u8,
    /// Controller id.
    pub controller_id: u16,
    /// Version.
    pub version: u32,
    /// OAES: asynchronous events; bit 8 namespace attributes, 9 firmware activation.
    pub oaes: u32,
    /// OACS: optional admin commands; bit 8 doorbell buffer.
    pub oacs: u16,
    /// ACL: aborts at once, counted from 0.
    pub abort_limit: u8,
    /// AERL: asynchronous event requests at once, counted from 0.
    pub async_event_limit: u8,
    /// LPA: log pages; bit 3 telemetry.
    pub lpa: u8,
    /// ELPE: entries of the error log, counted from 0.
    pub error_log_entries: u8,
    /// RTD3E: time for a shutdown in microseconds; 0 when not reported.
    pub shutdown_us: u32,
    /// SQES: required and largest submission entry size as powers of two.
    pub sqes: u8,
    /// CQES: required and largest completion entry size as powers of two.
    pub cqes: u8,
    /// NN: largest namespace id.
    pub namespaces: u32,
    /// ONCS: optional NVM commands; bit 0 compare, 2 dataset management, 3 write zeroes.
    pub oncs: u16,
    /// VWC: bit 0: a volatile write cache is present.
    pub vwc: u8,
    /// SGLS: SGL support; bits 1:0 not zero when supported.
    pub sgls: u32,
    /// NVM subsystem qualified name.
    pub subnqn: String,
}

impl IdentifyController {
    /// From the data.
    #[must_use]
    pub fn parse(data: &[u8; IDENTIFY_BYTES]) -> IdentifyController {
        let nqn_end = data[768..1024].iter().position(|b| *b == 0).unwrap_or(256);
        IdentifyController {
            vendor: u16_at(data, 0),
            serial: text_at(data, 4, 20),
            model: text_at(data, 24, 40),
            firmware: text_at(data, 64, 8),
            mdts: data[77],
            controller_id: u16_at(data, 78),
            version: u32_at(data, 80),
            shutdown_us: u32_at(data, 88),
            oaes: u32_at(data, 92),
            oacs: u16_at(data, 256),
            abort_limit: data[258],
            async_event_limit: data[259],
            lpa: data[261],
            error_log_entries: data[262],
            sqes: data[512],
            cqes: data[513],
            namespaces: u32_at(data, 516),
            oncs: u16_at(data, 520),
            vwc: data[525],
            sgls: u32_at(data, 536),
            subnqn: text_at(data, 768, nqn_end),
        }
    }

    /// As data.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; IDENTIFY_BYTES] {
        let mut data = [0; IDENTIFY_BYTES];
        put(&mut data, 0, &self.vendor.to_le_bytes());
        put_text(&mut data, 4, 20, &self.serial);
        put_text(&mut data, 24, 40, &self.model);
        put_text(&mut data, 64, 8, &self.firmware);
        data[77] = self.mdts;
        put(&mut data, 78, &self.controller_id.to_le_bytes());
        put(&mut data, 80, &self.version.to_le_bytes());
        put(&mut data, 88, &self.shutdown_us.to_le_bytes());
        put(&mut data, 92, &self.oaes.to_le_bytes());
        put(&mut data, 256, &self.oacs.to_le_bytes());
        data[258] = self.abort_limit;
        data[259] = self.async_event_limit;
        data[261] = self.lpa;
        data[262] = self.error_log_entries;
        data[512] = self.sqes;
        data[513] = self.cqes;
        put(&mut data, 516, &self.namespaces.to_le_bytes());
        put(&mut data, 520, &self.oncs.to_le_bytes());
        data[525] = self.vwc;
        put(&mut data, 536, &self.sgls.to_le_bytes());
        let nqn = self.subnqn.as_bytes();
        put(&mut data, 768, &nqn[..nqn.len().min(255)]);
        data
    }

    /// Compare is supported.
    #[must_use]
    pub const fn has_compare(&self) -> bool {
        self.oncs & 1 != 0
    }

    /// Dataset management is supported.
    #[must_use]
    pub const fn has_deallocate(&self) -> bool {
        self.oncs & 1 << 2 != 0
    }

    /// Write zeroes is supported.
    #[must_use]
    pub const fn has_write_zeroes(&self) -> bool {
        self.oncs & 1 << 3 != 0
    }

    /// The doorbell buffer is supported.
    #[must_use]
    pub const fn has_doorbell_buffer(&self) -> bool {
        self.oacs & 1 << 8 != 0
    }

    /// SGLs are supported for I/O.
    #[must_use]
    pub const fn has_sgl(&self) -> bool {
        self.sgls & 3 != 0
    }

    /// The telemetry log pages are supported.
    #[must_use]
    pub const fn has_telemetry(&self) -> bool {
        self.lpa & 1 << 3 != 0
    }
}

/// One LBA format (NVM 4.1.5.1, figure 98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LbaFormat {
    /// MS: bytes of metadata for each block.
    pub metadata: u16,
    /// LBADS: a block has 1 << LBADS bytes; 0 for a format that does not exist.
    pub data_shift: u8,
    /// RP: relative performance, 0 is best.
    pub performance: u8,
}

/// Identify namespace (NVM 4.1.5.1, figure 97).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifyNamespace {
    /// NSZE: blocks in all.
    pub blocks: u64,
    /// NCAP: blocks that may be allocated at once.
    pub capacity: u64,
    /// NUSE: blocks allocated.
    pub used: u64,
    /// NSFEAT: bit 0 thin provisioning, 4 the optimal I/O fields are meant.
    pub features: u8,
    /// NLBAF: formats, counted from 0.
    pub format_count: u8,
    /// FLBAS: the format in use, and how metadata is transferred.
    pub flbas: u8,
    /// DPS: end-to-end protection; bits 2:0 not zero when on.
    pub protection: u8,
    /// DLFEAT: bits 2:0: what deallocated blocks read as; 1 is zeroes.
    pub deallocated: u8,
    /// NOIOB: I/O should not cross multiples of this many blocks; 0 for none.
    pub optimal_boundary: u16,
    /// NPWG: preferred write granularity, in blocks counted from 0.
    pub write_granularity: u16,
    /// EUI-64; zeroes for none.
    pub eui64: [u8; 8],
    /// NGUID; zeroes for none.
    pub nguid: [u8; 16],
    /// The formats.
    pub formats: [LbaFormat; 64],
}

impl Default for IdentifyNamespace {
    /// What a controller answers for a namespace that is not active: zeroes.
    fn default() -> IdentifyNamespace {
        IdentifyNamespace::parse(&[0; IDENTIFY_BYTES])
    }
}

impl IdentifyNamespace {
    /// From the data.
    #[must_use]
    pub fn parse(data: &[u8; IDENTIFY_BYTES]) -> IdentifyNamespace {
        let format = |i: usize| LbaFormat {
            metadata: u16_at(data, 128 + 4 * i),
            data_shift: data[130 + 4 * i],
            performance: data[131 + 4 * i] & 3,
        };
        let mut ids = ([0; 8], [0; 16]);
        ids.0.copy_from_slice(&data[120..128]);
        ids.1.copy_from_slice(&data[104..120]);
        IdentifyNamespace {
            blocks: u64_at(data, 0),
            capacity: u64_at(data, 8),
            used: u64_at(data, 16),
            features: data[24],
            format_count: data[25],
            flbas: data[26],
            protection: data[29],
            deallocated: data[33],
            optimal_boundary: u16_at(data, 46),
            write_granularity: u16_at(data, 64),
            eui64: ids.0,
            nguid: ids.1,
            formats: core::array::from_fn(format),
        }
    }

    /// As data.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; IDENTIFY_BYTES] {
        let mut data = [0; IDENTIFY_BYTES];
        put(&mut data, 0, &self.blocks.to_le_bytes());
        put(&mut data, 8, &self.capacity.to_le_bytes());
        put(&mut data, 16, &self.used.to_le_bytes());
        data[24] = self.features;
        data[25] = self.format_count;
        data[26] = self.flbas;
        data[29] = self.protection;
        data[33] = self.deallocated;
        put(&mut data, 46, &self.optimal_boundary.to_le_bytes());
        put(&mut data, 64, &self.write_granularity.to_le_bytes());
        put(&mut data, 104, &self.nguid);
        put(&mut data, 120, &self.eui64);
        for (i, format) in self.formats.iter().enumerate() {
            put(&mut data, 128 + 4 * i, &format.metadata.to_le_bytes());
            data[130 + 4 * i] = format.data_shift;
            data[131 + 4 * i] = format.performance;
        }
        data
    }

    /// Index of the format in use: FLBAS bits 3:0 and, above 16 formats, 6:5.
    #[must_use]
    pub const fn format_index(&self) -> usize {
        let low = (self.flbas & 0xf) as usize;
        if self.format_count > 15 {
            low | ((self.flbas >> 5 & 3) as usize) << 4
        } else {
            low
        }
    }

    /// The format in use.
    #[must_use]
    pub const fn format(&self) -> LbaFormat {
        self.formats[self.format_index()]
    }
}

/// Namespace identification descriptors (Base 5.17.2.3): the UUID, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespaceIds {
    /// NIDT 3.
    pub uuid: Option<[u8; 16]>,
    /// NIDT 4: command set; 0 is NVM, 2 zoned.
    pub command_set: u8,
}

impl NamespaceIds {
    /// From the data; stops at the first descriptor that makes no sense.
    #[must_use]
    pub fn parse(data: &[u8; IDENTIFY_BYTES]) -> NamespaceIds {
        let mut ids = NamespaceIds::default();
        let mut at = 0;
        while at + 4 <= IDENTIFY_BYTES {
            let (kind, len) = (data[at], data[at + 1] as usize);
            let Some(value) = data.get(at + 4..at + 4 + len).filter(|_| len > 0) else {
                break;
            };
            match (kind, <[u8; 16]>::try_from(value)) {
                (3, Ok(uuid)) if uuid != [0; 16] => ids.uuid = Some(uuid),
                (4, _) => ids.command_set = value[0],
                _ => {}
            }
            at += 4 + len;
        }
        ids
    }

    /// As data.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; IDENTIFY_BYTES] {
        let mut data = [0; IDENTIFY_BYTES];
        let mut at = 0;
        if let Some(uuid) = self.uuid {
            put(&mut data, 0, &[3, 16, 0, 0]);
            put(&mut data, 4, &uuid);
            at = 20;
        }
        put(&mut data, at, &[4, 1, 0, 0, self.command_set]);
        data
    }
}

/// The ids of an active namespace list (Base 5.17.2.2): ascending, up to the first zero. A list that does not ascend ends where it
/// stops doing so.
pub fn parse_namespace_list(data: &[u8; IDENTIFY_BYTES]) -> impl Iterator<Item = u32> + '_ {
    let mut last = 0;
    (0..IDENTIFY_BYTES / 4)
        .map(|i| u32_at(data, 4 * i))
        .take_while(move |id| {
            let ascends = *id > last;
            last = *id;
            ascends
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_come_back_as_they_went_in() {
        let controller = IdentifyController {
            vendor: 0x1b36,
            serial: "SN 1".into(),
            model: "model".into(),
            firmware: "1.0".into(),
            mdts: 5,
            oacs: 1 << 8,
            oncs: 0b1101,
            sgls: 1,
            lpa: 8,
            vwc: 1,
            sqes: 0x66,
            cqes: 0x44,
            namespaces: 7,
            shutdown_us: 9,
            subnqn: "nqn.2026-11.keel:x".into(),
            ..IdentifyController::default()
        };
        assert_eq!(
            IdentifyController::parse(&controller.to_bytes()),
            controller
        );
        assert!(
            controller.has_compare()
                && controller.has_deallocate()
                && controller.has_write_zeroes()
        );
        assert!(
            controller.has_doorbell_buffer() && controller.has_sgl() && controller.has_telemetry()
        );

        let mut namespace = IdentifyNamespace {
            blocks: 9,
            flbas: 0x21,
            format_count: 20,
            nguid: [7; 16],
            ..IdentifyNamespace::default()
        };
        namespace.formats[17] = LbaFormat {
            metadata: 8,
            data_shift: 12,
            performance: 2,
        };
        assert_eq!(IdentifyNamespace::parse(&namespace.to_bytes()), namespace);
        assert_eq!(
            (namespace.format_index(), namespace.format().data_shift),
            (17, 12)
        );

        let ids = NamespaceIds {
            uuid: Some([9; 16]),
            command_set: 0,
        };
        assert_eq!(NamespaceIds::parse(&ids.to_bytes()), ids);
    }

    #[test]
    fn lists_and_descriptors_of_nonsense_end() {
        assert_eq!(
            NamespaceIds::parse(&[0xff; IDENTIFY_BYTES]),
            NamespaceIds::default()
        );
        let mut list = [0; IDENTIFY_BYTES];
        for (i, id) in [1u32, 2, 9, 9, 10].iter().enumerate() {
            put(&mut list, 4 * i, &id.to_le_bytes());
        }
        assert_eq!(parse_namespace_list(&list).collect::<Vec<_>>(), [1, 2, 9]);
        assert_eq!(parse_namespace_list(&[0xff; IDENTIFY_BYTES]).count(), 1);
        assert_eq!(parse_namespace_list(&[0; IDENTIFY_BYTES]).count(), 0);
    }
}
