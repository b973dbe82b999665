use super::*;

const A: Value = Value::Tag { client: 1, number: 1 };
const B: Value = Value::Tag { client: 1, number: 2 };

fn write(op: u64, value: Value) -> Step {
    Step::Invoked { op, writes: Some(value) }
}

fn read(op: u64) -> Step {
    Step::Invoked { op, writes: None }
}

fn written(op: u64) -> Step {
    Step::Returned { op, read: None }
}

fn gave(op: u64, value: Value) -> Step {
    Step::Returned { op, read: Some(value) }
}

#[test]
fn a_read_gives_the_last_write() {
    assert!(check(&[write(1, A), written(1), read(2), gave(2, A)]).is_ok());
    assert!(check(&[write(1, A), written(1), read(2), gave(2, Value::Zero)]).is_err());
}

#[test]
fn overlapping_writes_may_come_in_any_order_but_in_one_order() {
    let both = [write(1, A), write(2, B), written(1), written(2)];
    let after = |reads: &[Step]| check(&[&both[..], reads].concat()).is_ok();
    assert!(after(&[read(3), gave(3, A), read(4), gave(4, A)]));
    assert!(after(&[read(3), gave(3, B), read(4), gave(4, B)]));
    assert!(!after(&[read(3), gave(3, B), read(4), gave(4, A)]));
}

#[test]
fn what_was_seen_once_is_not_unseen_again() {
    let steps = [write(1, A), read(2), gave(2, A), read(3), gave(3, Value::Zero), written(1)];
    assert!(check(&steps).is_err(), "a read past a write in flight");
}

#[test]
fn a_write_never_answered_may_come_late_or_never() {
    let late = [write(1, A), read(2), gave(2, Value::Zero), read(3), gave(3, A)];
    assert!(check(&late).is_ok());
    assert!(check(&late[..3]).is_ok());
}

#[test]
fn a_fenced_write_comes_before_its_fence_or_never() {
    let fenced = Step::Ended { op: 1, never: false };
    let after = [write(1, A), fenced.clone(), read(2), gave(2, A)];
    assert!(check(&after).is_ok());
    let late = [
        write(1, A),
        write(2, B),
        written(2),
        read(3),
        gave(3, B),
        fenced,
        read(4),
        gave(4, B),
        read(5),
        gave(5, A),
    ];
    assert!(check(&late).is_err());
}

#[test]
fn a_refused_write_never_comes() {
    let refused = Step::Ended { op: 1, never: true };
    assert!(check(&[write(1, A), refused, read(2), gave(2, A)]).is_err());
}

#[test]
fn a_declared_loss_goes_back_to_what_it_allows() {
    let lost = |to| {
        vec![
            write(1, A),
            written(1),
            write(2, B),
            written(2),
            Step::Loss(vec![A]),
            read(3),
            gave(3, to),
        ]
    };
    assert!(check(&lost(A)).is_ok());
    assert!(check(&lost(B)).is_ok(), "what a loss may take may also be kept");
    assert!(check(&lost(Value::Zero)).is_err());
}
