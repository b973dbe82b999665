use super::*;
use crate::{Device, FileType, Groups, Ino, Timestamp};

fn acl(entries: &[(AclTag, u8)]) -> Acl {
    let entries = entries.iter().map(|&(tag, permissions)| AclEntry { tag, permissions });
    Acl::new(entries.collect()).unwrap()
}

fn file_of(uid: u32, gid: u32) -> Attributes {
    let t = Timestamp::default();
    Attributes {
        ino: Ino(2),
        file_type: FileType::Regular,
        mode: Mode::new(0o640),
        uid,
        gid,
        links: 1,
        size: 0,
        blocks: 0,
        device: Device(0),
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        change: 0,
    }
}

fn example() -> Acl {
    acl(&[
        (AclTag::Owner, 6),
        (AclTag::User(1001), 7),
        (AclTag::OwningGroup, 4),
        (AclTag::Group(50), 6),
        (AclTag::Mask, 6),
        (AclTag::Others, 0),
    ])
}

#[test]
fn a_list_survives_its_encoding() {
    let list = example();
    assert_eq!(Acl::decode(&list.encode()), Ok(list));
}

#[test]
fn lists_that_say_nothing_clear_are_refused() {
    use AclTag::{Group, Mask, Others, Owner, OwningGroup, User};
    let base = [(Owner, 6), (OwningGroup, 4), (Others, 0)];
    let build = |list: &[(AclTag, u8)]| {
        Acl::new(list.iter().map(|&(tag, permissions)| AclEntry { tag, permissions }).collect())
    };
    assert!(build(&base).is_ok());
    for (what, list) in [
        ("no owner", vec![base[1], base[2]]),
        ("no others", vec![base[0], base[1]]),
        ("two owners", vec![base[0], base[0], base[1], base[2]]),
        ("user without a mask", vec![base[0], (User(1), 4), base[1], base[2]]),
        ("group without a mask", vec![base[0], base[1], (Group(1), 4), base[2]]),
        ("two masks", vec![base[0], base[1], (Mask, 4), (Mask, 4), base[2]]),
        ("order", vec![base[0], base[2], base[1]]),
        ("permission", vec![(Owner, 8), base[1], base[2]]),
    ] {
        assert_eq!(build(&list), Err(AclError::Invalid), "{what}");
    }
    assert_eq!(Acl::decode(&[2, 0, 0]), Err(AclError::Invalid));
    assert_eq!(Acl::decode(&3_u32.to_le_bytes()), Err(AclError::Version));
    let mut bytes = example().encode();
    bytes.pop();
    assert_eq!(Acl::decode(&bytes), Err(AclError::Invalid));
    bytes = example().encode();
    bytes[4] = 3;
    assert_eq!(Acl::decode(&bytes), Err(AclError::Invalid), "unknown tag");
}

#[test]
fn the_first_class_that_fits_decides() {
    let (list, file) = (example(), file_of(1000, 100));
    let may = |uid, gid, access| list.permits(&Caller::user(uid, gid), &file, access);
    let write = Access::WRITE;
    assert!(may(1000, 9, write), "owner");
    assert!(!may(1000, 50, Access::EXECUTE), "the owner's entry decides, whatever its groups have");
    assert!(may(1001, 9, write));
    assert!(!may(1001, 9, Access::EXECUTE), "the mask takes it");
    assert!(may(7, 100, Access::READ));
    assert!(!may(7, 100, write), "in a group that may not: others don't count");
    assert!(may(7, 50, write));
    assert!(!may(7, 9, Access::READ), "others");
    let both = Caller { groups: Groups::Known(vec![50]), ..Caller::user(7, 100) };
    assert!(list.permits(&both, &file, write), "any group that grants it will do");
    assert!(
        !list.permits(&both, &file, write.and(Access::EXECUTE)),
        "but one entry must grant all of it"
    );
}

#[test]
fn chmod_moves_the_mask_and_not_the_group() {
    let mut list = example();
    assert_eq!(list.mode(Mode::new(0o4000)), Mode::new(0o4660));
    list.change_mode(Mode::new(0o751));
    assert_eq!(list.mode(Mode::new(0)), Mode::new(0o751));
    assert_eq!(list.entries()[2].permissions, 4, "the owning group keeps its own");
    let mut minimal = acl(&[(AclTag::Owner, 6), (AclTag::OwningGroup, 4), (AclTag::Others, 0)]);
    minimal.change_mode(Mode::new(0o777));
    assert_eq!(minimal.entries()[1].permissions, 7);
}

#[test]
fn what_is_made_inherits_no_more_than_it_asked_for() {
    let (list, mode) = example().inherited(Mode::new(0o604));
    assert_eq!(mode, Mode::new(0o600));
    assert_eq!(
        list.entries().iter().map(|e| e.permissions).collect::<Vec<_>>(),
        [6, 7, 4, 6, 0, 0]
    );
    let minimal = acl(&[(AclTag::Owner, 7), (AclTag::OwningGroup, 5), (AclTag::Others, 5)]);
    let (list, mode) = minimal.inherited(Mode::new(0o666));
    assert_eq!(mode, Mode::new(0o644));
    assert!(list.is_minimal());
}
