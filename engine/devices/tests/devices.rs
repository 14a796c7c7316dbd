//! The table and the monitor, without devices.
#![allow(missing_docs, reason = "tests")]

use engine_devices::{
    AssignError, ChangeError, Criteria, DeviceTable, Faulty, Kept, MAX_RECORDS, Monitor, Plugged,
    Sample, State, TableFile,
};
use proptest::prelude::*;
use uuid::Uuid;

fn device(id: u128, targets: &[u32]) -> Plugged {
    Plugged {
        uuid: Uuid::from_u128(id),
        name: format!("d{id}"),
        serial: format!("S{id}"),
        model: "m".into(),
        targets: targets.into(),
        bytes: 1 << 30,
        lasting: true,
    }
}

fn targets(table: &DeviceTable, id: u128) -> Vec<u32> {
    table
        .get(Uuid::from_u128(id))
        .map(|record| record.targets.clone())
        .unwrap_or_default()
}

#[test]
fn a_target_stays_where_its_data_is() {
    let mut table = DeviceTable::default();
    assert_eq!(
        table.reconcile(&[device(1, &[0, 1]), device(2, &[2, 3])]),
        Ok(true)
    );
    assert_eq!(
        table.reconcile(&[device(1, &[0, 1]), device(2, &[2, 3])]),
        Ok(false),
        "nothing new"
    );
    let before = table.clone();
    let error = table
        .reconcile(&[device(1, &[0, 1]), device(3, &[2, 3])])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the data of target 2 is on device `d2` (00000000-0000-0000-0000-000000000002, serial S2), and the configuration puts the target on `d3`: \
         give it that device again, or, if the device is lost with its data, say so with `keel devices set-faulty 00000000-0000-0000-0000-000000000002 --storage-dir DIR`"
    );
    // Two devices that changed places are noticed, too.
    assert!(
        table
            .reconcile(&[device(2, &[0, 1]), device(1, &[2, 3])])
            .is_err()
    );
    assert_eq!(table, before);
    assert_eq!(table.state(Uuid::from_u128(2), false), State::Unplugged);
    assert_eq!(table.state(Uuid::from_u128(3), true), State::New);
}

#[test]
fn the_targets_of_a_faulty_device_may_start_on_another() {
    let mut table = DeviceTable::default();
    table
        .reconcile(&[device(1, &[0]), device(2, &[1])])
        .unwrap();
    assert_eq!(table.set_faulty(Uuid::from_u128(2), "10 errors"), Ok(true));
    assert_eq!(table.set_faulty(Uuid::from_u128(2), "again"), Ok(false));
    assert_eq!(table.get(Uuid::from_u128(2)).unwrap().reason, "10 errors");
    assert_eq!(table.state(Uuid::from_u128(2), true), State::Evicted);
    assert_eq!(
        table.reconcile(&[device(1, &[0]), device(3, &[1])]),
        Ok(true)
    );
    assert_eq!((targets(&table, 2), targets(&table, 3)), (vec![], vec![1]));
    // The old one is still known, and still faulty, when it turns up somewhere.
    assert_eq!(table.state(Uuid::from_u128(2), true), State::Evicted);
    assert_eq!(
        table.set_faulty(Uuid::from_u128(9), "x"),
        Err(ChangeError::Unknown(Uuid::from_u128(9)))
    );
}

