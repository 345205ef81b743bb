//! What is still being written, and what has a foreign name, is left alone.

use checkpoint_keeper_core::plan::{Detail, Reason};
use checkpoint_keeper_core::policy::Size;

use crate::plan_support::*;

#[test]
fn what_is_being_written_is_neither_judged_nor_deleted_nor_counted() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives.push(archive("wet").unsettled().discarded().sized(GI));
    archives.push(archive("growing").unsettled().incomplete().aged(DAY));
    let policy = with(
        keep(|retention| (retention.per_container, retention.max_archive_size) = (count(3), Some(2 * MI))),
        |policy| {
            policy.incomplete_grace = Some(MINUTE);
        },
    );
    let outcome = case(archives).policy(policy).storage(watermark(1, 1)).disk(disk(100 * GI, 0)).run();
    assert_eq!(outcome.deleted(), ["a1", "a2"]);
    assert_eq!((outcome.reason("wet"), outcome.reason("growing")), (Reason::Settling, Reason::Settling));
}

// Foreign names.

#[test]
fn files_with_foreign_names_are_never_deleted_and_never_count() {
    let foreign = |short: &str| archive(short).named(&format!("{short}.tar.gz")).aged(DAY * 9).discarded();
    let archives = [
        archive("new").aged(HOUR),
        foreign("known"),
        foreign("unknown").unknown(),
        foreign("cut").incomplete(),
        foreign("cut-unknown").incomplete().unknown(),
    ];
    let policy = with(
        keep(|retention| (retention.per_container, retention.max_age) = (count(1), Some(HOUR * 2))),
        |policy| {
            policy.incomplete_grace = Some(MINUTE);
        },
    );
    let limits = with(watermark(1, 1), |policy| policy.max_total_size = Some(Size::Bytes(MI)));
    let outcome = case(archives).policy(policy).storage(limits).disk(disk(GI, 0)).run();
    assert_eq!(outcome.deleted(), [""; 0]);
    assert_eq!(
        (outcome.reason("known.tar.gz"), outcome.detail("known.tar.gz")),
        (Reason::NoPolicy, Detail::ForeignName)
    );
    assert_eq!(outcome.reason("cut.tar.gz"), Reason::NoPolicy);
    assert_eq!(outcome.reason("unknown.tar.gz"), Reason::UnknownIdentity);
    assert_eq!(outcome.reason("cut-unknown.tar.gz"), Reason::UnknownIdentity);
}
