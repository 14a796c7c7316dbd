//! Controller registers (Base 3.1.3) and doorbells (PCIe Transport 1.0c, 3.1.2).

use crate::bits::bit_fields;

/// Controller capabilities, 64 bits.
pub const CAP: usize = 0x00;
/// Version.
pub const VS: usize = 0x08;
/// Interrupt mask set; not with MSI-X.
pub const INTMS: usize = 0x0c;
/// Interrupt mask clear; not with MSI-X.
pub const INTMC: usize = 0x10;
/// Controller configuration.
pub const CC: usize = 0x14;
/// Controller status.
pub const CSTS: usize = 0x1c;
/// NVM subsystem reset.
pub const NSSR: usize = 0x20;
/// Admin queue attributes.
pub const AQA: usize = 0x24;
/// Admin submission queue base address, 64 bits.
pub const ASQ: usize = 0x28;
/// Admin completion queue base address, 64 bits.
pub const ACQ: usize = 0x30;
/// Controller memory buffer location.
pub const CMBLOC: usize = 0x38;
/// Controller memory buffer size; 0 where there is none.
pub const CMBSZ: usize = 0x3c;
/// The first doorbell.
pub const DOORBELLS: usize = 0x1000;

bit_fields! {
    /// CAP: controller capabilities (Base 3.1.3.1).
    Capabilities(u64) {
        /// MQES: the most entries of an I/O queue, counted from 0.
        mqes / with_mqes [15:0],
        /// CQR: queues must be physically contiguous.
        cqr / with_cqr [16:16],
        /// AMS: arbitration mechanisms beside round robin.
        ams / with_ams [18:17],
        /// TO: the longest time for CSTS.RDY to follow CC.EN, in units of 500 ms.
        to / with_to [31:24],
        /// DSTRD: doorbells lie 4 << DSTRD bytes apart.
        dstrd / with_dstrd [35:32],
        /// NSSRS: an NVM subsystem reset is possible.
        nssrs / with_nssrs [36:36],
        /// CSS bit 0: the NVM command set.
        css_nvm / with_css_nvm [37:37],
        /// CSS bit 6: one or more I/O command sets.
        css_sets / with_css_sets [43:43],
        /// CSS bit 7: no I/O command set.
        css_admin_only / with_css_admin_only [44:44],
        /// MPSMIN: the smallest memory page is 4096 << MPSMIN bytes.
        mpsmin / with_mpsmin [51:48],
        /// MPSMAX: the largest memory page is 4096 << MPSMAX bytes.
        mpsmax / with_mpsmax [55:52],
        /// CMBS: there may be a controller memory buffer.
        cmbs / with_cmbs [57:57],
    }
}

bit_fields! {
    /// CC: controller configuration (Base 3.1.3.5).
    Configuration(u32) {
        /// EN: enable.
        en / with_en [0:0],
        /// CSS: I/O command set selected; 0 is NVM, 6 all supported sets, 7 admin only.
        css / with_css [6:4],
        /// MPS: memory page is 4096 << MPS bytes.
        mps / with_mps [10:7],
        /// AMS: arbitration; 0 is round robin.
        ams / with_ams [13:11],
        /// SHN: shutdown notification; 1 normal, 2 abrupt.
        shn / with_shn [15:14],
        /// IOSQES: a submission entry is 1 << IOSQES bytes (6).
        iosqes / with_iosqes [19:16],
        /// IOCQES: a completion entry is 1 << IOCQES bytes (4).
        iocqes / with_iocqes [23:20],
    }
}

bit_fields! {
    /// CSTS: controller status (Base 3.1.3.6).
    ControllerStatus(u32) {
        /// RDY: ready.
        rdy / with_rdy [0:0],
        /// CFS: fatal status; only a reset helps.
        cfs / with_cfs [1:1],
        /// SHST: shutdown; 0 none, 1 in progress, 2 complete.
        shst / with_shst [3:2],
        /// NSSRO: an NVM subsystem reset occurred.
        nssro / with_nssro [4:4],
        /// PP: processing paused.
        pp / with_pp [5:5],
    }
}

/// What an absent device answers.
pub const ABSENT: u32 = u32::MAX;

/// CC.SHN: normal shutdown.
pub const SHN_NORMAL: u32 = 1;
/// CSTS.SHST: shutdown complete.
pub const SHST_COMPLETE: u32 = 2;

/// AQA: sizes of the admin queues, in entries (Base 3.1.3.8).
#[must_use]
pub const fn admin_queue_attributes(sq_entries: u32, cq_entries: u32) -> u32 {
    ((cq_entries - 1) & 0xfff) << 16 | ((sq_entries - 1) & 0xfff)
}

/// Offset of the tail doorbell of submission queue `queue`.
#[must_use]
pub const fn sq_doorbell(queue: u16, dstrd: u8) -> usize {
    DOORBELLS + (2 * queue as usize) * (4 << dstrd)
}

/// Offset of the head doorbell of completion queue `queue`.
#[must_use]
pub const fn cq_doorbell(queue: u16, dstrd: u8) -> usize {
    DOORBELLS + (2 * queue as usize + 1) * (4 << dstrd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        // QEMU 7.2's CAP: MQES 2047, CQR, AMS 3, TO 15, CSS 0xc1, MPSMAX 4, CMBS.
        let cap = Capabilities(0x0240_1861_0f07_07ff);
        assert_eq!(
            (cap.mqes(), cap.cqr(), cap.to(), cap.dstrd()),
            (2047, 1, 15, 1)
        );
        assert_eq!((cap.mpsmin(), cap.mpsmax(), cap.cmbs()), (0, 4, 1));
        let cc = Configuration(0).with_en(1).with_iosqes(6).with_iocqes(4);
        assert_eq!(cc.0, 0x0046_0001);
        assert_eq!(cc.with_shn(SHN_NORMAL).0, 0x0046_4001);
        assert_eq!(cc.with_en(0).0, 0x0046_0000);
        assert_eq!(ControllerStatus(0b1001).shst(), 2);
    }

    #[test]
    fn doorbells_are_strided() {
        assert_eq!((sq_doorbell(0, 0), cq_doorbell(0, 0)), (0x1000, 0x1004));
        assert_eq!(
            (sq_doorbell(3, 2), cq_doorbell(3, 2)),
            (0x1000 + 96, 0x1000 + 112)
        );
        assert_eq!(admin_queue_attributes(32, 64), 63 << 16 | 31);
    }
}