#[test]
fn replacing_puts_back_or_moves_and_refuses_the_rest() {
    let id = Uuid::from_u128;
    let mut table = DeviceTable::default();
    table
        .reconcile(&[device(1, &[0]), device(2, &[1])])
        .unwrap();
    assert_eq!(
        table.replace(id(1), &device(1, &[])),
        Err(ChangeError::InUse(id(1)))
    );
    table.set_faulty(id(1), "x").unwrap();
    assert_eq!(
        table.replace(id(1), &device(2, &[])),
        Err(ChangeError::Taken(id(2)))
    );
    assert_eq!(
        table.replace(id(7), &device(2, &[])),
        Err(ChangeError::Unknown(id(7)))
    );
    table.replace(id(1), &device(1, &[])).unwrap();
    assert_eq!(
        (targets(&table, 1), table.get(id(1)).unwrap().state),
        (vec![0], Kept::Normal)
    );
    table.set_faulty(id(1), "x").unwrap();
    table.replace(id(1), &device(5, &[])).unwrap();
    assert_eq!((targets(&table, 1), targets(&table, 5)), (vec![], vec![0]));
    assert_eq!(table.get(id(1)).unwrap().state, Kept::Faulty);
    assert_eq!(
        table.reconcile(&[device(5, &[0]), device(2, &[1])]),
        Ok(false)
    );
}

#[test]
fn a_file_whose_inode_changed_is_known_by_its_name() {
    let file = |id: u128, name: &str| Plugged {
        name: name.into(),
        lasting: false,
        ..device(id, &[0])
    };
    let mut table = DeviceTable::default();
    table.reconcile(&[file(1, "d0")]).unwrap();
    assert_eq!(table.reconcile(&[file(8, "d0")]), Ok(true));
    assert_eq!((table.records().len(), targets(&table, 8)), (1, vec![0]));
    assert!(table.reconcile(&[file(9, "other")]).is_err());
    // One that is plugged under its old uuid did not change it.
    let both = [
        Plugged {
            targets: vec![1],
            ..file(7, "d0")
        },
        Plugged {
            name: "moved".into(),
            ..file(8, "")
        },
    ];
    table.reconcile(&both).unwrap();
    assert_eq!((targets(&table, 7), targets(&table, 8)), (vec![1], vec![0]));
}

#[test]
fn twins_and_a_full_table_are_refused() {
    let mut table = DeviceTable::default();
    let twins = [
        device(1, &[0]),
        Plugged {
            name: "copy".into(),
            ..device(1, &[1])
        },
    ];
    assert!(matches!(
        table.reconcile(&twins),
        Err(AssignError::Twins { .. })
    ));
    let many: Vec<Plugged> = (0..MAX_RECORDS as u32)
        .map(|i| device(u128::from(i) + 1, &[i]))
        .collect();
    table.reconcile(&many).unwrap();
    assert_eq!(
        table.reconcile(&[device(9999, &[9999])]),
        Err(AssignError::Full)
    );
    // One that lost its targets makes room.
    table.set_faulty(Uuid::from_u128(1), "x").unwrap();
    table
        .replace(Uuid::from_u128(1), &device(5000, &[]))
        .unwrap();
    assert_eq!(table.records().len(), MAX_RECORDS);
    assert_eq!(targets(&table, 5000), [0]);
}

#[test]
fn the_file_keeps_the_table_and_notices_every_damage() {
    let dir = tempfile::tempdir().unwrap();
    let file = TableFile::in_dir(dir.path());
    assert_eq!(file.load().unwrap(), DeviceTable::default(), "none yet");
    let mut table = DeviceTable::default();
    table
        .reconcile(&[device(1, &[0]), device(2, &[1])])
        .unwrap();
    table.set_faulty(Uuid::from_u128(2), "10 errors").unwrap();
    file.save(&table).unwrap();
    assert_eq!(file.load().unwrap(), table);
    let path = dir.path().join("devices.table");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        std::fs::write(&path, &damaged).unwrap();
        assert!(file.load().is_err(), "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(file.load().is_err(), "cut after {at} bytes");
    }
    // What a crash in the middle of saving leaves is not looked at.
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(dir.path().join("devices.new"), b"half").unwrap();
    assert_eq!(file.load().unwrap(), table);
    file.save(&DeviceTable::default()).unwrap();
    assert_eq!(file.load().unwrap(), DeviceTable::default());
}

