//! Which core is better than another: isolated ones, hyper-threads, the operator's list, near devices.

use super::*;

fn isolate(mut cores: Vec<Core>, cpus: &[usize]) -> Vec<Core> {
    for core in &mut cores {
        core.isolated = cpus.contains(&core.cpu);
    }
    cores
}

/// Cores whose hyper-threads have numbers next to each other: 0 and 1, 2 and 3, ...
fn paired(count: usize) -> Vec<Core> {
    let core = |cpu| Core {
        physical: cpu & !1,
        ..Core::alone(cpu, 0)
    };
    (0..count).map(core).collect()
}

#[test]
fn isolated_cores_are_for_mains_and_the_others_for_the_system() {
    let isolated = isolate(cores(6), &[2, 3, 4, 5]);
    let place = |targets, helpers| Layout::compute(&options(targets, helpers), &isolated).unwrap();
    assert_eq!(cpus(&place(4, 0)), [0, 2, 3, 4, 5]);
    assert_eq!(
        cpus(&place(2, 2)),
        [0, 2, 4, 3, 5],
        "helpers take isolated ones that mains leave"
    );
    let five = place(5, 0);
    assert_eq!(cpus(&five), [0, 2, 3, 4, 5, 1]);
    let said = "1 of 5 mains run on cores that are not isolated: 4 are";
    assert!(
        five.notes().iter().any(|note| note == said),
        "{:?}",
        five.notes()
    );
    let all = Layout::compute(&options(1, 0), &isolate(cores(2), &[0, 1])).unwrap();
    assert_eq!(cpus(&all), [0, 1]);
    assert!(all.notes()[1].starts_with("the system xstream runs on an isolated core"));
    // Shared: one isolated core for both mains would be worse than none.
    let shared = LayoutOptions {
        oversubscribe: true,
        ..options(2, 0)
    };
    let shared = Layout::compute(&shared, &isolate(cores(2), &[0])).unwrap();
    assert_eq!(cpus(&shared), [1, 0, 1]);
}

#[test]
fn two_mains_share_a_physical_core_only_when_none_is_free() {
    let shared = |targets, helpers| {
        let options = LayoutOptions {
            oversubscribe: true,
            ..options(targets, helpers)
        };
        cpus(&Layout::compute(&options, &paired(8)).unwrap())
    };
    assert_eq!(shared(3, 0), [0, 2, 4, 6], "four physical cores for four");
    assert_eq!(
        shared(3, 3),
        [0, 2, 1, 4, 3, 6, 5],
        "helpers take the second threads"
    );
    let list = LayoutOptions {
        cpus: Some((0..8).collect()),
        ..options(3, 0)
    };
    let named = |options: &LayoutOptions| cpus(&Layout::compute(options, &paired(8)).unwrap());
    assert_eq!(named(&list), [0, 2, 4, 6], "also of a list");
    assert_eq!(
        named(&LayoutOptions { targets: 5, ..list }),
        [0, 2, 4, 6, 1, 3]
    );
}

#[test]
fn a_list_is_taken_in_its_order_and_nothing_else_is_used() {
    let with = |cpus: &[usize], targets| LayoutOptions {
        cpus: Some(cpus.to_vec()),
        ..options(targets, 0)
    };
    let layout = Layout::compute(&with(&[5, 2, 3, 4], 2), &sockets(2, 4)).unwrap();
    assert_eq!(
        (cpus(&layout), layout.placement()),
        (vec![5, 2, 3], Placement::Linear)
    );
    let error = |cpus: &[usize], targets| {
        Layout::compute(&with(cpus, targets), &sockets(2, 4))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(&[1, 2], 4),
        "5 cores are needed (1 system + 4 targets + 0 helpers) but 2 are usable in cpus = 1-2; \
         use fewer targets or helpers, or set oversubscribe = true to let xstreams share cores"
    );
    assert_eq!(
        error(&[1, 8, 9], 1),
        "cpus: 8-9 cannot be used; usable: 0-7"
    );
    assert_eq!(error(&[1, 2, 1], 1), "cpus: CPU 1 is named twice");
    assert_eq!(error(&[], 1), LayoutError::NoCores.to_string());
    let shared = LayoutOptions {
        oversubscribe: true,
        ..with(&[6], 3)
    };
    assert_eq!(
        cpus(&Layout::compute(&shared, &sockets(2, 4)).unwrap()),
        [6; 4]
    );
}

#[test]
fn targets_are_placed_near_their_devices() {
    let near = |nodes: &[Option<usize>], helpers, cores: &[Core]| {
        let options = LayoutOptions {
            target_nodes: nodes.to_vec(),
            ..options(nodes.len() as u32, helpers)
        };
        Layout::compute(&options, cores).unwrap()
    };
    let both = sockets(2, 4);
    let layout = near(&[Some(1), Some(0), Some(1)], 0, &both);
    assert_eq!(
        (cpus(&layout), layout.placement()),
        (vec![0, 4, 1, 5], Placement::NearDevices)
    );
    let neighbours = [0, 1, 2].map(|t| layout.serves(XsType::Offload, Some(t), None, 0).unwrap().0);
    assert_eq!(
        neighbours,
        [3, 2, 1],
        "the next main of the same node, or its own"
    );
    // All devices on node 0: the system xstream leaves its cores to them, the fifth target goes without.
    let crowded = near(&[Some(0); 5], 0, &both);
    assert_eq!(cpus(&crowded), [4, 0, 1, 2, 3, 5]);
    let said = "target 4 runs on NUMA node 1: node 0, where its device is, has no core left";
    assert!(
        crowded.notes().iter().any(|note| note == said),
        "{:?}",
        crowded.notes()
    );
    // A target of an unknown device does not take a core from one that is known.
    assert_eq!(cpus(&near(&[None, Some(0)], 0, &sockets(2, 2))), [0, 2, 1]);
    // Helpers of a target on its node; a pool in proportion to the targets.
    assert_eq!(cpus(&near(&[Some(1), Some(0)], 2, &both)), [0, 4, 5, 1, 2]);
    let pool = near(&[Some(1), Some(1), Some(0)], 2, &sockets(2, 6));
    assert_eq!(
        pool.xstreams()[4..]
            .iter()
            .map(|xs| xs.node)
            .collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(
        pool.serves(XsType::Iofw, Some(2), None, 1).unwrap().0,
        5,
        "no helper near: all are asked"
    );
    // Nodes without cores, and a first core or a node that the operator chose, are left alone.
    assert_eq!(near(&[Some(9)], 1, &both).placement(), Placement::Linear);
    let first = LayoutOptions {
        first_core: Some(1),
        target_nodes: vec![Some(1)],
        ..options(1, 0)
    };
    assert_eq!(cpus(&Layout::compute(&first, &both).unwrap()), [1, 2]);
}
