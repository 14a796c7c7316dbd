//! From a device in any state to one with queues: at attach and after each reset (Base 3.5.1, SPDK: `nvme_ctrlr.c`).

use core::sync::atomic::Ordering;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nvme_spec::opcode::admin;
use nvme_spec::register::{self, Capabilities, Configuration, ControllerStatus};
use nvme_spec::{
    COMMAND_BYTES, COMPLETION_BYTES, Command, IDENTIFY_BYTES, IdentifyController,
    IdentifyNamespace, NamespaceIds, feature, identify_cns, parse_namespace_list,
};
use spdk_env::mmio::RegisterWindow;
use spdk_env::{DeviceBacking, DmaMemory, PAGE};

use crate::Namespace;
use crate::controller::Inner;
use crate::doorbell::Shadows;
use crate::error::NvmeErrorKind;
use crate::options::{LARGEST_TRANSFER, MS};
use crate::queue_pair::LIST_CHUNK;
use crate::shared::{Facts, QueueShared, Shared};

type Result<T> = core::result::Result<T, NvmeErrorKind>;

/// Namespaces that are looked at; later ones are ignored with a log line.
const MAX_NAMESPACES: usize = 1024;

impl<B: DeviceBacking> Inner<B> {
    pub(crate) fn registers(&self) -> &B::Registers {
        self.backing.registers()
    }

    /// CAP, if the device is there and can be driven.
    pub(crate) fn capabilities(&self) -> Result<Capabilities> {
        let cap = Capabilities(self.registers().read64(register::CAP));
        if cap.0 == u64::MAX || self.registers().read32(register::CSTS) == register::ABSENT {
            return Err(NvmeErrorKind::Gone);
        }
        let unsupported = |why: String| Err(NvmeErrorKind::Unsupported(why));
        if cap.css_nvm() == 0 && cap.css_sets() == 0 {
            return unsupported(format!(
                "it has no NVM command set (CAP is {:#018x})",
                cap.0
            ));
        }
        if cap.mpsmin() > 0 {
            return unsupported(format!(
                "its smallest memory page has {} bytes (CAP.MPSMIN {}); 4,096 is supported",
                4096u64 << cap.mpsmin(),
                cap.mpsmin()
            ));
        }
        if cap.mqes() == 0 {
            return unsupported(
                "its I/O queues have one entry (CAP.MQES 0); NVMe requires two".into(),
            );
        }
        let doorbells = register::cq_doorbell(1, cap.dstrd() as u8) + 4;
        if self.registers().len() < doorbells {
            return unsupported(format!(
                "its register window of {} bytes has no doorbells for an I/O queue",
                self.registers().len()
            ));
        }
        Ok(cap)
    }

    /// Waits for CSTS.RDY.
    async fn wait_ready(&self, wanted: u32, cap: Capabilities) -> Result<()> {
        // CAP.TO; some controllers report 0, and all get a second.
        let limit = (cap.to() * 500).max(1000);
        let deadline = self.now().saturating_add(limit * MS);
        loop {
            let status = self.registers().read32(register::CSTS);
            if status == register::ABSENT {
                return Err(NvmeErrorKind::Gone);
            }
            let status = ControllerStatus(status);
            if status.rdy() == wanted {
                return Ok(());
            }
            if wanted == 1 && status.cfs() == 1 {
                return Err(NvmeErrorKind::Fatal("starts"));
            }
            if self.now() >= deadline {
                return Err(NvmeErrorKind::NotReady { wanted, ms: limit });
            }
            self.next_poll().await;
        }
    }

    /// CC.EN to 0, and proof that the device has let go of memory.
    pub(crate) async fn disable(&self) -> Result<Capabilities> {
        self.admin.close();
        let cap = self.capabilities()?;
        let cc = Configuration(self.registers().read32(register::CC));
        if cc.en() == 1 {
            // Base 3.1.3.5: EN is not to be cleared while a start is under way. A start that hangs is cleared anyway.
            let _ = self.wait_ready(1, cap).await;
            self.registers()
                .write32(register::CC, cc.with_en(0).with_shn(0).0);
        }
        self.wait_ready(0, cap).await?;
        self.admin.release();
        Ok(cap)
    }

