//! Whatever a tired person writes: the loader answers with policies or with errors that say where.
//! The text of a single value goes through the readers of single values, too.

#![no_main]

use checkpoint_keeper_api::manifest;
use checkpoint_keeper_core::name::{FileName, is_unsafe, printable};
use checkpoint_keeper_core::quantity::{self, Share};
use checkpoint_keeper_core::{duration, plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if text.len() < 256 {
        value(text);
    }
    match manifest::load(&[("policy.yaml", text)]) {
        Ok(loaded) => {
            // What is accepted can be planned with, and nothing governs what is not there.
            let nothing = plan::Snapshot::default();
            let plan = plan::plan(&nothing, &loaded.policies, jiff::Timestamp::UNIX_EPOCH);
            assert!(plan.verdicts.is_empty());
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(!error.to_string().is_empty());
            }
        }
    }
});

fn value(text: &str) {
    if let Ok(bytes) = quantity::parse(text) {
        assert!(i64::try_from(bytes).is_ok() && !quantity::human(bytes).is_empty());
    }
    if let Ok(share) = Share::parse(text) {
        assert!(share.of(u64::MAX) >= share.of(1) && Share::parse(&share.to_string()) == Ok(share));
    }
    if let Ok(length) = duration::parse(text) {
        assert!(jiff::Timestamp::UNIX_EPOCH.checked_add(length).is_ok());
        assert!(!duration::human(length).is_empty());
    }
    if let Some(name) = FileName::new(text.as_bytes()) {
        assert!(!name.to_string().chars().any(is_unsafe));
        let _ = (name.kind(), name.checkpoint_time(), name.marker());
    }
    assert!(!printable(text).chars().any(is_unsafe));
}
