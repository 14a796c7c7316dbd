//! A device that answers nonsense: whatever registers and completions say, the driver neither panics nor hangs, gives every buffer back,
//! and never lets the device reach for memory that it was not given. Cases that once failed are kept in `hostile.regressions`.
#![allow(missing_docs, reason = "tests")]

mod rig;

use nvme_fake::{FakeController, FakeOptions, Fault, Match, RegisterFault, Wrong};
use nvme_spec::{Status, register};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rig::{Rig, quick};
use spdk_nvme::{ControllerState, Io, IoKind, Options};

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        (0u16..0x7fff).prop_map(|bits| Wrong::Status(Status(bits))),
        (0u16..0x7fff).prop_map(|bits| Wrong::Torn(Status(bits))),
        Just(Wrong::Lost),
        (0u32..400).prop_map(Wrong::Late),
        Just(Wrong::Duplicate),
        any::<u16>().prop_map(Wrong::AndUnknown),
        Just(Wrong::WrongPhase),
        any::<u16>().prop_map(Wrong::WrongQueue),
        any::<u16>().prop_map(Wrong::WrongHead),
        Just(Wrong::Remove),
        Just(Wrong::Fatal),
        Just(Wrong::Hang),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let to = (
        proptest::option::of(0u16..3),
        proptest::option::of(0u8..16),
        0u32..40,
    );
    (to, wrong(), 1u32..6).prop_map(|((queue, opcode, skip), wrong, times)| Fault {
        to: Match {
            queue,
            opcode,
            lba: None,
            skip,
        },
        wrong,
        times,
    })
}

fn registers() -> impl Strategy<Value = RegisterFault> {
    let offset = prop_oneof![
        Just(register::CAP),
        Just(register::CAP + 4),
        Just(register::VS),
        Just(register::CC),
        Just(register::CSTS),
        Just(register::CMBSZ)
    ];
    prop_oneof![
        4 => Just(RegisterFault::None),
        2 => (offset, any::<u32>()).prop_map(|(offset, value)| RegisterFault::Value { offset, value }),
        1 => (0u64..200).prop_map(RegisterFault::AllOnesAfter),
        2 => proptest::collection::vec(prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), Just(1)], 1..60).prop_map(RegisterFault::Noise),
    ]
}

/// Attach, I/O with a reset in the middle, shutdown: all of it bounded.
fn live(rig: &mut Rig) {
    if rig.attach().is_err() {
        return;
    }
    let namespaces = rig.controller.namespaces();
    let Some(namespace) = namespaces.iter().find(|ns| ns.refused.is_none()) else {
        return;
    };
    let target = namespace.target();
    let Ok(seed) = rig.controller.queue_pair() else {
        return;
    };
    let mut pair = seed.attach();
    let (mut submitted, mut finished) = (0u32, 0);
    for round in 0..100_000u64 {
        if submitted < 60 {
            let kind = [
                IoKind::Write,
                IoKind::Read,
                IoKind::Flush,
                IoKind::Deallocate,
            ][round as usize % 4];
            let blocks = if kind == IoKind::Flush {
                0
            } else {
                8.min(namespace.blocks) as u32
            };
            let mut io = Io::new(kind, 0, blocks);
            if kind.has_data() {
                io = io.with_buf(rig.pool.get().unwrap());
            }
            submitted += u32::from(pair.submit(&target, io).is_ok());
        }
        if round == 30 {
            rig.controller.request_reset();
        }
        finished += pair.poll(rig.now(), |done| {
            assert!(done.io.buf.is_some() || !done.io.kind.has_data())
        });
        rig.turn();
        if finished == submitted && submitted == 60 {
            break;
        }
    }
    assert_eq!(
        finished,
        submitted,
        "I/O hangs; controller {:?}",
        rig.controller.state()
    );
    rig.controller.shut_down();
    for _ in 0..20_000 {
        if matches!(
            rig.controller.state(),
            ControllerState::ShutDown | ControllerState::Failed(_)
        ) {
            break;
        }
        pair.poll(rig.now(), |_| ());
        rig.turn();
    }
    let state = rig.controller.state();
    assert!(
        matches!(
            state,
            ControllerState::ShutDown | ControllerState::Failed(_)
        ),
        "{state:?}"
    );
}

/// Cases of one run; seeds differ from run to run.
const CASES: u32 = 2_000;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nonsense_of_any_kind_is_survived(
        faults in proptest::collection::vec(fault(), 0..6),
        registers in registers(),
        late_registers in registers(),
        shadow_doorbells in any::<bool>(),
        mdts in any::<u8>(),
    ) {
        let fake = FakeController::new(FakeOptions { shadow_doorbells, mdts, ..FakeOptions::default() });
        faults.into_iter().for_each(|fault| fake.inject(fault));
        fake.inject_register(registers);
        let options = Options { queue_pairs: 2, queue_entries: 16, reset_attempts: 2, retries: 2, ..quick() };
        let mut rig = Rig::bare(fake, options);
        live(&mut rig);
        rig.fake.inject_register(late_registers);
        (0..100).for_each(|_| rig.turn());
        let Rig { fake, controller, pool, .. } = rig;
        drop(controller);
        fake.step();
        prop_assert_eq!(fake.observed().dma_faults, 0);
        prop_assert_eq!(pool.available(), pool.count());
    }
}
