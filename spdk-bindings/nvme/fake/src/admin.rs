//! Admin commands.

use nvme_spec::opcode::admin;
use nvme_spec::{
    ALL_NAMESPACES, Command, IDENTIFY_BYTES, IdentifyController, NamespaceIds, Status, feature,
    identify_cns, log, status,
};

use crate::data;
use crate::device::{Device, Outcome};
use crate::events::{ERROR_ENTRIES, MAX_REQUESTS};
use crate::queue::Shadow;

/// Bytes of the emulated telemetry: a header and two blocks.
const TELEMETRY_BLOCKS: u16 = 2;

fn ended(status: Status) -> Outcome {
    Some((0, status))
}

fn result(done: Result<(), Status>) -> Outcome {
    ended(done.err().unwrap_or(status::SUCCESS))
}

impl Device {
    pub(crate) fn admin(&mut self, command: &Command) -> Outcome {
        match command.opcode() {
            admin::IDENTIFY => result(self.identify(command)),
            admin::CREATE_CQ => result(self.create_cq(command)),
            admin::CREATE_SQ => result(self.create_sq(command)),
            admin::DELETE_SQ => result(self.delete_sq(command.cdw(10) as u16)),
            admin::DELETE_CQ => result(self.delete_cq(command.cdw(10) as u16)),
            admin::GET_LOG_PAGE => result(self.log_page(command)),
            admin::SET_FEATURES => self.set_feature(command.cdw(10) as u8, command.cdw(11)),
            admin::GET_FEATURES => self.get_feature(command.cdw(10) as u8),
            admin::ABORT => {
                let aborted = self.abort(command.cdw(10) as u16, (command.cdw(10) >> 16) as u16);
                // Dword 0 bit 0: not aborted (Base 5.1.1).
                Some((u64::from(!aborted), status::SUCCESS))
            }
            admin::ASYNC_EVENT => {
                if self.events.requests.len() >= MAX_REQUESTS {
                    return ended(status::ASYNC_EVENT_LIMIT);
                }
                self.events.requests.push_back(command.cid());
                None
            }
            admin::DOORBELL_BUFFER if self.options.shadow_doorbells => {
                let (doorbells, event_indexes) = command.prps();
                self.shadow = Some(Shadow {
                    doorbells,
                    event_indexes,
                });
                ended(status::SUCCESS)
            }
            _ => ended(status::INVALID_OPCODE.with_dnr()),
        }
    }

    fn identify(&mut self, command: &Command) -> Result<(), Status> {
        let nsid = command.nsid();
        let page: [u8; IDENTIFY_BYTES] = match command.cdw(10) as u8 {
            identify_cns::CONTROLLER => self.describe().to_bytes(),
            identify_cns::NAMESPACE => {
                if nsid == 0 || nsid == ALL_NAMESPACES {
                    return Err(status::INVALID_NAMESPACE.with_dnr());
                }
                let known = self.namespaces.get(&nsid);
                known.map_or([0; IDENTIFY_BYTES], |ns| ns.identify(nsid).to_bytes())
            }
            identify_cns::ACTIVE_NAMESPACES => {
                let mut page = [0; IDENTIFY_BYTES];
                let active = self.namespaces.keys().filter(|id| **id > nsid);
                for (entry, id) in page.chunks_exact_mut(4).zip(active) {
                    entry.copy_from_slice(&id.to_le_bytes());
                }
                page
            }
            identify_cns::NAMESPACE_DESCRIPTORS => {
                let Some(namespace) = self.namespaces.get(&nsid) else {
                    return Err(status::INVALID_NAMESPACE.with_dnr());
                };
                let mut uuid = [0; 16];
                for (to, from) in uuid.iter_mut().zip(self.options.serial.bytes()) {
                    *to = from;
                }
                uuid[12..].copy_from_slice(&nsid.to_be_bytes());
                let command_set = namespace.options.command_set;
                NamespaceIds {
                    uuid: Some(uuid),
                    command_set,
                }
                .to_bytes()
            }
            _ => return Err(status::INVALID_FIELD.with_dnr()),
        };
        data::deliver(&self.space, command, &page)
    }

    fn describe(&self) -> IdentifyController {
        let options = &self.options;
        IdentifyController {
            vendor: 0x1b36,
            serial: options.serial.clone(),
            model: "Keel emulated NVMe".into(),
            firmware: "1.0".into(),
            mdts: options.mdts,
            version: 0x0001_0400,
            oaes: 1 << 8 | 1 << 9,
            oacs: u16::from(options.shadow_doorbells) << 8,
            abort_limit: 3,
            async_event_limit: MAX_REQUESTS as u8 - 1,
            lpa: 1 << 3,
            error_log_entries: ERROR_ENTRIES as u8 - 1,
            shutdown_us: 100_000,
            sqes: 0x66,
            cqes: 0x44,
            namespaces: self.namespaces.keys().max().copied().unwrap_or(0).max(1),
            oncs: options.oncs,
            vwc: u8::from(options.write_cache),
            sgls: u32::from(options.sgl),
            subnqn: format!("nqn.2026-11.keel:fake:{}", options.serial),
            ..IdentifyController::default()
        }
    }

    fn queue_size(&self, command: &Command) -> Result<u32, Status> {
        let entries = (command.cdw(10) >> 16) + 1;
        if entries < 2 || entries > self.options.max_queue_entries {
            return Err(status::INVALID_QUEUE_SIZE.with_dnr());
        }
        Ok(entries)
    }