    /// CC.EN to 1, with an empty admin queue.
    async fn enable(&self, cap: Capabilities) -> Result<()> {
        self.admin.open(cap.dstrd() as u8);
        // CSS 6 where the NVM command set is one of several (Base 3.1.3.5).
        let css = if cap.css_nvm() == 1 { 0 } else { 6 };
        let cc = Configuration(0)
            .with_css(css)
            .with_iosqes(6)
            .with_iocqes(4)
            .with_en(1);
        self.registers().write32(register::CC, cc.0);
        self.wait_ready(1, cap).await
    }

    /// Runs an admin command.
    pub(crate) async fn command(&self, what: &'static str, command: Command) -> Result<u64> {
        let timeout = self.options.admin_timeout;
        self.admin
            .run(command, timeout)
            .await
            .map_err(|error| error.of(what, timeout))
    }

    /// Runs an admin command that fills a page.
    pub(crate) async fn page(
        &self,
        what: &'static str,
        command: Command,
    ) -> Result<Box<[u8; IDENTIFY_BYTES]>> {
        let timeout = self.options.admin_timeout;
        let page: DmaMemory = self
            .admin
            .run_with_page(command, timeout)
            .await
            .map_err(|error| error.of(what, timeout))?;
        let mut bytes = Box::new([0; IDENTIFY_BYTES]);
        page.copy_out(0, &mut bytes[..]);
        Ok(bytes)
    }

