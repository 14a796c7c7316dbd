//! DAOS's scenarios (`src/tests/ftest/cart/iv`) and the rules of `crt_iv.c` and `server_iv.c`, line by line; docs/internals/iv.md maps them.

#![allow(missing_docs, reason = "a test")]

mod net;

use daos_errno::Der;
use engine_iv::{Body, Group, How, INLINE, Iv, Key, Options, Shortcut, Sync, Tree};
use net::{BUDGET, NS, Net, Plain, key, value};

const NOWHERE: Result<engine_iv::Value, Der> = Err(Der::NONEXIST);

#[test]
fn an_unset_variable_is_nowhere() {
    let mut net = Net::new(5);
    for rank in [0, 1, 4] {
        assert_eq!(net.fetch(rank, 42), NOWHERE);
    }
}

#[test]
fn an_update_at_the_root_is_fetched_by_all_and_kept_on_the_way() {
    let mut net = Net::new(5);
    net.update(0, 42, "potato", Sync::None).unwrap();
    assert_eq!(net.cached(3, 42), None, "sync none tells nobody");
    assert_eq!(net.all_fetch(42), vec![Ok(value("potato")); 5]);
    assert_eq!(net.cached(3, 42), Some(value("potato")));
}

#[test]
fn an_invalidation_with_eager_sync_is_seen_by_all() {
    let mut net = Net::new(5);
    net.update(0, 42, "potato", Sync::Eager).unwrap();
    assert!((0..5).all(|rank| net.cached(rank, 42) == Some(value("potato"))));
    net.invalidate(0, 42, Sync::Eager).unwrap();
    assert_eq!(net.all_fetch(42), vec![NOWHERE; 5]);
}

#[test]
fn ranks_with_another_group_version_refuse_until_they_agree() {
    let mut net = Net::new(5);
    net.update(0, 1, "at 0", Sync::None).unwrap();
    net.group_of(0, 2);
    assert_eq!(
        net.fetch(1, 1),
        Err(Der::GRPVER),
        "the root has another version"
    );
    net.group(2);
    assert_eq!(net.fetch(1, 1), Ok(value("at 0")));
    net.lead(1, 2);
    net.group_of(0, 3);
    assert_eq!(
        net.fetch(0, 2),
        Err(Der::GRPVER),
        "the requester has another version"
    );
}

#[test]
fn a_version_that_changes_at_the_requester_before_it_sends_does_no_harm() {
    let mut net = Net::new(5);
    net.update(0, 1, "value", Sync::None).unwrap();
    net.group_of(3, 2);
    let op = net.start_fetch(3, 1);
    net.group(2);
    assert_eq!(net.result(3, op).unwrap().value, Some(value("value")));
}

#[test]
fn a_version_that_changes_at_the_parent_while_it_asks_is_refused_to_the_child() {
    // 0 is the root, 4 its child, 5 a child of 4.
    let mut net = Net::new(6);
    net.update(0, 1, "value", Sync::None).unwrap();
    net.start_fetch(5, 1);
    assert!(net.step(), "5 asks 4");
    net.group_of(4, 2);
    net.group_of(0, 2);
    for _ in 0..20 {
        net.step();
        let told = net
            .flying()
            .iter()
            .find_map(|(from, to, message)| match &message.body {
                Body::Fetched { result, .. } if (*from, *to) == (4, 5) => Some(result.clone()),
                _ => None,
            });
        if let Some(result) = told {
            assert_eq!(result.unwrap_err(), Der::GRPVER);
            return;
        }
    }
    panic!("4 never answered 5");
}

#[test]
fn an_update_goes_to_a_root_elsewhere_and_so_does_an_invalidation() {
    let mut net = Net::new(5);
    net.lead(4, 2);
    net.update(0, 7, "from 0", Sync::None).unwrap();
    assert_eq!(net.all_fetch(7), vec![Ok(value("from 0")); 5]);
    net.invalidate(4, 7, Sync::Eager).unwrap();
    assert_eq!(net.all_fetch(7), vec![NOWHERE; 5]);
}

#[test]
fn an_eager_update_past_a_rank_of_another_version_fails_and_stays_where_it_arrived() {
    let mut net = Net::new(5);
    net.group_of(4, 2);
    assert_eq!(net.update(0, 42, "partial", Sync::Eager), Err(Der::GRPVER));
    assert_eq!(
        (net.cached(0, 42), net.cached(1, 42)),
        (Some(value("partial")), Some(value("partial")))
    );
    assert_eq!(net.fetch(4, 42), Err(Der::GRPVER));
    net.group(2);
    net.invalidate(0, 42, Sync::Eager).unwrap();
    assert_eq!(net.all_fetch(42), vec![NOWHERE; 5]);
}

