use super::*;

fn keys() -> Keys {
    Keys::new("/k")
}

fn put(key: Vec<u8>, value: &str, created: i64, revision: i64) -> KeyValue {
    KeyValue {
        key,
        create_revision: created,
        mod_revision: revision,
        value: value.into(),
        lease: 9,
    }
}

fn member(rank: u32, incarnation: u64, created: i64) -> KeyValue {
    let card =
        format!(r#"{{"uuid":"u{rank}","address":"10.0.0.{rank}:1","incarnation":{incarnation}}}"#);
    put(keys().member(rank), &card, created, created)
}

fn gone(key: Vec<u8>) -> Event {
    Event {
        r#type: EventType::Delete.into(),
        kv: Some(put(key, "", 0, 0)),
    }
}

fn came(kv: KeyValue) -> Event {
    Event {
        r#type: EventType::Put.into(),
        kv: Some(kv),
    }
}

fn board(listed: &[KeyValue]) -> Board {
    let mut board = Board::new(keys());
    board.load(listed);
    board
}

/// Writes what `me` has to write, at this revision; version, leader, term and ranks of it.
fn publish(board: &mut Board, me: u32, revision: i64) -> Option<(u32, u32, u64, Vec<u32>)> {
    let publication = board.publication(me, 0)?;
    board.published(publication, revision);
    let document = board.group().unwrap();
    let ranks = document.members.iter().map(|row| row.rank).collect();
    Some((document.version, document.leader, document.term, ranks))
}

#[test]
fn the_oldest_key_leads_and_writes_the_members() {
    let mut board = board(&[member(1, 1, 20), member(2, 1, 10)]);
    assert_eq!(board.leader(), Some((2, 10)));
    assert_eq!(publish(&mut board, 1, 30), None, "not for it to write");
    assert_eq!(publish(&mut board, 2, 30), Some((1, 2, 10, vec![1, 2])));
    assert_eq!(publish(&mut board, 2, 31), None, "it stands");

    board.apply(&came(member(0, 1, 40)));
    assert_eq!(publish(&mut board, 2, 41), Some((2, 2, 10, vec![0, 1, 2])));
    board.apply(&gone(keys().member(2)));
    assert_eq!(board.leader(), Some((1, 20)));
    assert_eq!(publish(&mut board, 1, 50), Some((3, 1, 20, vec![0, 1])));
    // It comes back: a member with another life, and the youngest.
    board.apply(&came(member(2, 2, 60)));
    assert_eq!(board.leader(), Some((1, 20)));
    assert_eq!(publish(&mut board, 1, 61), Some((4, 1, 20, vec![0, 1, 2])));
}

#[test]
fn what_is_written_replaces_what_was_seen_and_nothing_else() {
    let mut board = board(&[member(1, 1, 20)]);
    let first = board.publication(1, 0).unwrap();
    assert_eq!((first.replaces, first.since), (0, 20));
    board.published(first.clone(), 30);
    // The watch tells of it later, and of one before it, which must not come back.
    let text = serde_json::to_string(&first.document).unwrap();
    board.apply(&came(member(2, 1, 31)));
    let second = board.publication(1, 0).unwrap();
    assert_eq!((second.replaces, second.document.version), (30, 2));
    board.published(second, 32);
    board.apply(&came(put(keys().group(), &text, 30, 30)));
    assert_eq!(board.group().map(|document| document.version), Some(2));
}

/// A member that has seen a version and a term which etcd knows no more.
fn doubter(rank: u32, created: i64, version: u32, term: u64) -> KeyValue {
    let card = format!(
        r#"{{"uuid":"u{rank}","address":"10.0.0.{rank}:1","incarnation":1,"seen":{{"version":{version},"term":{term}}}}}"#
    );
    put(keys().member(rank), &card, created, created)
}

#[test]
fn a_version_that_a_member_has_seen_is_not_given_again() {
    let mut board = board(&[member(1, 1, 20)]);
    let version = |board: &Board, mine| Some(board.publication(1, mine)?.document.version);
    assert_eq!(version(&board, 7), Some(8), "the document was deleted");
    assert_eq!(version(&board, u32::MAX), None, "there is no greater one");
    publish(&mut board, 1, 30);
    assert_eq!(version(&board, 1), None);
    board.apply(&came(doubter(2, 31, 7, 0)));
    assert_eq!(publish(&mut board, 1, 32), Some((8, 1, 20, vec![1, 2])));
    assert_eq!(version(&board, 8), None);
    board.apply(&came(doubter(2, 31, 8, 0)));
    assert_eq!(version(&board, 8), Some(9), "it has seen another version 8");
}

#[test]
fn nobody_leads_in_a_term_that_a_member_in_doubt_has_seen() {
    let mut board = board(&[member(1, 1, 20), doubter(2, 30, 7, 25)]);
    assert!(board.is_of_the_past(1) && !board.is_of_the_past(2));
    board.apply(&came(doubter(2, 30, 7, 20)));
    assert!(board.is_of_the_past(1), "it may have been somebody else's");
    board.apply(&came(member(1, 2, 40)));
    assert_eq!(board.leader(), Some((2, 30)));
    assert!(!board.is_of_the_past(2));
    assert_eq!(publish(&mut board, 2, 41), Some((8, 2, 30, vec![1, 2])));
}

#[test]
fn what_cannot_be_read_is_replaced_or_left_out() {
    let mut board = board(&[member(1, 1, 20), put(keys().group(), "junk", 5, 25)]);
    assert_eq!(board.group(), None);
    assert_eq!(board.publication(1, 3).map(|p| p.replaces), Some(25));
    board.apply(&came(put(keys().member(1), "junk", 20, 26)));
    assert_eq!(board.leader(), None);
    board.apply(&came(put(b"/k/else".to_vec(), "junk", 27, 27)));
    board.apply(&gone(keys().group()));
    board.apply(&came(member(1, 1, 28)));
    assert_eq!(board.publication(1, 3).map(|p| p.replaces), Some(0));
}

#[test]
fn ranks_belong_to_engines() {
    let owner = |rank, uuid: &str| put(keys().rank(rank), uuid, 1, 1);
    let board = board(&[owner(0, "a"), owner(1, "b"), owner(3, "c")]);
    assert_eq!(board.rank_of("b"), Some(1));
    assert_eq!(board.rank_of("d"), None);
    assert_eq!(board.free_rank(), Some(2));
}