#[test]
fn a_device_is_faulty_by_daos_criteria() {
    let errors = |read_errors, write_errors| Sample {
        read_errors,
        write_errors,
        ..Sample::default()
    };
    let mut monitor = Monitor::new(Criteria::default());
    assert_eq!(monitor.look(errors(5, 5)), None);
    assert_eq!(
        monitor.look(errors(5, 6)),
        Some(Faulty::IoErrors {
            errors: 11,
            limit: 10
        })
    );
    monitor.readmitted();
    assert_eq!(
        monitor.look(errors(8, 12)),
        None,
        "nine since it was put back"
    );
    assert_eq!(
        monitor.look(errors(8, 14)),
        Some(Faulty::IoErrors {
            errors: 11,
            limit: 10
        })
    );
    let checksum = Sample {
        checksum_errors: 1 << 40,
        ..Sample::default()
    };
    assert_eq!(Monitor::new(Criteria::default()).look(checksum), None);
    let strict = Criteria {
        max_csum_errs: 3,
        ..Criteria::default()
    };
    assert!(Monitor::new(strict).look(checksum).is_some());
    let off = Criteria {
        enabled: false,
        ..strict
    };
    assert_eq!(Monitor::new(off).look(errors(1000, 1000)), None);
    let stalled = Sample {
        stalled: 1,
        ..Sample::default()
    };
    assert_eq!(Monitor::new(off).look(stalled), Some(Faulty::Stalled));
    assert_eq!(
        Monitor::new(strict).look(Sample {
            gone: true,
            ..errors(99, 99)
        }),
        None,
        "it may come back"
    );
    let unlimited = Criteria {
        max_io_errs: 0,
        ..Criteria::default()
    };
    assert_eq!(Monitor::new(unlimited).look(errors(1000, 1000)), None);
    assert_eq!((Monitor::period(true), Monitor::period(false)), (60, 3));
}

proptest! {
    /// Whatever is done, each target is on one device, and survives the file.
    #[test]
    fn a_target_is_never_on_two_devices(steps in proptest::collection::vec((0u8..3, 1u128..6, 1u128..6), 1..40)) {
        let mut table = DeviceTable::default();
        table.reconcile(&[device(1, &[0, 1]), device(2, &[2, 3])]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = TableFile::in_dir(dir.path());
        for (what, a, b) in steps {
            let _ = match what {
                0 => table.set_faulty(Uuid::from_u128(a), "x").is_ok(),
                1 => table.replace(Uuid::from_u128(a), &device(b, &[])).is_ok(),
                _ => table.reconcile(&[device(a, &[0, 1]), device(b, &[2, 3])]).is_ok(),
            };
            let mut all: Vec<u32> = table.records().iter().flat_map(|record| record.targets.clone()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, vec![0, 1, 2, 3]);
        }
        file.save(&table).unwrap();
        prop_assert_eq!(file.load().unwrap(), table);
    }
}

#[test]
fn a_device_that_grew_keeps_its_shares_and_one_that_shrank_is_refused() {
    let mut table = DeviceTable::default();
    assert_eq!(table.reconcile(&[device(1, &[0, 1])]), Ok(true));
    let sized = |bytes| Plugged {
        bytes,
        ..device(1, &[0, 1])
    };
    assert_eq!(table.reconcile(&[sized(2 << 30)]), Ok(false));
    assert_eq!(table.records()[0].bytes, 1 << 30);
    let error = table.reconcile(&[sized(1 << 20)]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("device `d1` (00000000-0000-0000-0000-000000000001) has 1048576 bytes and had 1073741824"),
        "{error}"
    );
    // Lost with its data: a smaller one may take its place.
    table.set_faulty(Uuid::from_u128(1), "lost").unwrap();
    let smaller = Plugged {
        bytes: 1 << 20,
        ..device(2, &[0, 1])
    };
    assert_eq!(table.reconcile(&[smaller]), Ok(true));
    assert_eq!(table.get(Uuid::from_u128(2)).unwrap().bytes, 1 << 20);
}
