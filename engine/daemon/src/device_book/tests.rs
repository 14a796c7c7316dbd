//! The book and its watch over emulated SSDs: removal, return, strangers, namespaces that change, devices that fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bdev_nvme::DriverOptions;
use nvme_fake::{FakeController, FakeOptions, Fault, Match, NamespaceOptions, Running, Wrong};
use nvme_spec::opcode::io;
use nvme_spec::status;
use spdk_bdev::testing::drive;
use spdk_bdev::{Channel, Descriptor, Mode};
use spdk_env::DmaBuf;
use spdk_thread::{Thread, ThreadOptions};

use super::*;

const SLOT: &str = "0000:05:00.0";

/// One slot, and what is in it.
#[derive(Default)]
struct OneBay {
    inside: Mutex<Option<(u64, FakeController)>>,
    /// Answers of attempts to attach, before there is nothing against it.
    refusals: Mutex<Vec<String>>,
    number: AtomicU64,
}

impl OneBay {
    fn put(&self, fake: Option<&FakeController>) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        *self.inside.lock().unwrap() = fake.map(|fake| (number, fake.clone()));
    }
}

fn bring_up(fake: FakeController, book: Sender<Ask>) -> Result<Arc<NvmeDevice>, String> {
    let options = DriverOptions {
        queue_pairs: 4,
        ..DriverOptions::default()
    };
    let tell = move |event| drop(book.send(Ask::Ssd(SLOT.to_owned(), event)));
    let ssd = NvmeDevice::attach(Arc::new(fake), &options, tell);
    ssd.map(Arc::new).map_err(|error| error.to_string())
}

impl Bays for OneBay {
    fn occupant(&self, address: &str) -> Option<u64> {
        assert_eq!(address, SLOT);
        let inside = self.inside.lock().unwrap();
        inside.as_ref().map(|(number, _)| *number)
    }

    fn attach(&self, address: &str, book: Sender<Ask>) -> Result<Arc<NvmeDevice>, String> {
        assert_eq!(address, SLOT);
        if let Some(why) = self.refusals.lock().unwrap().pop() {
            return Err(why);
        }
        let fake = self.inside.lock().unwrap().clone();
        let (_, fake) = fake.ok_or("it was pulled again")?;
        bring_up(fake, book)
    }
}

struct Rig {
    bay: Arc<OneBay>,
    registry: Registry,
    book: DeviceBook,
    thread: Thread,
    fake: FakeController,
    running: Vec<Running>,
    _dir: tempfile::TempDir,
}

fn fake(serial: &str, namespaces: &[u64]) -> FakeController {
    let namespaces = namespaces.iter();
    FakeController::new(FakeOptions {
        address: SLOT.into(),
        serial: serial.into(),
        namespaces: namespaces
            .map(|blocks| NamespaceOptions::new(*blocks, 9))
            .collect(),
        ..FakeOptions::default()
    })
}

