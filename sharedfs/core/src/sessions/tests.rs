use super::*;

const ID: SessionId = SessionId(5);
const SLOT: SlotIndex = SlotIndex(0);

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

fn row() -> SessionRow {
    SessionRow { node: 1, mount: 2, slots: 4 }
}

fn with_one() -> Sessions {
    let mut sessions = Sessions::new(Duration::from_millis(1000));
    sessions.begin(at(0), ID, row());
    sessions
}

#[test]
fn a_request_that_comes_again_is_not_done_again() {
    let mut sessions = with_one();
    let one = RequestNumber(1);
    assert_eq!(sessions.check(ID, SLOT, one), SlotCheck::Execute);
    assert_eq!(sessions.check(ID, SLOT, one), SlotCheck::Underway);
    sessions.replied(ID, SLOT, one, b"done");
    assert_eq!(sessions.check(ID, SLOT, one), SlotCheck::Replay(b"done".to_vec()));
    assert_eq!(sessions.check(ID, SLOT, RequestNumber(2)), SlotCheck::Execute);
    assert_eq!(sessions.check(ID, SLOT, one), SlotCheck::Old);
    // A reply to a request that is not the last one any more is nobody's.
    sessions.replied(ID, SLOT, one, b"late");
    assert_eq!(sessions.check(ID, SLOT, RequestNumber(2)), SlotCheck::Underway);
    assert_eq!(sessions.check(ID, SlotIndex(4), one), SlotCheck::Misordered);
    assert_eq!(sessions.check(SessionId(6), SLOT, one), SlotCheck::NoSession);
}

#[test]
fn a_session_lives_as_long_as_it_is_heard_and_not_longer() {
    let mut sessions = with_one();
    assert!(sessions.heard(at(900), ID));
    assert_eq!(sessions.expire(at(1899)), []);
    assert_eq!(sessions.next_expiry(), Some(at(1900)));
    // Its time is over whether or not anybody has looked.
    assert!(!sessions.heard(at(1900), ID));
    assert_eq!(sessions.expire(at(1900)), [ID]);
    assert_eq!(sessions.expire(at(9000)), [], "it is told once");
    assert!(!sessions.heard(at(1901), ID));
    assert_eq!(sessions.check(ID, SLOT, RequestNumber(1)), SlotCheck::NoSession);
    assert!(!sessions.end(ID, EndReason::Ended));
    sessions.remove(ID);
    assert_eq!(sessions.state(ID), None);
}

#[test]
fn after_a_failover_a_session_is_served_once_it_has_reclaimed() {
    let mut sessions = Sessions::new(Duration::from_millis(1000));
    let reply = ReplyRow { number: RequestNumber(7), reply: b"made".to_vec() };
    sessions.restore(at(500), ID, row(), vec![(SLOT, reply)]);
    sessions.restore(at(500), SessionId(6), row(), Vec::new());
    assert!(sessions.heard(at(100), ID));
    assert_eq!(sessions.check(ID, SLOT, RequestNumber(7)), SlotCheck::NoSession, "grace");
    sessions.reclaimed(at(200), ID);
    assert_eq!(sessions.check(ID, SLOT, RequestNumber(7)), SlotCheck::Replay(b"made".to_vec()));
    // What failed or only read has left no number behind.
    assert_eq!(sessions.check(ID, SLOT, RequestNumber(9)), SlotCheck::Execute);
    assert!(sessions.in_grace());
    // Being heard doesn't prolong the grace period.
    assert!(sessions.heard(at(499), SessionId(6)));
    assert_eq!(sessions.expire(at(500)), [SessionId(6)]);
    sessions.reclaimed(at(501), SessionId(6));
    assert_eq!(sessions.state(SessionId(6)), Some(SessionState::Ending));
    assert!(!sessions.in_grace());
}