#[test]
fn two_ranks_do_the_same() {
    let mut net = Net::new(2);
    assert_eq!(net.fetch(1, 1), NOWHERE);
    net.update(1, 1, "two", Sync::None).unwrap();
    assert_eq!(net.all_fetch(1), vec![Ok(value("two")); 2]);
    net.invalidate(1, 1, Sync::Eager).unwrap();
    assert_eq!(net.all_fetch(1), vec![NOWHERE; 2]);
}

#[test]
fn what_is_not_registered_does_not_exist() {
    let mut net = Net::new(2);
    assert_eq!(net.iv(0).register(1, Box::new(Plain)), Err(Der::EXIST));
    let stranger = Key::new(9, &[1]).unwrap();
    let op = net.iv(1).fetch(0, NS, stranger, Shortcut::None, BUDGET);
    assert_eq!(net.result(1, op), Err(Der::NONEXIST));
    let op = net.iv(1).fetch(0, NS + 1, key(1), Shortcut::None, BUDGET);
    assert_eq!(net.result(1, op), Err(Der::NONEXIST));
    assert_eq!(Key::new(1, &[0; 49]), Err(Der::OVERFLOW));
    assert_eq!(net.iv(0).connect(NS + 2, Tree::Kary(1)), Err(Der::INVAL));
    assert_eq!(net.iv(0).disconnect(NS + 2), Err(Der::NONEXIST));
}

#[test]
fn a_namespace_missing_at_the_parent_is_said() {
    let mut net = Net::new(2);
    net.iv(0).disconnect(NS).unwrap();
    assert_eq!(net.fetch(1, 1), Err(Der::NONEXIST));
}

#[test]
fn a_bidirectional_invalidation_and_a_value_past_the_bound_are_refused() {
    let mut net = Net::new(2);
    assert_eq!(net.invalidate(1, 1, Sync::Bidirectional), Err(Der::INVAL));
    let long = "x".repeat((64 << 10) + 1);
    assert_eq!(net.update(1, 1, &long, Sync::None), Err(Der::OVERFLOW));
}

#[test]
fn a_stopping_namespace_takes_nothing_new_and_its_end_ends_all() {
    let mut net = Net::new(2);
    net.deaf = vec![0];
    let waiting = net.start_fetch(1, 1);
    net.settle();
    net.iv(1).stop(NS);
    assert_eq!(net.fetch(1, 2), Err(Der::SHUTDOWN));
    net.iv(1).disconnect(NS).unwrap();
    assert_eq!(net.result(1, waiting), Err(Der::SHUTDOWN));
}

#[test]
fn users_of_a_namespace_are_counted() {
    let mut iv = Iv::new(0, 0, Options::default());
    iv.register(1, Box::new(Plain)).unwrap();
    iv.connect(NS, Tree::Flat).unwrap();
    iv.connect(NS, Tree::Flat).unwrap();
    iv.disconnect(NS).unwrap();
    assert_eq!(iv.view(NS), Some((0, None, 0)), "one is left");
    iv.disconnect(NS).unwrap();
    assert_eq!(iv.view(NS), None);
}

#[test]
fn a_valid_entry_asks_nobody_and_two_fetches_travel_once() {
    let mut net = Net::new(6);
    net.update(0, 1, "value", Sync::None).unwrap();
    let ops = [
        net.start_fetch(5, 1),
        net.start_fetch(5, 1),
        net.start_fetch(4, 1),
    ];
    assert!(
        net.result(5, ops[0]).is_ok()
            && net.result(5, ops[1]).is_ok()
            && net.result(4, ops[2]).is_ok()
    );
    assert_eq!(
        net.count("fetch"),
        2,
        "5 asks 4, 4 asks 0: {:?}",
        net.delivered
    );
    net.fetch(5, 1).unwrap();
    assert_eq!(net.count("fetch"), 2);
    // The way up is as long as the tree is deep.
    let group = Group::new(1, 0..6);
    assert_eq!(Tree::default().depth(&group, 0, 5), 2);
}

#[test]
fn long_values_go_by_bulk() {
    for (len, bulk) in [(INLINE, false), (INLINE + 1, true)] {
        let mut net = Net::new(2);
        net.start_update(1, 1, &"x".repeat(len), Sync::Eager.into());
        assert_eq!(
            net.flying()
                .iter()
                .map(|(_, _, m)| m.is_bulk())
                .collect::<Vec<_>>(),
            [bulk]
        );
    }
}

#[test]
fn only_a_greater_term_changes_the_leader() {
    let mut net = Net::new(3);
    net.lead(2, 5);
    net.lead(1, 5);
    net.lead(1, 4);
    assert_eq!(net.nodes[0].view(NS), Some((1, Some(2), 5)));
    net.lead(1, 6);
    assert_eq!(net.nodes[0].view(NS), Some((1, Some(1), 6)));
}

