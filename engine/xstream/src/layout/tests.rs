//! DAOS's numbers with one system xstream: ids are two lower than DAOS's, everything else is the same.

use proptest::prelude::*;

use super::*;
use crate::XsType;

mod choice;

fn cores(count: usize) -> Vec<Core> {
    (0..count).map(|cpu| Core::alone(cpu, 0)).collect()
}

fn sockets(nodes: usize, each: usize) -> Vec<Core> {
    (0..nodes * each)
        .map(|cpu| Core::alone(cpu, cpu / each))
        .collect()
}

fn options(targets: u32, helpers: u32) -> LayoutOptions {
    LayoutOptions {
        targets,
        helpers,
        ..LayoutOptions::default()
    }
}

fn layout(targets: u32, helpers: u32) -> Layout {
    Layout::compute(&options(targets, helpers), &cores(64)).unwrap()
}

fn cpus(layout: &Layout) -> Vec<usize> {
    layout.xstreams().iter().map(|xs| xs.cpu).collect()
}

#[test]
fn counts_and_modes() {
    // targets, helpers, mode, xstreams (DAOS: 13, 19, 27, 11, 27; two more each)
    let table = [
        (8, 2, HelperMode::Pool, 11),
        (8, 8, HelperMode::PerTarget(1), 17),
        (8, 16, HelperMode::PerTarget(2), 25),
        (8, 0, HelperMode::PerTarget(0), 9),
        (8, 20, HelperMode::PerTarget(2), 25),
        (1, 1, HelperMode::PerTarget(1), 3),
        (4, 6, HelperMode::Pool, 11),
    ];
    for (targets, helpers, mode, count) in table {
        let layout = layout(targets, helpers);
        assert_eq!(
            (layout.mode(), layout.xstreams().len()),
            (mode, count),
            "t={targets} h={helpers}"
        );
    }
    assert!(layout(8, 20).notes()[0].contains("using 16"));
    assert!(layout(8, 0).notes()[0].contains("no helpers"));
    assert_eq!(layout(8, 8).notes(), [] as [String; 0]);
}

#[test]
fn ids_of_mains_and_helpers() {
    let mains = |t, h| {
        (0..t)
            .map(|target| layout(t, h).main_of(target).unwrap().0)
            .collect::<Vec<_>>()
    };
    assert_eq!(mains(3, 3), [1, 3, 5], "one helper each: 2t + 1");
    assert_eq!(mains(3, 6), [1, 4, 7], "two helpers each: 3t + 1");
    assert_eq!(mains(3, 2), [1, 2, 3], "pool: 1 + t");
    assert_eq!(layout(3, 3).main_of(3), None);
    let names: Vec<String> = layout(2, 2)
        .xstreams()
        .iter()
        .map(XstreamSpec::name)
        .collect();
    assert_eq!(
        names,
        [
            "keel_sys_0",
            "keel_io_0",
            "keel_off_2",
            "keel_io_1",
            "keel_off_4"
        ]
    );
    let order: Vec<u32> = layout(2, 2).start_order().iter().map(|id| id.0).collect();
    assert_eq!(order, [0, 1, 3, 2, 4]);
    assert_eq!(
        (layout(2, 2).by_tag(0), layout(2, 2).by_tag(2)),
        (Some(XstreamId(0)), Some(XstreamId(3)))
    );
    assert_eq!(layout(2, 2).by_tag(3), None);
}

#[test]
fn tags_targets_and_duties() {
    let seen: Vec<_> = layout(2, 2)
        .xstreams()
        .iter()
        .map(|xs| (xs.tags().0, xs.info().tgt_id, xs.device, xs.iofw))
        .collect();
    assert_eq!(
        seen,
        [
            (0xfd, -1, false, false),
            (0xff, 0, true, false),
            (0x08, 0, false, true),
            (0xff, 1, true, false),
            (0x08, 1, false, true)
        ]
    );
    let pool = layout(3, 1);
    assert_eq!(
        (pool.xstreams()[4].target, pool.xstreams()[4].info().tgt_id),
        (None, -1)
    );
    assert!(
        layout(2, 0).xstreams()[1..].iter().all(|xs| xs.iofw),
        "without helpers mains forward themselves"
    );
}