impl Rig {
    /// Devices `n1`, `n2`, ... on an SSD's namespaces, with a target each.
    fn new(namespaces: &[u64]) -> Rig {
        let fake = fake("FAKE0001", namespaces);
        let (bay, mailbox) = (Arc::new(OneBay::default()), DeviceBook::mailbox());
        bay.put(Some(&fake));
        let running = vec![fake.run()];
        let ssd = bay.attach(SLOT, mailbox.0.clone()).unwrap();
        let (registry, mut opened) = (Registry::new(), Vec::new());
        for (target, namespace) in (0..).zip(ssd.namespaces()) {
            let bdev = ssd
                .bdev(&format!("n{}", namespace.nsid), namespace.nsid)
                .unwrap();
            opened.push(Opened {
                plugged: Plugged {
                    uuid: bdev.uuid(),
                    name: bdev.name().to_owned(),
                    serial: ssd.serial().to_owned(),
                    model: ssd.model().to_owned(),
                    targets: vec![target],
                    bytes: bdev.geometry().bytes(),
                    lasting: true,
                },
                hosted: None,
                ssd: Some(OnSsd {
                    address: SLOT.to_owned(),
                    namespace: namespace.nsid,
                    block_size: bdev.geometry().block_size,
                    ssd: Some(Arc::clone(&ssd)),
                }),
                is_kept: true,
            });
            registry.register(bdev).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let criteria = Criteria {
            max_io_errs: 2,
            ..Criteria::default()
        };
        let book = DeviceBook::open(
            TableFile::in_dir(dir.path()),
            &registry,
            opened,
            criteria,
            Ras::new(None),
            bay.clone(),
            mailbox,
        );
        Rig {
            bay,
            registry,
            book: book.unwrap(),
            thread: Thread::new("t", ThreadOptions::default()),
            fake,
            running,
            _dir: dir,
        }
    }

    fn open(&self, name: &str) -> Descriptor {
        self.registry.open(name, Mode::ReadWrite, "test").unwrap()
    }

    fn channel(&self, descriptor: &Descriptor) -> Result<Channel, String> {
        let channel = descriptor.get_channel(&self.thread);
        channel.map_err(|error| error.to_string())
    }

    fn write(&self, channel: &Channel, byte: u8) -> Result<(), String> {
        let mut buf = DmaBuf::alloc(512).unwrap();
        buf.as_mut_slice().fill(byte);
        let channel = channel.clone();
        let written = drive(&self.thread, async move {
            channel.write(9, 1, buf, false).await.0
        });
        written.map_err(|error| error.to_string())
    }

    fn read(&self, channel: &Channel) -> Result<u8, String> {
        let channel = channel.clone();
        let (result, buf) = drive(&self.thread, async move {
            channel.read(9, 1, DmaBuf::alloc(512).unwrap()).await
        });
        let byte = buf.as_slice()[511];
        result.map(|()| byte).map_err(|error| error.to_string())
    }

    /// Has the devices looked at until it is so.
    fn eventually(&self, what: &str, so: impl Fn() -> bool) {
        for _ in 0..1000 {
            let (sender, looked) = oneshot::channel();
            self.book.send(Ask::Look(sender));
            drive(&self.thread, looked).unwrap();
            if so() {
                return;
            }
            // For threads that attach.
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{what}: {:?}", self.book.describe("n1"));
    }

    fn is(&self, name: &str, state: State) -> bool {
        self.book.describe(name).state == state.as_str()
    }

    fn ask(&self, question: impl FnOnce(oneshot::Sender<keel::Ack>) -> Ask) {
        let (sender, answer) = oneshot::channel();
        self.book.send(question(sender));
        let ack = drive(&self.thread, answer).unwrap();
        assert_eq!((ack.status, ack.error.as_str()), (0, ""));
    }

    fn uuid(&self, name: &str) -> Uuid {
        self.registry.get(name).unwrap().uuid()
    }

    /// Pulls the SSD, and waits until the book knows and the slot is empty.
    fn pull(&self) {
        self.fake.remove();
        self.eventually("it is unplugged", || self.is("n1", State::Unplugged));
        self.bay.put(None);
        self.eventually("the slot is empty", || {
            self.book.shared.lock().slots.get(SLOT) == Some(&Slot::Empty)
        });
    }

    /// Puts the SSD back.
    fn put_back(&mut self) {
        self.fake = self.fake.reinsert();
        self.running.push(self.fake.run());
        self.bay.put(Some(&self.fake));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.book.stop();
        self.book.shut_ssds_down();
        assert_eq!(self.fake.observed().dma_faults, 0);
    }
}

#[test]
fn an_ssd_that_is_pulled_and_put_back_serves_its_targets_again_with_their_data() {
    let mut rig = Rig::new(&[1000, 2000]);
    let (first, second) = (rig.open("n1"), rig.open("n2"));
    let (old, other) = (rig.channel(&first).unwrap(), rig.channel(&second).unwrap());
    rig.write(&old, 7).unwrap();
    rig.write(&other, 8).unwrap();
    for _ in 0..3 {
        rig.pull();
        assert_eq!(rig.book.describe("n2").reason, "it was removed");
        assert!(rig.read(&old).is_err());
        assert!(rig.channel(&first).unwrap_err().contains("removed"));
        rig.put_back();
        rig.eventually("it is back", || rig.is("n1", State::Normal));
        assert!(rig.is("n2", State::Normal) && rig.book.describe("n1").reason.is_empty());
        assert!(rig.book.shared.lock().slots.is_empty());
        assert!(rig.read(&old).is_err(), "what was open stays dead");
        let (first, second) = (rig.channel(&first).unwrap(), rig.channel(&second).unwrap());
        assert_eq!((rig.read(&first), rig.read(&second)), (Ok(7), Ok(8)));
        rig.write(&first, 7).unwrap();
    }
    // More I/O failed than makes a device faulty: not one of them because of the device.
    rig.eventually("it stays", || rig.is("n1", State::Normal));
}

#[test]
fn another_ssd_in_its_slot_is_new_and_left_alone() {
    let mut rig = Rig::new(&[1000]);
    rig.pull();
    let other = fake("OTHER", &[1000]);
    rig.running.push(other.run());
    rig.bay.put(Some(&other));
    rig.eventually("it is noticed", || !rig.book.strangers().is_empty());
    let (address, stranger) = rig.book.strangers().remove(0);
    assert_eq!(
        (address.as_str(), stranger.serial.as_str()),
        (SLOT, "OTHER")
    );
    assert_ne!(stranger.uuid, rig.uuid("n1"));
    for word in ["serial OTHER", "n1", "FAKE0001", "keel devices set-faulty"] {
        assert!(stranger.advice.contains(word), "{}", stranger.advice);
    }
    let seen = other.observed();
    assert_eq!((seen.shutdowns, other.io_queues()), (1, 0));
    assert!(rig.is("n1", State::Unplugged));
    // It is not asked again and again who it is.
    rig.eventually("a look", || true);
    assert_eq!(other.observed().enables, seen.enables);
    rig.bay.put(None);
    rig.eventually("it went", || rig.book.strangers().is_empty());
    rig.put_back();
    rig.eventually("the right one is back", || rig.is("n1", State::Normal));
}

#[test]
fn an_evicted_ssd_that_comes_back_stays_out_until_somebody_lets_it_in() {
    let mut rig = Rig::new(&[1000]);
    let (uuid, descriptor) = (rig.uuid("n1"), rig.open("n1"));
    rig.write(&rig.channel(&descriptor).unwrap(), 5).unwrap();
    rig.ask(|answer| Ask::SetFaulty(uuid, answer));
    assert!(rig.is("n1", State::Evicted));
    rig.pull();
    rig.put_back();
    rig.eventually("it is back", || rig.is("n1", State::Evicted));
    assert_eq!(rig.book.describe("n1").reason, "set faulty by an operator");
    assert!(rig.channel(&descriptor).is_err());
    rig.ask(|answer| Ask::Replace(uuid, uuid, answer));
    assert!(rig.is("n1", State::Normal));
    assert_eq!(rig.read(&rig.channel(&descriptor).unwrap()), Ok(5));
}

#[test]
fn one_that_cannot_be_taken_is_tried_again() {
    let mut rig = Rig::new(&[1000]);
    rig.pull();
    let why = "it is bound to nvme; cure: keel node prepare";
    // Enough until one is seen between two attempts.
    *rig.bay.refusals.lock().unwrap() = vec![why.into(); 10_000];
    rig.put_back();
    rig.eventually("it is refused", || {
        let slots = &rig.book.shared.lock().slots;
        slots.get(SLOT) == Some(&Slot::Refused(why.into()))
    });
    rig.bay.refusals.lock().unwrap().clear();
    rig.eventually("it is back", || rig.is("n1", State::Normal));
}

#[test]
fn a_namespace_that_came_back_smaller_is_not_let_in_beside_one_that_is_as_it_was() {
    let mut rig = Rig::new(&[1000, 2000]);
    rig.pull();
    rig.fake.set_namespace(2, NamespaceOptions::new(1999, 9));
    rig.put_back();
    rig.eventually("the first is back", || rig.is("n1", State::Normal));
    assert!(rig.is("n2", State::Unplugged));
    let second = rig.open("n2");
    assert!(rig.channel(&second).is_err());
}

#[test]
fn namespaces_that_go_or_shrink_take_their_targets_down_and_others_stay() {
    let rig = Rig::new(&[1000, 2000, 3000]);
    rig.fake.set_namespace(3, NamespaceOptions::new(4000, 9));
    rig.fake.set_namespace(2, NamespaceOptions::new(1500, 9));
    rig.eventually("it shrank", || rig.is("n2", State::Unplugged));
    assert_eq!(
        rig.book.describe("n2").reason,
        "its namespace shrank from 1024000 to 768000 bytes"
    );
    rig.fake.remove_namespace(1);
    rig.eventually("it is deleted", || rig.is("n1", State::Unplugged));
    assert_eq!(rig.book.describe("n1").reason, "its namespace was deleted");
    assert!(rig.is("n3", State::Normal));
    let third = rig.open("n3");
    assert_eq!(rig.read(&rig.channel(&third).unwrap()), Ok(0));
}

#[test]
fn a_device_that_fails_more_often_than_allowed_is_evicted_and_its_health_is_told() {
    let rig = Rig::new(&[1000]);
    let descriptor = rig.open("n1");
    let channel = rig.channel(&descriptor).unwrap();
    let reads = Match {
        opcode: Some(io::READ),
        ..Match::queue(1)
    };
    let unreadable = Wrong::Status(status::UNRECOVERED_READ);
    rig.fake.inject(Fault::always(reads, unreadable));
    for _ in 0..2 {
        rig.read(&channel).unwrap_err();
    }
    rig.eventually("a look", || true);
    assert!(rig.is("n1", State::Normal), "two are allowed");
    rig.read(&channel).unwrap_err();
    rig.eventually("it is evicted", || rig.is("n1", State::Evicted));
    let known = rig.book.describe("n1");
    assert_eq!(known.reason, "3 reads and writes failed, more than 2");
    assert_eq!(known.health.unwrap().media_errors, 3);
    assert_eq!(
        (known.pages.errors.len(), known.pages.errors[0].count),
        (3, 3)
    );
    assert!(rig.write(&channel, 1).unwrap_err().contains("evicted"));
    // Nobody is asked twice, and a restart finds it in the table.
    let table = rig.book.shared.file.load().unwrap();
    assert_eq!(table.state(rig.uuid("n1"), true), State::Evicted);
}