#[test]
fn a_leader_that_is_taken_back_refuses_until_it_leads_again_in_the_same_term() {
    let mut net = Net::new(3);
    net.lead(0, 5);
    net.update(0, 1, "before", Sync::Lazy).unwrap();
    net.settle();
    let held = |net: &mut Net| {
        for node in &mut net.nodes {
            node.unset_leader(0, NS);
        }
    };
    held(&mut net);
    assert_eq!(net.nodes[2].view(NS), Some((1, None, 5)));
    let refused = net.update(0, 1, "meanwhile", Sync::None);
    assert_eq!(refused.err(), Some(Der::NOTLEADER));
    net.lead(1, 4);
    assert_eq!(net.nodes[0].view(NS), Some((1, None, 5)), "an older term");
    net.lead(0, 5);
    let stamp = net.update(0, 1, "after", Sync::Eager).unwrap();
    assert_eq!((stamp.version.term, stamp.version.sequence), (5, 2));
    assert_eq!(net.fetch(2, 1), Ok(value("after")));
}

#[test]
fn without_a_leader_nothing_is_found_and_without_a_parent_neither() {
    let mut iv = Iv::new(0, 0, Options::default());
    iv.register(1, Box::new(Plain)).unwrap();
    iv.connect(NS, Tree::Flat).unwrap();
    let fetch = |iv: &mut Iv| {
        iv.fetch(0, NS, key(1), Shortcut::None, 5);
        iv.tick(5);
        let done = std::iter::from_fn(|| iv.poll()).find_map(|output| match output {
            engine_iv::Output::Done(done) => Some(done.result.unwrap_err()),
            _ => None,
        });
        done.unwrap()
    };
    assert_eq!(fetch(&mut iv).der, Der::NOTLEADER);
    iv.set_leader(0, NS, 1, 1);
    iv.set_group(0, NS, Group::new(1, [1, 2]));
    let failure = fetch(&mut iv);
    assert_eq!(
        (failure.der, failure.expired, failure.attempts),
        (Der::OOG, true, 1)
    );
    assert_eq!(
        failure.to_string(),
        "DER_OOG(1019): out of group or member list after 1 attempts, deadline reached"
    );
}

#[test]
fn a_lazy_update_returns_before_anybody_has_it() {
    let mut net = Net::new(5);
    let op = net.start_update(0, 1, "later", Sync::Lazy.into());
    net.flying();
    assert!(net.done[&(0, op)].is_ok(), "at once");
    assert_eq!(net.cached(4, 1), None);
    net.settle();
    assert_eq!(net.cached(4, 1), Some(value("later")));
}

#[test]
fn an_operation_follows_the_leader() {
    let mut net = Net::new(4);
    net.deaf = vec![0];
    let update = net.start_update(2, 1, "found", Sync::Eager.into());
    let fetch = net.start_fetch(3, 2);
    net.settle();
    net.deaf.clear();
    net.lead(1, 2);
    assert_eq!(net.result(2, update).unwrap().version.term, 2);
    assert_eq!(
        net.result(3, fetch),
        Err(Der::NONEXIST),
        "the new leader says so, at once"
    );
    assert_eq!(net.fetch(3, 1), Ok(value("found")));
}

#[test]
fn a_rank_of_an_old_term_is_told_and_one_ahead_is_waited_for() {
    let mut net = Net::new(2);
    let now = net.now;
    net.iv(0).set_leader(now, NS, 0, 2);
    assert_eq!(net.fetch(1, 1), Err(Der::NOTLEADER), "1 is behind");
    net.iv(1).set_leader(now, NS, 0, 3);
    assert_eq!(net.fetch(1, 1), Err(Der::GRPVER), "0 is behind");
}

#[test]
fn a_bidirectional_update_leaves_the_value_on_its_way_and_nowhere_else() {
    let mut net = Net::new(6);
    let stamp = net.update(5, 1, "both", Sync::Bidirectional).unwrap();
    assert_eq!(stamp.value, Some(value("both")));
    let have: Vec<bool> = (0..6).map(|rank| net.cached(rank, 1).is_some()).collect();
    assert_eq!(have, [true, false, false, false, true, true]);
}

#[test]
fn the_shortcut_goes_straight_to_the_root() {
    let mut net = Net::new(6);
    let how = How {
        sync: Sync::None,
        shortcut: Shortcut::ToRoot,
    };
    let op = net.start_update(5, 1, "short", how);
    net.result(5, op).unwrap();
    assert_eq!(net.delivered, [(5, 0, "update"), (0, 5, "updated")]);
    let now = net.now;
    let op = net.iv(5).fetch(now, NS, key(1), Shortcut::ToRoot, BUDGET);
    assert!(net.result(5, op).is_ok());
    assert_eq!(net.count("fetch"), 1);
    assert_eq!(net.cached(4, 1), None);
}
