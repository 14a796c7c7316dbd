//! I/O commands.

use nvme_spec::opcode::io;
use nvme_spec::{ALL_NAMESPACES, Command, DsmRange, Status, status};

use crate::data;
use crate::device::{Device, Outcome};
use crate::media::Namespace;

impl Device {
    pub(crate) fn io(&mut self, command: &Command) -> Outcome {
        Some((0, self.execute(command).err().unwrap_or(status::SUCCESS)))
    }

    fn execute(&mut self, command: &Command) -> Result<(), Status> {
        if command.opcode() == io::FLUSH {
            self.observed.flushes += 1;
            for (id, namespace) in &mut self.namespaces {
                if [*id, ALL_NAMESPACES].contains(&command.nsid()) {
                    namespace.flush();
                }
            }
            return Ok(());
        }
        let limit = match self.options.mdts {
            0 => usize::MAX,
            mdts => 4096usize
                .checked_shl(u32::from(mdts) + u32::from(self.options.mpsmin))
                .unwrap_or(usize::MAX),
        };
        let cached = self.options.write_cache && self.write_cache_on;
        let Some(namespace) = self.namespaces.get_mut(&command.nsid()) else {
            return Err(status::INVALID_NAMESPACE.with_dnr());
        };
        let (lba, blocks) = (command.lba(), u64::from(command.block_count()));
        match command.opcode() {
            io::READ | io::WRITE | io::COMPARE => {
                in_range(namespace, lba, blocks)?;
                if blocks as usize * namespace.block_size() > limit {
                    return Err(status::INVALID_FIELD.with_dnr());
                }
                self.observed.sgl_commands += u64::from(command.has_sgl());
                self.transfer(command, cached)
            }
            io::WRITE_ZEROES if self.options.oncs & 1 << 3 != 0 => {
                in_range(namespace, lba, blocks)?;
                namespace.zero(lba, blocks, cached && !command.fua());
                Ok(())
            }
            io::DATASET_MANAGEMENT if self.options.oncs & 1 << 2 != 0 => {
                let ranges = (command.cdw(10) & 0xff) as usize + 1;
                let mut list = vec![0; 16 * ranges];
                data::fetch(&self.space, command, &mut list)?;
                let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
                for range in list.chunks_exact(16) {
                    let DsmRange { lba, blocks } =
                        DsmRange::from_words([word(&range[..8]), word(&range[8..])]);
                    in_range(namespace, lba, u64::from(blocks))?;
                    namespace.zero(lba, u64::from(blocks), cached);
                }
                Ok(())
            }
            _ => Err(status::INVALID_OPCODE.with_dnr()),
        }
    }

    /// Read, write or compare of a range that exists.
    fn transfer(&mut self, command: &Command, cached: bool) -> Result<(), Status> {
        let Some(namespace) = self.namespaces.get_mut(&command.nsid()) else {
            return Err(status::INVALID_NAMESPACE.with_dnr());
        };
        let lba = command.lba();
        let bytes = command.block_count() as usize * namespace.block_size();
        self.observed.largest_transfer = self.observed.largest_transfer.max(bytes);
        let smart = &mut self.events.smart;
        match command.opcode() {
            io::READ => smart.host_reads += 1,
            io::WRITE => smart.host_writes += 1,
            _ => {}
        }
        if namespace.options.discard {
            return Ok(());
        }
        let mut buf = vec![0; bytes];
        if command.opcode() == io::READ {
            namespace.read(lba, &mut buf);
            return data::deliver(&self.space, command, &buf);
        }
        data::fetch(&self.space, command, &mut buf)?;
        if command.opcode() == io::WRITE {
            namespace.write(lba, &buf, cached && !command.fua());
            return Ok(());
        }
        let mut held = vec![0; bytes];
        namespace.read(lba, &mut held);
        if held == buf {
            Ok(())
        } else {
            Err(status::COMPARE_FAILURE.with_dnr())
        }
    }

    /// Moves the first half of a command's data, in either direction.
    pub(crate) fn half(&mut self, command: &Command) {
        let Some(namespace) = self.namespaces.get_mut(&command.nsid()) else {
            return;
        };
        let mut buf = vec![0; command.block_count() as usize * namespace.block_size()];
        let half = buf.len() / 2 / namespace.block_size() * namespace.block_size();
        if command.opcode() == io::READ {
            namespace.read(command.lba(), &mut buf);
            // The other half of the buffer gets what no block holds.
            buf[half..].fill(0xee);
            let _ = data::deliver(&self.space, command, &buf);
        } else if data::fetch(&self.space, command, &mut buf).is_ok() {
            namespace.write(command.lba(), &buf[..half], false);
        }
    }
}

fn in_range(namespace: &Namespace, lba: u64, blocks: u64) -> Result<(), Status> {
    match lba.checked_add(blocks) {
        Some(end) if end <= namespace.options.blocks => Ok(()),
        _ => Err(status::LBA_OUT_OF_RANGE.with_dnr()),
    }
}
