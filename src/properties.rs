//! How property tests run.

use proptest::{prelude::ProptestConfig, test_runner::FileFailurePersistence};

/// As the environment says (`PROPTEST_CASES` for more of them), with the seeds of cases that ever
/// failed kept under `tests/regressions`, a file for each source file: they belong into the commit,
/// and are tried first from then on.
pub(crate) fn kept() -> ProptestConfig {
    let seeds = FileFailurePersistence::SourceParallel("tests/regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(seeds)),
        ..ProptestConfig::default()
    }
}
