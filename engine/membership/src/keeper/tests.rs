use super::*;

fn at(rank: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, rank as u8], 10010))
}

fn map(version: u32, lives: &[(u32, u64)]) -> Map {
    led(version, lives, None)
}

fn led(version: u32, lives: &[(u32, u64)], leader: Option<(u32, u64)>) -> Map {
    let member = |(rank, incarnation): &(u32, u64)| Member {
        rank: *rank,
        address: at(*rank),
        incarnation: *incarnation,
    };
    let leader = leader.map(|(rank, term)| Leader { rank, term });
    Map::new(version, lives.iter().map(member).collect(), leader).unwrap()
}

fn term(version: u64, life: u64) -> u64 {
    version << 32 | life
}

#[test]
fn versions_only_grow_and_say_who_came_and_went() {
    let mut keeper = Keeper::new(Some(1), 1);
    let joined = |rank| Change::Joined {
        rank,
        address: at(rank),
    };
    assert_eq!(
        keeper.take(map(3, &[(1, 0), (2, 0)])),
        Ok(vec![Change::Map, joined(1), joined(2), Change::Leader])
    );
    assert!(keeper.is_member() && keeper.leads());
    assert_eq!(keeper.take(map(3, &[(1, 0), (2, 0)])), Ok(vec![]));
    assert_eq!(keeper.take(map(3, &[(1, 0)])), Err(Refusal::Differs(3)));
    let older = Refusal::Older {
        offered: 2,
        known: 3,
    };
    assert_eq!(keeper.take(map(2, &[(1, 0)])), Err(older));
    assert_eq!(
        keeper.take(map(7, &[(2, 0), (4, 0)])),
        Ok(vec![
            Change::Map,
            Change::Left { rank: 1 },
            joined(4),
            Change::Leader
        ])
    );
    assert!(!keeper.is_member() && !keeper.leads());
}

#[test]
fn of_a_list_the_lowest_rank_leads_once_its_life_is_known() {
    let mut keeper = Keeper::new(Some(5), 1);
    keeper.take(map(2, &[(3, 0), (5, 0)])).unwrap();
    assert_eq!(keeper.leader(), None, "nobody has heard of rank 3");
    assert_eq!(keeper.heard(3, 4), [Change::Leader]);
    let leader = |rank, term| Some(Leader { rank, term });
    assert_eq!(keeper.leader(), leader(3, term(2, 4)));
    assert_eq!(keeper.heard(3, 3), [], "a late answer");
    let reborn = Change::Reborn {
        rank: 3,
        incarnation: 6,
    };
    assert_eq!(keeper.heard(3, 6), [reborn, Change::Leader]);
    assert_eq!(keeper.leader(), leader(3, term(2, 6)));
    assert_eq!(keeper.heard(9, 1), [], "no member");
    // It leaves: the next one leads in a greater term, although its life is its first.
    keeper.take(map(3, &[(5, 0)])).unwrap();
    assert_eq!(keeper.leader(), leader(5, term(3, 1)));
}

#[test]
fn a_source_that_names_the_leader_is_believed_unless_its_term_is_old() {
    let mut keeper = Keeper::new(Some(0), 1);
    keeper
        .take(led(1, &[(0, 1), (1, 1)], Some((1, 70))))
        .unwrap();
    assert_eq!(keeper.leader(), Some(Leader { rank: 1, term: 70 }));
    let old = Refusal::OldTerm {
        offered: 69,
        known: 70,
    };
    assert_eq!(keeper.take(led(2, &[(0, 1)], Some((0, 69)))), Err(old));
    assert_eq!(keeper.map().version(), 1, "nothing of it");
    let changes = keeper
        .take(led(2, &[(0, 1), (1, 3)], Some((0, 80))))
        .unwrap();
    let reborn = Change::Reborn {
        rank: 1,
        incarnation: 3,
    };
    assert_eq!(changes, [Change::Map, reborn, Change::Leader]);
    assert_eq!(keeper.heard(1, 3), [], "the map has said it");
}

#[test]
fn without_a_lease_this_engine_does_not_lead_and_with_it_again_in_the_same_term() {
    let mut keeper = Keeper::new(Some(0), 1);
    keeper
        .take(led(1, &[(0, 1), (1, 1)], Some((0, 70))))
        .unwrap();
    assert!(keeper.leads());
    assert_eq!(keeper.set_may_lead(false), [Change::Leader]);
    assert_eq!(keeper.leader(), None);
    assert_eq!(keeper.set_may_lead(false), []);
    assert_eq!(keeper.set_may_lead(true), [Change::Leader]);
    assert_eq!(keeper.leader(), Some(Leader { rank: 0, term: 70 }));
    // Another engine's leadership does not depend on our lease.
    keeper
        .take(led(2, &[(0, 1), (1, 1)], Some((1, 90))))
        .unwrap();
    assert_eq!(keeper.set_may_lead(false), []);
}

#[test]
fn a_rank_that_comes_late_is_counted_from_then_on() {
    let mut keeper = Keeper::new(None, 2);
    keeper.take(map(1, &[(4, 0)])).unwrap();
    assert!(!keeper.is_member());
    assert_eq!(keeper.set_me(4, 2), [Change::Leader]);
    assert!(keeper.leads());
}

#[test]
fn lists_that_are_none_are_named() {
    use crate::MapError;
    let member = Member {
        rank: 1,
        address: at(1),
        incarnation: 0,
    };
    assert_eq!(Map::new(0, vec![], None), Err(MapError::NoVersion));
    assert_eq!(
        Map::new(1, vec![member, member], None),
        Err(MapError::Twice(1))
    );
    let stranger = Some(Leader { rank: 2, term: 1 });
    assert_eq!(
        Map::new(1, vec![member], stranger),
        Err(MapError::StrangeLeader(2))
    );
    assert_eq!(
        Map::new(1, vec![member; 65_537], None),
        Err(MapError::TooMany(65_537))
    );
}
