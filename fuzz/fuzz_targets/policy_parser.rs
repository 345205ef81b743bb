//! Whatever a tired person writes: the loader answers with policies or with errors that say where.

#![no_main]

use checkpoint_keeper_api::manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match manifest::load(&[("policy.yaml", text)]) {
        Ok(loaded) => {
            // What is accepted can be planned with, and nothing governs what is not there.
            let plan = checkpoint_keeper_core::plan::plan(
                &checkpoint_keeper_core::plan::Snapshot::default(),
                &loaded.policies,
                jiff::Timestamp::UNIX_EPOCH,
            );
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