    /// Everything, up to queues that take I/O.
    pub(crate) async fn bring_up(&self) -> Result<()> {
        let cap = self.disable().await?;
        self.enable(cap).await?;
        let data = self
            .page(
                "identify controller",
                Command::identify(identify_cns::CONTROLLER, 0),
            )
            .await?;
        let identity = IdentifyController::parse(&data);
        if identity.sqes & 0xf > 6 || identity.cqes & 0xf > 4 {
            return Err(NvmeErrorKind::Unsupported(format!(
                "its queue entries are larger than 64 and 16 bytes (SQES {:#x}, CQES {:#x})",
                identity.sqes, identity.cqes
            )));
        }
        let wanted = self.options.queue_pairs.max(1);
        let value = self
            .command(
                "set features (number of queues)",
                Command::set_features(feature::NUMBER_OF_QUEUES, feature::queue_count(wanted)),
            )
            .await?;
        let granted = u16::try_from(feature::queues_granted(value as u32)).unwrap_or(u16::MAX);
        let events = feature::ASYNC_EVENTS_WANTED & (identity.oaes | 0xff);
        // Optional: a controller that refuses reports no notices, and errors as before.
        let _ = self
            .command(
                "set features (asynchronous events)",
                Command::set_features(feature::ASYNC_EVENTS, events),
            )
            .await;

        let facts = facts(&identity, &self.options, granted);
        self.identity.replace(Some(identity.clone()));
        let shared = match self.shared.get() {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared = Shared::new(
                    Arc::clone(&self.backing),
                    self.options.clone(),
                    cap.dstrd() as u8,
                    facts,
                );
                Arc::clone(self.shared.get_or_init(|| Arc::new(shared)))
            }
        };
        let found = self.find_namespaces(shared.max_transfer).await?;
        self.namespaces.replace(found);
        self.configure_shadows(&shared, &identity).await?;
        self.make_queues(&shared, cap, granted)?;
        for queue in shared.queues() {
            self.create_queue(queue).await?;
        }
        Ok(())
    }

    /// The active namespaces, with what they are.
    pub(crate) async fn find_namespaces(&self, max_transfer: u32) -> Result<Vec<Namespace>> {
        let mut ids: Vec<u32> = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let list = self
                .page(
                    "identify (active namespaces)",
                    Command::identify(identify_cns::ACTIVE_NAMESPACES, after),
                )
                .await?;
            let before = ids.len();
            ids.extend(parse_namespace_list(&list).skip_while(|id| *id <= after));
            if ids.len() > MAX_NAMESPACES {
                tracing::warn!(
                    device = self.address(),
                    "more than {MAX_NAMESPACES} namespaces: the others are ignored"
                );
                ids.truncate(MAX_NAMESPACES);
            }
            if ids.len() - before < IDENTIFY_BYTES / 4 || ids.len() == MAX_NAMESPACES {
                break;
            }
        }
        let mut found = Vec::with_capacity(ids.len());
        for nsid in ids {
            let data = self
                .page(
                    "identify namespace",
                    Command::identify(identify_cns::NAMESPACE, nsid),
                )
                .await?;
            let data = IdentifyNamespace::parse(&data);
            // Before NVMe 1.3 there are no descriptors.
            let ids = self
                .page(
                    "identify (namespace descriptors)",
                    Command::identify(identify_cns::NAMESPACE_DESCRIPTORS, nsid),
                )
                .await;
            let ids = match ids {
                Ok(page) => NamespaceIds::parse(&page),
                Err(NvmeErrorKind::Command { .. }) => NamespaceIds::default(),
                Err(other) => return Err(other),
            };
            let namespace = Namespace::new(nsid, &data, ids, max_transfer);
            if let Some(why) = &namespace.refused {
                tracing::warn!(
                    device = self.address(),
                    nsid,
                    "namespace is not used: {why}"
                );
            }
            found.push(namespace);
        }
        Ok(found)
    }

    async fn configure_shadows(
        &self,
        shared: &Shared<B>,
        identity: &IdentifyController,
    ) -> Result<()> {
        shared.shadows_on.store(false, Ordering::Release);
        if !self.options.shadow_doorbells || !identity.has_doorbell_buffer() {
            return Ok(());
        }
        // A page holds the doorbells of the queues that are used, or shadows are not.
        let last =
            register::cq_doorbell(self.options.queue_pairs, shared.dstrd) - register::DOORBELLS;
        if last + 4 > PAGE {
            return Ok(());
        }
        if shared.shadows.get().is_none() {
            let fresh = Shadows {
                doorbells: self.backing.alloc_dma(PAGE, PAGE)?,
                event_indexes: self.backing.alloc_dma(PAGE, PAGE)?,
            };
            let _ = shared.shadows.set(fresh);
        }
        let Some(shadows) = shared.shadows.get() else {
            return Ok(());
        };
        shadows.doorbells.clear();
        shadows.event_indexes.clear();
        let command = Command::new(admin::DOORBELL_BUFFER, 0)
            .with_prps(shadows.doorbells.iova(), shadows.event_indexes.iova());
        match self.command("doorbell buffer config", command).await {
            Ok(_) => shared.shadows_on.store(true, Ordering::Release),
            Err(NvmeErrorKind::Command { status, .. }) => {
                tracing::info!(device = self.address(), %status, "no shadow doorbells");
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Memory for the queues, the first time; after a reset the same memory is used again.
    fn make_queues(&self, shared: &Shared<B>, cap: Capabilities, granted: u16) -> Result<()> {
        if shared.queues.get().is_some() {
            if usize::from(granted) < shared.queues().len() {
                return Err(NvmeErrorKind::Unsupported(format!(
                    "after a reset it grants {granted} queue pairs, and {} are in use",
                    shared.queues().len()
                )));
            }
            return Ok(());
        }
        let stride = 8 << shared.dstrd;
        let doorbells = (self.registers().len() - register::DOORBELLS) / stride - 1;
        let count = usize::from(self.options.queue_pairs.max(1).min(granted)).min(doorbells);
        let entries = self.options.queue_entries.clamp(2, cap.mqes() as u32 + 1);
        let queues =
            (1..=count as u16).map(|id| self.make_queue(shared, id, entries).map(Arc::new));
        let queues: Vec<_> = queues.collect::<Result<_>>()?;
        let _ = shared.queues.set(queues.into());
        Ok(())
    }

    fn make_queue(&self, shared: &Shared<B>, id: u16, entries: u32) -> Result<QueueShared> {
        let commands = (entries - 1).min(self.options.depth.max(1)) as usize;
        let chunks = (commands * shared.list_stride).div_ceil(LIST_CHUNK);
        let lists = (0..chunks).map(|_| self.backing.alloc_dma(LIST_CHUNK, PAGE));
        let lists = lists.collect::<core::result::Result<Box<[_]>, _>>()?;
        // Vector 0 is the admin queue's. Without masking, a queue that is polled would interrupt for every completion.
        let vector = id;
        let interrupt = if self.options.interrupts && vector < self.backing.interrupt_vectors() {
            self.interrupt(vector)
        } else {
            None
        };
        Ok(QueueShared::new(
            id,
            entries,
            self.backing
                .alloc_dma(entries as usize * COMMAND_BYTES, PAGE)?,
            self.backing
                .alloc_dma(entries as usize * COMPLETION_BYTES, PAGE)?,
            lists,
            interrupt,
        ))
    }

    /// A vector that is masked until a thread wants to sleep. Without one the queue is polled, which always works.
    fn interrupt(&self, vector: u16) -> Option<(u16, OwnedFd)> {
        match self.backing.enable_interrupt(vector) {
            Ok(fd) => self
                .backing
                .mask_interrupt(vector, true)
                .then_some((vector, fd)),
            Err(error) => {
                tracing::warn!(
                    device = self.address(),
                    vector,
                    "a queue is always polled, and its thread never sleeps while I/O is out: {error}"
                );
                None
            }
        }
    }

    /// Creates a queue pair on the device. Its queue pair here does not touch the memory meanwhile.
    pub(crate) async fn create_queue(&self, queue: &QueueShared) -> Result<()> {
        queue.cq.clear();
        queue.made_anew();
        let vector = queue.interrupt.as_ref().map(|(vector, _)| *vector);
        self.command(
            "create I/O completion queue",
            Command::create_cq(queue.id, queue.entries, queue.cq.iova(), vector),
        )
        .await?;
        self.command(
            "create I/O submission queue",
            Command::create_sq(queue.id, queue.entries, queue.sq.iova(), queue.id),
        )
        .await?;
        Ok(())
    }

    /// Deletes a queue pair on the device: afterwards it touches neither the queue nor its commands' memory (Base 5.6, 5.7).
    pub(crate) async fn delete_queue(&self, queue: &QueueShared) -> Result<()> {
        self.command("delete I/O submission queue", Command::delete_sq(queue.id))
            .await?;
        self.command("delete I/O completion queue", Command::delete_cq(queue.id))
            .await?;
        Ok(())
    }
}

fn facts(identity: &IdentifyController, options: &crate::Options, granted: u16) -> Facts {
    let limit = options.max_transfer.clamp(PAGE as u32, LARGEST_TRANSFER);
    let max_transfer = match identity.mdts {
        0 => limit,
        mdts => (PAGE as u32)
            .checked_shl(u32::from(mdts))
            .filter(|bytes| *bytes >= PAGE as u32)
            .map_or(limit, |bytes| bytes.min(limit)),
    };
    // An entry for each page after the first, one more for a buffer that starts inside a page; never across a page.
    let entries = max_transfer as usize / PAGE + 1;
    Facts {
        max_transfer,
        list_stride: (entries * 8).next_power_of_two().clamp(64, PAGE),
        sgl: options.sgl && identity.has_sgl(),
        oncs: identity.oncs,
        granted,
    }
}