    fn create_cq(&mut self, command: &Command) -> Result<(), Status> {
        let id = command.cdw(10) as u16;
        let entries = self.queue_size(command)?;
        if id == 0 || id > self.options.queue_pairs || self.cqs.contains_key(&id) {
            return Err(status::INVALID_QUEUE_ID.with_dnr());
        }
        let attributes = command.cdw(11);
        let vector = (attributes & 2 != 0).then_some((attributes >> 16) as u16);
        self.add_cq(id, command.prps().0, entries, vector);
        Ok(())
    }

    fn create_sq(&mut self, command: &Command) -> Result<(), Status> {
        let (id, cq) = (command.cdw(10) as u16, (command.cdw(11) >> 16) as u16);
        let entries = self.queue_size(command)?;
        if id == 0 || id > self.options.queue_pairs || self.sqs.contains_key(&id) {
            return Err(status::INVALID_QUEUE_ID.with_dnr());
        }
        if cq == 0 || !self.cqs.contains_key(&cq) {
            return Err(status::INVALID_CQ.with_dnr());
        }
        self.add_sq(id, command.prps().0, entries, cq);
        Ok(())
    }

    fn delete_sq(&mut self, id: u16) -> Result<(), Status> {
        if id == 0 || self.sqs.remove(&id).is_none() {
            return Err(status::INVALID_QUEUE_ID.with_dnr());
        }
        self.forget_queue(id);
        Ok(())
    }

    fn delete_cq(&mut self, id: u16) -> Result<(), Status> {
        if self.sqs.values().any(|sq| sq.cq == id) {
            return Err(status::INVALID_QUEUE_DELETION.with_dnr());
        }
        if id == 0 || self.cqs.remove(&id).is_none() {
            return Err(status::INVALID_QUEUE_ID.with_dnr());
        }
        Ok(())
    }

    fn log_page(&mut self, command: &Command) -> Result<(), Status> {
        let (id, retain) = (command.cdw(10) as u8, command.cdw(10) & 1 << 15 != 0);
        let page: Vec<u8> = match id {
            log::ERRORS => self.events.error_log(),
            log::SMART => self.events.smart.to_bytes().into(),
            log::FIRMWARE_SLOTS => {
                let mut slots = log::FirmwareSlots {
                    active: 1,
                    ..log::FirmwareSlots::default()
                };
                slots.revisions[0] = "1.0".into();
                slots.to_bytes().into()
            }
            log::CHANGED_NAMESPACES => {
                let mut page = vec![0; 4 * log::CHANGED_ENTRIES];
                let changed = core::mem::take(&mut self.events.changed_namespaces);
                for (entry, id) in page.chunks_exact_mut(4).zip(changed) {
                    entry.copy_from_slice(&id.to_le_bytes());
                }
                page
            }
            log::TELEMETRY_HOST | log::TELEMETRY_CONTROLLER => {
                let header = log::TelemetryHeader {
                    last_block: [TELEMETRY_BLOCKS; 3],
                    ..log::TelemetryHeader::default()
                };
                let mut page = header.to_bytes(id).to_vec();
                page.resize(
                    log::TELEMETRY_BLOCK * (1 + usize::from(TELEMETRY_BLOCKS)),
                    0x5a,
                );
                page
            }
            _ => return Err(status::INVALID_LOG_PAGE.with_dnr()),
        };
        let dwords = (command.cdw(10) >> 16 | command.cdw(11) << 16) as usize + 1;
        let offset = u64::from(command.cdw(12)) | u64::from(command.cdw(13)) << 32;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(rest) = page.get(offset..).filter(|_| dwords <= 1 << 20) else {
            return Err(status::INVALID_FIELD.with_dnr());
        };
        let mut answer = rest[..rest.len().min(4 * dwords)].to_vec();
        answer.resize(4 * dwords, 0);
        data::deliver(&self.space, command, &answer)?;
        if !retain {
            self.events.clear_log(id);
        }
        Ok(())
    }

    fn set_feature(&mut self, id: u8, value: u32) -> Outcome {
        match id {
            feature::NUMBER_OF_QUEUES => {
                let granted = self.options.queue_pairs;
                return Some((u64::from(feature::queue_count(granted)), status::SUCCESS));
            }
            feature::VOLATILE_WRITE_CACHE if self.options.write_cache => {
                self.write_cache_on = value & 1 != 0;
                if !self.write_cache_on {
                    self.namespaces.values_mut().for_each(|ns| ns.flush());
                }
            }
            feature::ASYNC_EVENTS => self.events.configuration = value,
            _ => return ended(status::INVALID_FIELD.with_dnr()),
        }
        ended(status::SUCCESS)
    }

    fn get_feature(&mut self, id: u8) -> Outcome {
        let value = match id {
            feature::NUMBER_OF_QUEUES => feature::queue_count(self.options.queue_pairs),
            feature::VOLATILE_WRITE_CACHE if self.options.write_cache => {
                u32::from(self.write_cache_on)
            }
            feature::ASYNC_EVENTS => self.events.configuration,
            _ => return ended(status::INVALID_FIELD.with_dnr()),
        };
        Some((u64::from(value), status::SUCCESS))
    }
}