#[test]
fn too_few_cores_are_refused_unless_shared() {
    let error = Layout::compute(&options(4, 0), &cores(4)).unwrap_err();
    assert!(
        matches!(
            error,
            LayoutError::TooFewCores {
                needed: 5,
                available: 4,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("1 system + 4 targets + 0 helpers"),
        "{error}"
    );
    assert!(
        error.to_string().contains("oversubscribe = true"),
        "{error}"
    );
    assert!(Layout::compute(&options(4, 0), &cores(5)).is_ok());
    let shared = LayoutOptions {
        oversubscribe: true,
        ..options(4, 0)
    };
    let layout = Layout::compute(&shared, &cores(2)).unwrap();
    assert_eq!(cpus(&layout), [0, 0, 1, 0, 1], "five xstreams on two cores");
    assert_eq!(layout.cpus(), [0, 1]);
    assert!(
        layout
            .notes()
            .iter()
            .any(|note| note.contains("5 xstreams share 2 cores"))
    );
    assert_eq!(cpus(&Layout::compute(&shared, &cores(1)).unwrap()), [0; 5]);
    assert_eq!(
        cpus(&Layout::compute(&shared, &cores(8)).unwrap()),
        [0, 1, 2, 3, 4],
        "shared only when it must be"
    );
}

#[test]
fn hyper_threads_are_used_only_when_cores_are_shared() {
    let smt: Vec<Core> = (0..4)
        .map(|cpu| Core {
            physical: cpu % 2,
            ..Core::alone(cpu, 0)
        })
        .collect();
    assert!(matches!(
        Layout::compute(&options(2, 0), &smt),
        Err(LayoutError::TooFewCores { available: 2, .. })
    ));
    let shared = LayoutOptions {
        oversubscribe: true,
        ..options(3, 0)
    };
    assert_eq!(cpus(&Layout::compute(&shared, &smt).unwrap()), [0, 1, 2, 3]);
    assert_eq!(
        cpus(
            &Layout::compute(
                &LayoutOptions {
                    targets: 1,
                    ..shared
                },
                &smt
            )
            .unwrap()
        ),
        [0, 1]
    );
}

#[test]
fn linear_placement_starts_at_the_first_core_and_wraps() {
    let from = |first, targets| {
        Layout::compute(
            &LayoutOptions {
                first_core: Some(first),
                ..options(targets, 0)
            },
            &cores(6),
        )
    };
    assert_eq!(cpus(&from(0, 3).unwrap()), [0, 1, 2, 3]);
    assert_eq!(cpus(&from(4, 3).unwrap()), [4, 5, 0, 1]);
    assert_eq!(
        from(6, 3).unwrap_err(),
        LayoutError::FirstCore {
            first_core: 6,
            available: 6
        }
    );
}

#[test]
fn a_single_node_uses_its_own_cores_only() {
    let on = |node, first_core, targets| {
        let options = LayoutOptions {
            numa_node: Some(node),
            first_core,
            ..options(targets, 0)
        };
        Layout::compute(&options, &sockets(2, 4))
    };
    let layout = on(1, None, 3).unwrap();
    assert_eq!(
        (cpus(&layout), layout.placement()),
        (vec![4, 5, 6, 7], Placement::SingleNuma)
    );
    assert_eq!(cpus(&on(1, Some(1), 2).unwrap()), [5, 6, 7]);
    let error = on(1, Some(1), 3).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("3 are usable on NUMA node 1 after skipping 1"),
        "{error}"
    );
    assert_eq!(
        on(2, None, 1).unwrap_err(),
        LayoutError::NumaNode {
            node: 2,
            nodes: vec![0, 1]
        }
    );
    assert_eq!(
        on(0, Some(4), 1).unwrap_err(),
        LayoutError::FirstCore {
            first_core: 4,
            available: 4
        }
    );
}

#[test]
fn several_sockets_are_used_evenly_when_the_numbers_allow() {
    let layout = Layout::compute(&options(4, 2), &sockets(2, 4)).unwrap();
    assert_eq!(layout.placement(), Placement::MultiSocket(2));
    // system; targets 0,1 on node 0; targets 2,3 on node 1; pool helpers one per node.
    assert_eq!(cpus(&layout), [0, 1, 2, 4, 5, 3, 6]);
    let per_target = Layout::compute(&options(2, 2), &sockets(2, 4)).unwrap();
    assert_eq!(
        cpus(&per_target),
        [0, 1, 2, 4, 5],
        "a target's helper is on the target's node"
    );
    let linear = [
        options(3, 0),
        options(4, 1),
        LayoutOptions {
            first_core: Some(0),
            ..options(4, 2)
        },
    ];
    for options in linear {
        assert_eq!(
            Layout::compute(&options, &sockets(2, 4))
                .unwrap()
                .placement(),
            Placement::Linear,
            "{options:?}"
        );
    }
    let mut uneven = sockets(2, 4);
    uneven.pop();
    assert_eq!(
        Layout::compute(&options(4, 2), &uneven)
            .unwrap()
            .placement(),
        Placement::Linear
    );
}

#[test]
fn nonsense_is_named() {
    assert_eq!(
        Layout::compute(&options(0, 0), &cores(4)).unwrap_err(),
        LayoutError::NoTargets
    );
    assert_eq!(
        Layout::compute(&options(1, 0), &[]).unwrap_err(),
        LayoutError::NoCores
    );
    let many = MAX_TARGETS + 1;
    assert_eq!(
        Layout::compute(&options(many, 0), &cores(4)).unwrap_err(),
        LayoutError::TooManyTargets { targets: many }
    );
}

#[test]
fn kinds_of_work_find_their_xstream() {
    let id = |layout: &Layout, kind, target, turn| {
        layout.serves(kind, Some(target), None, turn).unwrap().0
    };
    let one = layout(3, 3);
    assert_eq!(
        (
            id(&one, XsType::Vos, 2, 0),
            id(&one, XsType::Iofw, 2, 0),
            id(&one, XsType::Offload, 2, 0)
        ),
        (5, 6, 6)
    );
    let two = layout(3, 6);
    assert_eq!(
        (
            id(&two, XsType::Iofw, 1, 0),
            id(&two, XsType::Offload, 1, 0)
        ),
        (5, 6),
        "forwarder first, offload last"
    );
    let none = layout(3, 0);
    assert_eq!(
        (
            id(&none, XsType::Iofw, 0, 0),
            id(&none, XsType::Offload, 2, 0)
        ),
        (2, 1),
        "the next main"
    );
    let pool = layout(4, 3);
    assert_eq!(
        (0..4)
            .map(|turn| id(&pool, XsType::Iofw, 0, turn))
            .collect::<Vec<_>>(),
        [5, 6, 7, 5]
    );
    assert_eq!(
        (0..4)
            .map(|target| id(&pool, XsType::Offload, target, 0))
            .collect::<Vec<_>>(),
        [5, 6, 7, 5]
    );
    let large = layout(4, 6);
    assert_eq!(
        (0..5)
            .map(|turn| id(&large, XsType::Iofw, 0, turn))
            .collect::<Vec<_>>(),
        [5, 6, 7, 8, 5]
    );
    assert_eq!(
        (0..4)
            .map(|target| id(&large, XsType::Offload, target, 0))
            .collect::<Vec<_>>(),
        [9, 10, 9, 10]
    );
    let near = Layout::compute(&options(4, 2), &sockets(2, 4)).unwrap();
    assert_eq!(
        (
            id(&near, XsType::Offload, 0, 7),
            id(&near, XsType::Iofw, 3, 7)
        ),
        (5, 6),
        "the helper of the same socket"
    );
    let alone = Layout::compute(&options(4, 0), &sockets(2, 4)).unwrap();
    assert_eq!(
        (
            id(&alone, XsType::Iofw, 1, 0),
            id(&alone, XsType::Offload, 3, 0)
        ),
        (1, 3),
        "the neighbour of the same socket"
    );
}

#[test]
fn work_without_a_place_is_an_error() {
    let layout = layout(2, 0);
    let caller = Some(XstreamId(2));
    assert_eq!(
        layout.serves(XsType::OnSelf, None, caller, 0),
        Ok(XstreamId(2))
    );
    assert_eq!(
        layout.serves(XsType::OnSelf, None, None, 0),
        Err(ServeError::NoCaller)
    );
    for kind in [XsType::Sys, XsType::Swim, XsType::Drpc] {
        assert_eq!(layout.serves(kind, None, caller, 0), Ok(XstreamId(0)));
    }
    assert_eq!(
        layout.serves(XsType::Vos, None, caller, 0),
        Err(ServeError::NeedsTarget { kind: XsType::Vos })
    );
    let missing = ServeError::NoSuchTarget {
        target: 2,
        targets: 2,
    };
    for kind in [XsType::Vos, XsType::Iofw, XsType::Offload] {
        assert_eq!(layout.serves(kind, Some(2), caller, 0), Err(missing));
    }
    assert_eq!(XsType::from_raw(-1), Some(XsType::OnSelf));
    assert_eq!(
        (XsType::from_raw(5), XsType::from_raw(6)),
        (Some(XsType::Drpc), None)
    );
}

proptest! {
    #[test]
    fn every_layout_is_whole(targets in 1u32..40, helpers in 0u32..90, nodes in 1usize..4, each in 1usize..24, share: bool, turn: u32) {
        let cores = sockets(nodes, each);
        let options = LayoutOptions { oversubscribe: share, ..options(targets, helpers) };
        let Ok(layout) = Layout::compute(&options, &cores) else {
            prop_assert!(!share, "with sharing it always works");
            return Ok(());
        };
        let xstreams = layout.xstreams();
        prop_assert!(xstreams.iter().enumerate().all(|(at, xs)| xs.id.0 as usize == at));
        prop_assert!(xstreams.iter().all(|xs| cores.iter().any(|core| core.cpu == xs.cpu && core.node == xs.node)));
        if !share {
            prop_assert_eq!(layout.cpus().len(), xstreams.len(), "no core is shared");
        }
        let mut order = layout.start_order();
        order.sort_unstable();
        prop_assert!(order.iter().enumerate().all(|(at, id)| id.0 as usize == at));
        for target in 0..targets {
            let main = &xstreams[layout.main_of(target).unwrap().0 as usize];
            prop_assert_eq!((main.role, main.target), (Role::Main, Some(target)));
            for kind in [XsType::Iofw, XsType::Offload] {
                let xs = &xstreams[layout.serves(kind, Some(target), None, turn).unwrap().0 as usize];
                prop_assert_eq!(xs.role, if layout.helpers() == 0 { Role::Main } else { Role::Offload });
            }
        }
    }
}
